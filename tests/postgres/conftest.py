"""driver(conninfo): postgres.c by hand, through tests/postgres/driver.c."""
import queue
import subprocess
import threading
import time

import pytest
from wrapper import clean_environment


class Driver:
    def __init__(self, program, conninfo, attempt_ms, channel, environment):
        self.process = subprocess.Popen([program, conninfo, str(attempt_ms), *([channel] if channel else [])], text=True,
                                        env=clean_environment(**environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, bufsize=1)
        self.lines, self.seen = queue.Queue(), []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def send(self, *commands):
        self.process.stdin.write("".join(command + "\n" for command in commands))
        self.process.stdin.flush()
        return self

    def next(self, timeout=10):
        try:
            line = self.lines.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"nothing within {timeout} s after {self.seen}") from None
        assert line is not None, f"ended after {self.seen}: {self.process.stderr.read()}"
        self.seen.append(line)
        return line

    def expect(self, start, timeout=10):
        """The very next line, which must begin so."""
        line = self.next(timeout)
        assert line.startswith(start), f"wanted {start!r} after {self.seen}"
        return line

    def ask(self, sql, timeout_ms=5000):
        return self.send(f"query {timeout_ms} {sql}").expect("reply ").split(" ", 1)[1].rsplit(" length=", 1)[0]

    def finish(self):
        """Ends it in peace: nothing else was reported, no leak, no sanitizer complaint, every handle closed."""
        if not self.process.stdin.closed:
            self.process.stdin.close()
        status = self.process.wait(20)
        rest = []
        while (line := self.lines.get(timeout=10)) is not None:
            rest.append(line)
        errors = self.process.stderr.read()
        assert status == 0 and not errors, f"exit {status} after {self.seen + rest}\n{errors}"
        assert [line for line in rest if line != "closed"] == []


@pytest.fixture
def driver(build):
    started = []

    def start(conninfo, attempt_ms=3000, channel="chan \"nel", **environment):
        started.append(Driver(build / "tests" / "postgres" / "postgres_driver", conninfo, attempt_ms, channel, environment))
        return started[-1]
    yield start
    for each in started:
        if not each.process.stdin.closed:
            each.finish()


@pytest.fixture
def seconds():
    begin = time.monotonic()
    return lambda: time.monotonic() - begin
