"""The README's first command: it shows what it promises, and leaves nothing behind however it ends."""
import os
import pathlib
import pty
import re
import signal
import subprocess

import pytest
from conftest import SOURCE, processes, wait_for
from observer import Observer

pytestmark = pytest.mark.timeout(400)  # a demonstration starts a dozen programs: half a minute, several on a machine that is busy
START = 180
QUICKSTART = str(SOURCE / "provision" / "quickstart")


@pytest.fixture
def quickstart(build, folder):
    """Starts it on the build under test, with a folder for temporary files of its own."""
    temporary = folder / "tmp"
    temporary.mkdir(mode=0o755)

    def start(*arguments, **how):
        return subprocess.Popen([QUICKSTART, "--no-install", "--build", str(build), "--lease-ms", "1500", *arguments],
                                env=os.environ | {"TMPDIR": str(temporary), "TERM": "xterm"}, start_new_session=True, **how)
    start.temporary = temporary
    return start


class Terminal:
    """What runs in it, and all that it ever showed."""

    def __init__(self, quickstart):
        self.master, slave = pty.openpty()
        self.process = quickstart(stdin=slave, stdout=slave, stderr=slave, preexec_fn=self.own_it)
        os.close(slave)
        os.set_blocking(self.master, False)
        self.shown = ""

    @staticmethod
    def own_it():
        import fcntl
        import termios
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def open_interface(self):
        """As its reader does, who has copied what to try."""
        self.wait_until_it_shows("press Enter")
        os.write(self.master, b"\n")
        self.wait_until_it_shows("Line of succession")

    def shows(self, text):
        try:
            self.shown += os.read(self.master, 65536).decode(errors="replace")
        except (BlockingIOError, OSError):
            pass
        return text in self.shown

    def wait_until_it_shows(self, text, timeout=START):
        wait_for(lambda: self.shows(text), timeout, lambda: f"{text!r} in:\n{self.shown[-3000:]}")


def nothing_is_left(quickstart):
    wait_for(lambda: not processes.descendants(os.getpid()) or not strangers(), 20, lambda: f"an end of {strangers()}")
    assert list(quickstart.temporary.iterdir()) == []
    return True


def strangers():
    """Processes of a demonstration that still run."""
    found = [(pid, processes.command_line(pid)) for pid in processes.descendants(os.getpid())]
    return [(pid, line) for pid, line in found
            if any("heirflow-quickstart" in word or "demonstration" in word for word in line)]


def test_help_and_usage():
    assert "--drill" in subprocess.run([QUICKSTART, "--help"], capture_output=True, text=True, check=True).stdout
    assert subprocess.run([QUICKSTART, "--nonsense"], capture_output=True).returncode == 2
    assert subprocess.run([QUICKSTART, "--lease-ms"], capture_output=True).returncode == 2


def test_without_a_terminal_it_names_the_drill():
    done = subprocess.run([QUICKSTART], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 2 and "--drill" in done.stderr


def test_two_drills_at_once_measure_and_leave_nothing(quickstart):
    drills = [quickstart("--drill", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for drill in drills:
        table, progress = drill.communicate(timeout=300)
        assert drill.returncode == 0, table + progress
        for row in ("wrapper killed", "scheduler killed", "whole node lost", "handed over", "fourth wrapper", "standby removed"):
            assert row in table, progress
        assert " 0 overlaps" in table and re.search(r"\d+ runs, \d+ doubles, \d+ misses", table)
    nothing_is_left(quickstart)


def test_the_interface_opens_and_q_removes_everything(quickstart):
    terminal = Terminal(quickstart)
    terminal.open_interface()
    os.write(terminal.master, b"q")
    terminal.wait_until_it_shows("task runs in")
    assert terminal.process.wait(60) == 0
    nothing_is_left(quickstart)


def test_a_closed_terminal_ends_everything(quickstart):
    terminal = Terminal(quickstart)
    terminal.open_interface()
    os.close(terminal.master)
    terminal.process.wait(60)
    nothing_is_left(quickstart)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_while_it_starts_ends_everything(quickstart, number):
    started = quickstart("--drill", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # which test runs may ignore
    wait_for(lambda: list(quickstart.temporary.glob("*/rabbitmq")), START, "the servers to start")
    started.send_signal(number)
    assert started.wait(60) == 130, started.stdout.read()
    nothing_is_left(quickstart)


def test_the_observer_finds_schedulers_that_overlap(folder):
    observer = Observer(folder)
    pipes = {node: observer.add(node) for node in ("ada", "bert")}
    observer.start()

    def scheduler(node):
        return subprocess.Popen([str(SOURCE / "provision" / "observed-scheduler"), pipes[node], "sleep", "100"],
                                env=os.environ | {"HEIRFLOW_TERM": "1"})
    try:
        for number, node in enumerate(("ada", "bert", "ada"), 1):
            process = scheduler(node)
            wait_for(lambda: len(observer.lives) == number, what="a start")
            process.kill()
            process.wait()
            wait_for(lambda: observer.lives[-1].end, what="an end")
        assert observer.overlaps == []
        for node in ("ada", "bert"):
            scheduler(node)
            wait_for(observer.current, what="a start")
        wait_for(lambda: observer.overlaps, what="the overlap to be noticed")
    finally:
        observer.stop()


def test_the_observer_tells_a_restart_from_an_overlap(folder):
    """However soon the next scheduler starts once the last one is dead."""
    observer = Observer(folder)
    pipes = pathlib.Path(observer.add("ada"))
    observer.start()

    def begin():
        path = next(path for path in pipes.iterdir() if not path.name.startswith("."))
        descriptor = os.open(path, os.O_WRONLY)
        path.unlink()
        os.write(descriptor, b"1\n")
        return descriptor
    try:
        current = begin()
        for number in range(1, 101):
            wait_for(lambda: len(observer.lives) == number, what="a start", interval=0.001)
            os.close(current)
            current = begin()
        os.close(current)
        wait_for(lambda: not observer.current(), what="the end")
        assert observer.overlaps == []
    finally:
        observer.stop()


def test_the_observer_waits_for_the_last_process_of_a_tree(folder):
    observer = Observer(folder)
    pipe = observer.add("ada")
    observer.start()
    try:
        subprocess.run([str(SOURCE / "provision" / "observed-scheduler"), pipe, "sh", "-c", "setsid sleep 101 & exit"], check=True)
        wait_for(lambda: observer.lives, what="a start")
        daemon = wait_for(lambda: next((pid for pid in processes.descendants(os.getpid())
                                        if processes.command_line(pid) == ["sleep", "101"]), None))
        assert observer.current()
        processes.send(daemon, signal.SIGKILL)
        wait_for(lambda: not observer.current(), what="the end of its daemon")
    finally:
        observer.stop()
