"""The lock file: one wrapper per run directory and group, a seat that survives restarts, and nothing left of a former life."""
import errno
import json
import os
import pathlib
import struct
import subprocess
import time

import processes
import pytest
from conftest import LIBC, become_nobody
from driver import Driver, wait_until_dead


@pytest.fixture
def take(driver_program, folder):
    """take(group, wait_ms, directory=...) starts a process that takes a seat and holds it until its input ends."""
    folder.chmod(0o1777)

    def start(group="g", wait_ms=0, directory=folder / "run", preexec=None):
        return Driver(driver_program, ["seat", str(directory), group, str(wait_ms)], preexec=preexec)
    return start


def release(driver):
    driver.process.stdin.close()
    driver.process.wait()


def content(path):
    return json.loads(pathlib.Path(path).read_text())


def test_seat_and_generation_survive_a_restart(take):
    first = take()
    seat = first.wait_for("seat")
    assert seat["generation"] == 0
    for generation in (1, 2):
        first.say("raise")
        assert first.wait_for("raised", generation)["generation"] == generation
    written = content(seat["path"])
    assert (written["seat"], written["generation"], written["pid"]) == (seat["seat"], 2, first.pid)
    first.kill()
    again = take().wait_for("seat")
    assert (again["seat"], again["generation"]) == (seat["seat"], 2)


def test_second_wrapper_is_told_who_is_first(take):
    first = take()
    first.wait_for("seat")
    began = time.monotonic()
    error = take(wait_ms=60000).wait_for("error")
    assert time.monotonic() - began < 20
    assert f"another heirflow wrapper (pid {first.pid}) of group g" in error["text"]
    assert "give each its own run_directory" in error["text"]


def test_other_groups_and_directories_do_not_meet(take, folder):
    seats = [take(*place).wait_for("seat")["seat"] for place in (("g",), ("h",), ("g", 0, folder / "other"))]
    assert len(set(seats)) == 3


@pytest.mark.parametrize("group", ["a/b", "..", ".hidden", "ärger", "x" * 128, "€" * 128, "per%cent"])
def test_any_group_name_becomes_a_file_of_the_directory(take, folder, group):
    path = pathlib.Path(take(group).wait_for("seat")["path"])
    assert path.parent == folder / "run" and path.exists()
    assert [entry.name for entry in (folder / "run").iterdir()] == [path.name]


def test_long_group_names_that_begin_alike_do_not_meet(take):
    assert take("x" * 199 + "a").wait_for("seat")["path"] != take("x" * 199 + "b").wait_for("seat")["path"]


@pytest.mark.parametrize("damage", [b"", b"{", b"garbage", b"\0" * 1024, b"[]", b'{"seat": 1}', b"x" * 100000])
def test_unreadable_content_draws_a_new_seat(take, damage):
    first = take()
    seat = first.wait_for("seat")
    release(first)
    pathlib.Path(seat["path"]).write_bytes(damage)
    again = take().wait_for("seat")
    assert again["seat"] != seat["seat"] and again["generation"] == 0
    assert content(seat["path"])["seat"] == again["seat"]


@pytest.mark.parametrize("key", ["boot_id", "device", "inode", "pid_namespace"])
def test_seat_of_another_place_is_not_taken_over(take, key):
    first = take()
    seat = first.wait_for("seat")
    release(first)
    written = content(seat["path"])
    written[key] = written[key] + 1 if isinstance(written[key], int) else "other"
    pathlib.Path(seat["path"]).write_text(json.dumps(written))
    assert take().wait_for("seat")["seat"] != seat["seat"]


def test_copied_file_is_another_seat(take, folder):
    first = take()
    seat = first.wait_for("seat")
    (folder / "copy").mkdir()
    subprocess.run(["cp", "-a", seat["path"], folder / "copy"], check=True)
    assert take(directory=folder / "copy").wait_for("seat")["seat"] != seat["seat"]


