"""Sees when each node's scheduler starts and when the last process of its tree has gone; notices any overlap.

Each node's scheduler is started through `observed-scheduler` with a named pipe of that node: data on it is a start, its
hang-up the end of the whole tree. Times are seconds of CLOCK_BOOTTIME.
"""
import dataclasses
import os
import select
import threading
import time

TICK_S = 0.001


def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclasses.dataclass
class Life:
    """One scheduler from its start to the end of its tree."""

    node: str
    term: int
    start: float
    end: float = None


class Observer(threading.Thread):
    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder = folder
        self.lives, self.overlaps = [], []
        self.pipes = {}  # descriptor: node
        self.lock = threading.Lock()
        self.ending = False

    def add(self, node):
        """Path of a new pipe for that node."""
        path = self.folder / f"{node}.pipe"
        os.mkfifo(path, 0o666)
        path.chmod(0o666)
        with self.lock:
            self.pipes[os.open(path, os.O_RDONLY | os.O_NONBLOCK)] = node
        return str(path)

    def current(self):
        """The life that goes on, or None."""
        with self.lock:
            return next((life for life in reversed(self.lives) if life.end is None), None)

    def run(self):
        while not self.ending:
            poll = select.poll()
            for descriptor in list(self.pipes):
                poll.register(descriptor, select.POLLIN)
            events = dict(poll.poll(50))
            with self.lock:
                # ends first: a pipe that hung up did so before the start that we have not read yet
                for descriptor, what in events.items():
                    if what & select.POLLHUP and not what & select.POLLIN:
                        self.end(self.pipes[descriptor])
                for descriptor, what in events.items():
                    if what & select.POLLIN:
                        for term in os.read(descriptor, 4096).split():
                            self.begin(self.pipes[descriptor], int(term))
            if not any(what & select.POLLIN for what in events.values()):
                time.sleep(TICK_S)  # a pipe without a writer hangs up without end

    def end(self, node):
        for life in self.lives:
            if life.node == node and life.end is None:
                life.end = now()

    def begin(self, node, term):
        life = Life(node, term, now())
        self.overlaps += [(other, life) for other in self.lives if other.end is None]
        self.lives.append(life)

    def stop(self):
        self.ending = True
        self.join()
        for descriptor in self.pipes:
            os.close(descriptor)
