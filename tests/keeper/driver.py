"""Runs driver.c, which plays the wrapper, and reads the events it prints."""
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

import processes
from processes import wait_for


def now_ms():
    return time.clock_gettime(time.CLOCK_BOOTTIME) * 1000


class Driver:
    """A wrapper of nothing but a keeper. `events` is the list of all it has said."""

    def __init__(self, program, arguments, environment=None, preexec=None, stdout=None):
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HEIRFLOW_", "PG"))}
        self.process = subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stdout,
                                        env=kept | (environment or {}), preexec_fn=preexec, text=True)
        self.events = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                self.events.append(json.loads(line))

    @property
    def pid(self):
        return self.process.pid

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def seen(self, name):
        return [event for event in list(self.events) if event["event"] == name]

    def wait_for(self, name, count=1, timeout=15):
        wait_for(lambda: len(self.seen(name)) >= count, timeout, lambda: f"{name}; seen: {self.events}", 0.002)
        return self.seen(name)[count - 1]

    def keeper(self):
        return next(pid for pid in processes.descendants(self.pid) if processes.command_line(pid)[:2] == ["heirflow", "keeper"])

    def tree(self):
        """Everything below the keeper."""
        return processes.descendants(self.keeper())

    def kill(self):
        self.process.kill()
        self.process.wait()

    def freeze(self):
        processes.send(self.pid, signal.SIGSTOP)

    def thaw(self):
        processes.send(self.pid, signal.SIGCONT)


def wait_until_dead(pids, timeout=10):
    wait_for(lambda: not any(map(processes.alive, pids)), timeout, lambda: f"{list(filter(processes.alive, pids))} to die", 0.001)


def read(path):
    path = pathlib.Path(path)
    return path.read_text() if path.exists() else ""


def leaves(seat):
    """The seat's cgroup, if it is there."""
    own = next(line[3:] for line in read("/proc/self/cgroup").splitlines() if line.startswith("0::"))
    mounts = [pathlib.Path("/sys/fs/cgroup"), pathlib.Path("/sys/fs/cgroup/unified")]
    return [path for mount in mounts if (path := mount / own.strip("/") / f"heirflow-{seat}").exists()]