def test_removed_file_does_not_make_two_holders_of_one_seat(take):
    first = take()
    seat = first.wait_for("seat")
    os.unlink(seat["path"])
    assert take().wait_for("seat")["seat"] != seat["seat"]


def test_unusable_directories_are_named_with_the_remedy(take, folder):
    (folder / "file").write_text("")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for directory, preexec in (("/no/such/place", None), (folder / "file", None), (closed, become_nobody)):
        error = take(directory=directory, preexec=preexec).wait_for("error")
        assert str(directory) in error["text"] and "run_directory" in error["text"] or "run directory" in error["text"]


def test_keeper_of_a_dead_wrapper_is_waited_for(drive, containment, take, folder):
    """The lock is free only when the tree is dead."""
    driver = drive(containment, ["sleep", "1000"], group="g")
    pid = driver.wait_for("started")["pid"]
    keeper = driver.keeper()
    processes.send(keeper, 19)
    driver.kill()
    error = take(wait_ms=100).wait_for("error")
    assert "still locked" in error["text"] and error["retryable"]
    waiting = take(wait_ms=20000)
    processes.send(keeper, 18)
    waiting.wait_for("seat")
    assert not processes.alive(pid)


def test_sweep_takes_only_the_seats_own(take):
    first = take()
    seat = first.wait_for("seat")["seat"]
    release(first)
    clean = {"PATH": os.environ["PATH"]}

    def sleeper(**environment):
        return subprocess.Popen(["sleep", "1000"], env=clean | environment, start_new_session=True)
    own = [sleeper(HEIRFLOW_SEAT=seat), sleeper(A="1", HEIRFLOW_SEAT=seat, Z="2")]
    others = [sleeper(HEIRFLOW_SEAT=seat + "0"), sleeper(X_HEIRFLOW_SEAT=seat), sleeper(A="HEIRFLOW_SEAT=" + seat), sleeper()]
    take().wait_for("seat")
    wait_until_dead([process.pid for process in own], 1)
    assert all(process.poll() is None for process in others)
    for process in own + others:
        process.kill()
        process.wait()


@pytest.fixture
def dead_server(folder):
    """A file system of a server that dies over each request it takes: who waits for an answer does not die of SIGKILL."""
    class DeadServer:
        path = folder / "disk"

        def take_request(self):
            return struct.unpack_from("=IIQ", os.read(device, 1 << 17))

        def answer(self, number, answer=b"", error=0):
            os.write(device, struct.pack("=IiQ", 16 + len(answer), -error, number) + answer)
    DeadServer.path.mkdir()
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"NOT TESTED here, there is no FUSE: {error}")
    server = DeadServer()
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if LIBC.mount(b"dead", str(server.path).encode(), b"fuse", 0, options):
        os.close(device)
        pytest.skip("NOT TESTED here, file systems cannot be mounted")
    _, _, number = server.take_request()  # FUSE_INIT, which has to be answered
    server.answer(number, struct.pack("=IIII", 7, 31, 4096, 0) + bytes(48))
    yield server
    os.close(device)
    subprocess.run(["umount", "--lazy", str(server.path)], check=True)


def test_what_does_not_die_is_named(take, dead_server):
    """No second scheduler beside one that hangs in the kernel; once it is gone the next wrapper goes on."""
    first = take()
    seat = first.wait_for("seat")["seat"]
    release(first)
    stuck = subprocess.Popen(["stat", str(dead_server.path / "file")], env={"PATH": os.environ["PATH"], "HEIRFLOW_SEAT": seat},
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, lookup, number = dead_server.take_request()
    assert lookup == 1
    error = take().wait_for("error", timeout=60)
    assert f"(pid {stuck.pid}) does not end although killed" in error["text"] and error["retryable"]
    assert stuck.poll() is None
    dead_server.answer(number, error=errno.EIO)
    assert stuck.wait() < 0
    take().wait_for("seat")
