"""scheduler.output to a file: rotated, on a disk that is full, with its writer killed; the scheduler never notices."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

import processes
from conftest import wait_for

# Numbers its lines, says beside the pipe how far it came, and ends if a write fails.
TALLY = """
import os, sys, time
number = 0
while True:
    number += 1
    os.write(1, b"line %d of the scheduler\\n" % number)
    if number % 50 == 0:
        open(sys.argv[1], "w").write(str(number))
        time.sleep(0.002)
"""


@pytest.fixture
def tally(folder):
    """A scheduler that numbers its lines; .number() is how far it has come."""
    class Tally:
        path = folder / "tally"
        command = ["/usr/bin/python3", "-c", TALLY, str(path)]

        def number(self):
            return int(self.path.read_text() or 0) if self.path.exists() else 0

        def wait_for(self, number, timeout=60):
            wait_for(lambda: self.number() >= number, timeout, lambda: f"line {number}; {self.number()} came")
    return Tally()


@pytest.fixture
def small_disk(folder):
    """A file system of 256 KiB."""
    path = folder / "disk"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0777", "none", str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("NOT TESTED here, file systems cannot be mounted: " + done.stderr.strip())
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk):
    with open(disk / "ballast", "wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(b"x" * 4096)
        except OSError:
            pass


def writer(wrapper):
    """Pid of the process that writes to the file."""
    return next((pid for pid in wrapper.tree() if processes.command_line(pid)[1:2] == ["output"]), None)


def numbers(*paths):
    """Of all lines, which must be whole."""
    found = []
    for path in paths:
        for line in path.read_text().splitlines():
            whole = re.fullmatch(r"line (\d+) of the scheduler", line)
            assert whole, f"torn: {line!r} in {path}"
            found.append(int(whole[1]))
    return found


def hangup(wrapper, count):
    os.kill(wrapper.pid, signal.SIGHUP)
    wrapper.wait_for_event("reloaded", count=count)


def test_owner_and_mode(wrapper, database, tally, folder):
    wrapper("ada", database=database, command=tally.command, scheduler={"output": str(folder / "out")})
    tally.wait_for(100)
    wait_for((folder / "out").exists, 30, "the file")
    status = (folder / "out").stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o640, os.geteuid())


def test_rotated_by_logrotate(wrapper, database, tally, folder):
    program = shutil.which("logrotate") or "/usr/sbin/logrotate"
    if not pathlib.Path(program).exists():
        pytest.skip("NOT TESTED here: logrotate is not installed")
    out = folder / "scheduler.log"
    ada = wrapper("ada", database=database, command=tally.command, scheduler={"output": str(out)})
    tally.wait_for(500)
    shipped = pathlib.Path(__file__).resolve().parents[2] / "config/logrotate/heirflow"
    rule = shipped.read_text()
    assert "/var/log/heirflow/*.log" in rule
    rule = rule.replace("/var/log/heirflow/*.log", str(out))
    rule, replaced = re.subn(r"(?<=postrotate\n).*?(?=\s+endscript)", f"        kill -HUP {ada.pid}", rule, flags=re.DOTALL)
    assert replaced == 1
    (folder / "rule").write_text(rule)
    (folder / "rule").chmod(0o644)
    for turn in range(1, 4):
        tally.wait_for(tally.number() + 1000)
        subprocess.run([program, "--force", "--state", str(folder / "state"), str(folder / "rule")], check=True)
        ada.wait_for_event("reloaded", count=turn)
        wait_for(lambda: out.exists() and out.stat().st_size, 30, "a new file")
    ada.terminate()
    assert ada.wait() == 0
    parts = [path for path in folder.glob("scheduler.log*")]
    for path in parts:
        if path.suffix == ".gz":
            subprocess.run(["gunzip", str(path)], check=True)
    parts = [path for path in folder.glob("scheduler.log*") if path.suffix != ".gz"]
    assert len(parts) == 4
    found = sorted(numbers(*parts))
    assert found == list(range(1, len(found) + 1)), "a line lost or doubled"
    assert len(found) >= tally.number(), "the last words"


def test_line_written_in_parts_goes_to_one_file(wrapper, database, folder):
    """The file changes in the middle of lines. For a line that is not finished within two seconds nothing is promised."""
    out, go, late = folder / "out", folder / "go", set()
    script = f"""
