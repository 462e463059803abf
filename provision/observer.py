"""Sees when each node's scheduler starts and when the last process of its tree has gone; notices any overlap.

Each node's scheduler is started through `observed-scheduler` with a folder of named pipes, of which each start takes one:
data on it is the start, its hang-up the end of the whole tree. Times are seconds of CLOCK_BOOTTIME.
"""
import dataclasses
import os
import select
import threading
import time

TICK_S = 0.001
SPARE = 3  # pipes ready for a node's next starts


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
        self.running = {}  # descriptor: its life
        self.lock = threading.Lock()
        self.ending = False
        self.made = 0

    def add(self, node):
        """Path of a new folder of pipes for that node."""
        folder = self.folder / f"{node}.pipes"
        folder.mkdir()
        folder.chmod(0o777)
        with self.lock:
            for _ in range(SPARE):
                self.add_pipe(node)
        return str(folder)

    def add_pipe(self, node):
        self.made += 1
        path = self.folder / f"{node}.pipes" / str(self.made)
        making = path.with_name(f".{path.name}")  # so that nobody writes before we can read
        os.mkfifo(making)
        making.chmod(0o666)
        self.pipes[os.open(making, os.O_RDONLY | os.O_NONBLOCK)] = node
        making.rename(path)

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
            later = dict(poll.poll(0))  # no hang-up before a start that we have seen is missed
            with self.lock:
                for descriptor, what in later.items():
                    if what & select.POLLHUP and not what & select.POLLIN:
                        self.end(descriptor)
                for descriptor, what in events.items():
                    if what & select.POLLIN:
                        self.begin(descriptor, int(os.read(descriptor, 4096)))
            time.sleep(TICK_S)

    def end(self, descriptor):
        if descriptor in self.running:  # else it died before it had said a word
            self.running.pop(descriptor).end = now()
        self.add_pipe(self.pipes.pop(descriptor))
        os.close(descriptor)

    def begin(self, descriptor, term):
        node = self.pipes[descriptor]
        life = self.running[descriptor] = Life(node, term, now())
        self.overlaps += [(other, life) for other in self.lives if other.end is None]
        self.lives.append(life)

    def stop(self):
        self.ending = True
        self.join()
        for descriptor in self.pipes:
            os.close(descriptor)