import os, time
for number in range(1, 9):
    os.write(1, b"line %d " % number)
    open({str(go)!r}, "w").write(str(number))
    while os.path.exists({str(go)!r}):
        time.sleep(0.001)
    os.write(1, b"of the scheduler\\n")
while True:
    time.sleep(60)
"""
    ada = wrapper("ada", database=database, command=["/usr/bin/python3", "-c", script], scheduler={"output": str(out)})
    for number in range(1, 9):
        wait_for(lambda: go.exists() and go.read_text() == str(number), 30, "half a line")
        wait_for(out.exists, 30, "the file")
        out.rename(folder / f"out.{number}")
        os.kill(ada.pid, signal.SIGHUP)
        wait_for(out.exists, 30, "a new file")
        if time.time() - go.stat().st_mtime > 1:
            late.add(number)
        go.unlink()
    wait_for(lambda: out.read_text().endswith("of the scheduler\n"), 30, "the last line")
    ada.terminate()
    assert ada.wait() == 0
    if not late:
        assert sorted(numbers(out, *folder.glob("out.*"))) == list(range(1, 9))


def test_full_disk(wrapper, database, tally, small_disk):
    out = small_disk / "out"
    ada = wrapper("ada", database=database, command=tally.command, scheduler={"output": str(out)})
    tally.wait_for(500)
    fill(small_disk)
    ada.wait_for_event("output-lost")
    assert "No space left on device" in ada.log()
    beat = database.value("select beat from throne")
    tally.wait_for(tally.number() + 10000)
    assert database.value("select beat from throne") > beat, "renewals go on"
    (small_disk / "ballast").unlink()
    ada.wait_for_event("output-restored")
    wait_for(lambda: re.search(r"are missing here.*\n(.*\n)*line \d+ of the scheduler\n", out.read_text(errors="replace")), 30,
             "the line about what is missing, and one after it")
    ada.terminate()
    assert ada.wait() == 0
    assert ada.events().count("output-lost") == ada.events().count("output-restored")
    text = out.read_text()
    missing = sum(map(int, re.findall(r"heirflow: (\d+) bytes of output are missing here: No space left", text)))
    told = sum(map(int, re.findall(r"output-restored .*bytes_lost=(\d+)", ada.log())))
    written = sum(len(line) + 1 for line in text.splitlines() if "missing here" not in line)
    total = sum(len(b"line %d of the scheduler\n" % number) for number in range(1, int(re.findall(r"line (\d+) of", text)[-1]) + 1))
    assert missing == told > 0
    assert total <= written + missing <= total + 2 * text.count("missing here"), "all bytes accounted for, but for line ends"
    assert database.value("select count(*) from terms") == 1


def test_log_of_the_wrapper_on_a_full_disk(wrapper, witness, database, small_disk):
    ada = wrapper("ada", database=database, command=witness.command(), start=False)
    ada.log_path = small_disk / "log"
    ada.start()
    wait_for(lambda: witness.running_on() == "ada", 30, "the scheduler")
    fill(small_disk)
    beat = database.value("select beat from throne")
    for _ in range(3):
        runs = len(witness.runs())
        processes.send(ada.scheduler(), signal.SIGKILL)
        wait_for(lambda: len(witness.runs()) > runs and ada.scheduler(), 30, "a restart")
    wait_for(lambda: database.value("select beat from throne") > beat + 3, 30, "renewals")
    (small_disk / "ballast").unlink()
    ada.terminate()
    assert ada.wait() == 0
    assert "left" in ada.events()


def test_file_that_cannot_be_opened_stops_no_scheduler(wrapper, database, tally, folder):
    out = folder / "missing" / "out"
    ada = wrapper("ada", database=database, command=tally.command, scheduler={"output": str(out)})
    ada.wait_for_event("output-lost")
    tally.wait_for(2000)
    out.parent.mkdir()
    ada.wait_for_event("output-restored")
    wait_for(lambda: out.exists() and re.match(r"\S+Z heirflow: \d+ bytes of output are missing here: No such file", out.read_text()),
             30, "what is missing, and why")


def test_writer_killed(wrapper, database, tally, folder):
    out = folder / "out"
    ada = wrapper("ada", database=database, command=tally.command, scheduler={"output": str(out)})
    for _ in range(3):
        tally.wait_for(tally.number() + 500)
        killed = wait_for(lambda: writer(ada), 30, "the writer")
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: writer(ada) not in (None, killed), 30, "another writer")
        size = out.stat().st_size
        wait_for(lambda: out.stat().st_size > size, 30, "its lines")
    assert database.value("select count(*) from terms") == 1
    assert "scheduler-exited" not in ada.events()


def test_writer_ignores_signals_and_ends_with_the_last_word(wrapper, database, folder):
    out = folder / "out"
    ada = wrapper("ada", database=database, scheduler={"output": str(out)},
                  command=["sh", "-c", "trap 'echo the last word; exit 0' TERM; echo begun; while :; do sleep 0.05; done"])
    wait_for(lambda: out.exists() and out.read_text() == "begun\n", 30, "the first word")
    pid = writer(ada)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    hangup(ada, 1)
    assert writer(ada) == pid
    ada.terminate()
    assert ada.wait() == 0
    assert out.read_text() == "begun\nthe last word\n"
    assert not processes.alive(pid)


@pytest.mark.parametrize("containment", ["", "subreaper"])
def test_writer_outlives_a_killed_wrapper_just_long_enough(wrapper, database, tally, folder, containment):
    out = folder / "out"
    ada = wrapper("ada", database=database, command=tally.command, scheduler={"output": str(out)},
                  environment={"HEIRFLOW_CONTAINMENT": containment})
    tally.wait_for(1000)
    pid = writer(ada)
    processes.send(pid, signal.SIGSTOP)  # its pipe holds what comes now
    tally.wait_for(tally.number() + 500)
    ada.kill()
    ada.start()
    ada.wait_for_event("scheduler-started", count=2)  # neither lock nor seat are the old writer's
    assert processes.alive(pid), "it is no part of the tree that was swept"
    processes.send(pid, signal.SIGCONT)
    wait_for(lambda: not processes.alive(pid), 30, "its end")
    text = out.read_text()
    first = numbers(out)
    assert first[:1] == [1] and text.endswith("\n")


@pytest.mark.parametrize("containment", ["", "subreaper"])
def test_keeper_killed(wrapper, database, tally, folder, containment):
    out = folder / "out"
    ada = wrapper("ada", database=database, command=tally.command, scheduler={"output": str(out)},
                  environment={"HEIRFLOW_CONTAINMENT": containment})
    tally.wait_for(500)
    pid = writer(ada)
    os.kill(ada.keeper(), signal.SIGKILL)
    ada.wait_for_event("scheduler-started", count=2)
    assert writer(ada) == pid
    numbers(out)


def test_writer_holds_nothing_of_the_wrapper(wrapper, database, tally, folder):
    ada = wrapper("ada", database=database, command=tally.command, scheduler={"output": str(folder / "out")},
                  environment={"HEIRFLOW_HTTP_TOKEN": "a-secret-of-24-characters"})
    tally.wait_for(100)
    pid = writer(ada)
    held = sorted(os.listdir(f"/proc/{pid}/fd"), key=int)
    targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in held]
    assert len(held) == 5 and targets[0].startswith("pipe:") and targets[3].startswith("socket:"), targets
    assert targets[4] == str(folder / "out")
    assert pathlib.Path(f"/proc/{pid}/environ").read_bytes() == b""


def test_path_of_the_next_term(wrapper, database, tally, folder):
    old, new = folder / "old", folder / "new"
    ada = wrapper("ada", database=database, command=tally.command, scheduler={"output": str(old)})
    tally.wait_for(500)
    ada.config_path.write_text(ada.config_path.read_text().replace(str(old), str(new)))
    hangup(ada, 1)
    assert "at_next_term=scheduler.output" in ada.log()
    assert not new.exists()
    os.kill(ada.keeper(), signal.SIGKILL)
    ada.wait_for_event("scheduler-started", count=2)
    wait_for(lambda: new.exists() and new.stat().st_size, 30, "the new file")


def test_inherited_output_is_not_touched(wrapper, database):
    ada = wrapper("ada", database=database, command=["sh", "-c", "echo straight; exec sleep infinity"])
    wait_for(lambda: "\nstraight\n" in ada.log(), 30, "the line in the wrapper's own output")
    assert writer(ada) is None
