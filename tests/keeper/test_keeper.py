"""The keeper against schedulers of every kind, in every kind of containment: nothing of a tree survives its end."""
import json
import os
import resource
import signal
import subprocess
import sys
import time

import processes
import pytest
from conftest import become_nobody, become_nobody_with_masked_proc, lose_privileges, missing
from driver import leaves, now_ms, read, wait_until_dead
from processes import wait_for

PYTHON = "/usr/bin/python3"
LEASE_MS = 1000
LONG_MS = 600000  # for what must happen long before the lease ends

IGNORES_SIGTERM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: open(sys.argv[1], "a").write(f"term {time.clock_gettime(time.CLOCK_BOOTTIME)}\\n"))
open(sys.argv[1], "a").write("ready\\n")
while True:
    time.sleep(1)
"""
# a child, and a daemon in a session of its own whose parent is gone
FAMILY = """
import os, sys, time
if os.fork() == 0:
    time.sleep(1000)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "a").write("ready\\n")
        time.sleep(1000)
    os._exit(0)
time.sleep(1000)
"""
# the same, after wiping what /proc shows as its environment and command line
IN_DISGUISE = """
import ctypes
fields = open("/proc/self/stat").read().rpartition(")")[2].split()
for start, end in ((45, 46), (47, 48)):
    start, end = int(fields[start]), int(fields[end])
    ctypes.memset(start, 0, end - start)
""" + FAMILY
# about 200 processes of a second each, and five lines of daemons that each live for 20 ms and leave an heir
BOMB = """
import os, sys, time
def daemons():
    os.setsid()
    while True:
        time.sleep(0.02)
        if os.fork():
            os._exit(0)
for _ in range(5):
    if os.fork() == 0:
        daemons()
open(sys.argv[1], "a").write("ready\\n")
while True:
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)
    time.sleep(0.004)
    while os.waitpid(-1, os.WNOHANG)[0]:
        pass
"""


@pytest.fixture
def family(drive, containment, folder):
    """A started driver whose scheduler has a child and a double-forked daemon; .pids are the three of them."""
    def start(program=FAMILY, **spec):
        mark = folder / "mark"
        driver = drive(containment, [PYTHON, "-c", program, mark], **spec)
        driver.wait_for("started")
        wait_for(lambda: "ready" in read(mark), 10, "the daemon")
        driver.pids = driver.tree()
        assert len(driver.pids) >= 3
        return driver
    return start


def leaf_of(driver):
    return leaves(driver.wait_for("seat")["seat"])


def test_stop_is_graceful(drive, containment, folder):
    mark = folder / "mark"
    driver = drive(containment, ["sh", "-c", f"trap 'echo bye >{mark}; exit 3' TERM; touch {mark}; while :; do sleep 0.01; done"])
    driver.wait_for("started")
    wait_for(mark.exists, 10, "the trap")
    driver.say("stop 5000")
    assert os.waitstatus_to_exitcode(driver.wait_for("tree_dead")["status"]) == 3
    driver.wait_for("gone")
    assert read(mark) == "bye\n"
    assert leaf_of(driver) == []


def test_stop_reaches_a_stopped_scheduler(drive, containment):
    driver = drive(containment, ["sh", "-c", "kill -STOP $$; sleep 100"])
    pid = driver.wait_for("started")["pid"]
    wait_for(lambda: " T " in read(f"/proc/{pid}/stat"), 10, "the stop")
    driver.say("stop 20000")
    assert driver.wait_for("tree_dead")["status"] == signal.SIGTERM


def test_stop_of_a_scheduler_that_ignores_sigterm(drive, containment, folder):
    driver = drive(containment, [PYTHON, "-c", IGNORES_SIGTERM, folder / "mark"])
    driver.wait_for("started")
    wait_for(lambda: "ready" in read(folder / "mark"), 10, "the handler")
    asked_ms = now_ms()
    driver.say("stop 400")
    dead = driver.wait_for("tree_dead")
    assert dead["status"] == signal.SIGKILL
    assert 390 <= dead["at_ms"] - asked_ms < 1500


def test_renewals_go_on_during_a_graceful_stop(drive, containment, folder):
    """It may take longer than a lease; one that forgives a driver that does not get to run for two seconds."""
    driver = drive(containment, [PYTHON, "-c", IGNORES_SIGTERM, folder / "mark"], lease_ms=3 * LEASE_MS)
    driver.wait_for("started")
    wait_for(lambda: "ready" in read(folder / "mark"), 30, "the handler")
    asked_ms = now_ms()
    driver.say("stop 3500")
    assert driver.wait_for("tree_dead")["at_ms"] - asked_ms >= 3450


def test_fencing_by_the_keepers_own_clock(drive, containment, folder):
    """SIGTERM and SIGKILL come at the times of the timetable, and all is dead before the lease ends."""
    driver = drive(containment, [PYTHON, "-c", IGNORES_SIGTERM, folder / "mark"], lease_ms=4000, fence_grace_ms=1000, renew=0,
                   deadline_ms=3200)
    deadline_ms = driver.wait_for("started")["deadline_ms"]
    dead = driver.wait_for("tree_dead")
    term_ms = float(read(folder / "mark").split()[-1]) * 1000
    assert deadline_ms - 400 - 1000 - 1 <= term_ms < deadline_ms - 400 - 200
    assert deadline_ms - 400 - 200 <= dead["at_ms"] < deadline_ms
    assert dead["status"] == signal.SIGKILL


def test_frozen_wrapper(family, containment):
    driver = family(lease_ms=3000)
    driver.freeze()
    wait_until_dead(driver.pids, 5)
    ended_ms = now_ms()
    driver.thaw()
    driver.wait_for("tree_dead")
    last_ms = max(event["deadline_ms"] for event in driver.seen("echo"))
    assert ended_ms < last_ms


def test_killed_wrapper(family):
    driver = family(lease_ms=LONG_MS)
    driver.kill()
    wait_until_dead(driver.pids)


def test_killed_wrapper_of_a_scheduler_in_disguise(family):
    driver = family(IN_DISGUISE, lease_ms=LONG_MS)
    driver.kill()
    wait_until_dead(driver.pids)


def test_killed_wrapper_while_stopping(drive, containment, folder):
    driver = drive(containment, [PYTHON, "-c", IGNORES_SIGTERM, folder / "mark"], lease_ms=LONG_MS)
    pid = driver.wait_for("started")["pid"]
    wait_for(lambda: "ready" in read(folder / "mark"), 10, "the handler")
    driver.say("stop 5000000")
    wait_for(lambda: "term" in read(folder / "mark"), 10, "SIGTERM")
    driver.kill()
    wait_until_dead([pid])


def test_frozen_keeper_is_killed(family):
    driver = family()
    keeper = driver.keeper()
    processes.send(keeper, signal.SIGSTOP)
    driver.say("restart")
    driver.say("kill")
    driver.wait_for("gone")
    assert not [pid for pid in [keeper, *driver.pids] if processes.alive(pid)]


def test_keeper_is_killed_by_somebody_else(family):
    driver = family()
    processes.send(driver.keeper(), signal.SIGKILL)
    driver.wait_for("gone")
    assert not [pid for pid in driver.pids if processes.alive(pid)]
    assert leaf_of(driver) == []


def test_thawed_keeper_keeps_its_old_timetable(family, containment):
    """What was queued while it was frozen does not come before its own deadline."""
    driver = family(lease_ms=LEASE_MS)
    driver.say("silent")
    keeper = driver.keeper()
    wait_for(lambda: len(driver.seen("echo")) >= 1, 10, "an echo")
    processes.send(keeper, signal.SIGSTOP)
    wait_for(lambda: now_ms() > max(event["deadline_ms"] for event in driver.seen("echo")) + 200, 5, "the deadline to pass")
    driver.say(f"deadline {LONG_MS}")
    driver.say("restart")
    processes.send(keeper, signal.SIGCONT)
    driver.wait_for("tree_dead")
    assert not [pid for pid in driver.pids if processes.alive(pid)]
    assert len(driver.seen("started")) == 1


def kill_both(driver):
    keeper = driver.keeper()
    driver.freeze()
    processes.send(keeper, signal.SIGKILL)
    driver.kill()


def test_wrapper_and_keeper_are_killed(family, containment, drive):
    """With a namespace the kernel sees to it, else the next wrapper of the seat, before it does anything else."""
    driver = family()
    kill_both(driver)
    if "namespace" in containment:
        wait_until_dead(driver.pids)
    successor = drive(containment, ["sleep", "100"])
    assert successor.wait_for("seat")["seat"] == driver.wait_for("seat")["seat"]
    assert not [pid for pid in driver.pids if processes.alive(pid)]
    successor.wait_for("started")


@pytest.mark.parametrize("containment", ["namespace", "user namespace", "cgroup"], indirect=True)
def test_wrapper_and_keeper_of_a_scheduler_in_disguise_are_killed(family, containment, drive):
    driver = family(IN_DISGUISE)
    kill_both(driver)
    drive(containment, ["sleep", "100"]).wait_for("started")
    assert not [pid for pid in driver.pids if processes.alive(pid)]


def test_main_process_dies_with_living_children(family):
    driver = family()
    processes.send(driver.wait_for("started")["pid"], signal.SIGKILL)
    exited = driver.wait_for("exited")
    assert exited["status"] == signal.SIGKILL
    assert not [pid for pid in driver.pids if processes.alive(pid)]
    driver.say("restart")
    assert driver.wait_for("started", 2)["pid"] not in driver.pids


def test_a_dead_child_is_not_the_schedulers_end(family):
    driver = family()
    processes.send(driver.pids[-1], signal.SIGKILL)
    wait_until_dead([driver.pids[-1]])
    driver.wait_for("echo", len(driver.seen("echo")) + 1)
    assert not driver.seen("exited")


def test_fork_bomb(drive, containment, folder):
    driver = drive(containment, [PYTHON, "-c", BOMB, folder / "mark"])
    driver.wait_for("started")
    keeper = driver.keeper()
    wait_for(lambda: len(processes.descendants(keeper)) > 60, 20, "60 processes")
    driver.say("stop 0")
    dead = driver.wait_for("tree_dead")
    driver.wait_for("gone")
    assert dead["status"] in (signal.SIGKILL, signal.SIGTERM)
    assert not [pid for pid in processes.parents() if processes.command_line(pid)[-1:] == [str(folder / "mark")]]


@pytest.mark.parametrize("way", ["exit 7", "exit 0", "kill -9 $$", "kill -15 $$"])
def test_status_is_told_as_it_is(drive, containment, way):
    driver = drive(containment, ["sh", "-c", way])
    status = driver.wait_for("exited")["status"]
    word, number = way.split()[:2]
    if word == "exit":
        assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == int(number)
    else:
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == -int(number)


def test_restart_and_wrapper_killed_while_waiting(drive, containment, folder):
    driver = drive(containment, ["sh", "-c", f"echo run >>{folder}/mark"])
    driver.wait_for("exited")
    driver.say("restart")
    driver.wait_for("exited", 2)
    assert read(folder / "mark") == "run\nrun\n"
    driver.kill()
    drive(containment, ["sleep", "1000"]).wait_for("started")  # so the lock is free


def test_waiting_ends_with_the_lease(drive, containment):
    driver = drive(containment, ["true"], lease_ms=LEASE_MS, renew=0)
    deadline_ms = driver.wait_for("exited")["deadline_ms"]
    assert driver.wait_for("tree_dead")["at_ms"] >= deadline_ms
    driver.wait_for("gone")


def test_no_restart_late_in_the_lease(drive, containment):
    driver = drive(containment, ["true"], lease_ms=LEASE_MS, renew=0)
    deadline_ms = driver.wait_for("exited")["deadline_ms"]
    wait_for(lambda: now_ms() > deadline_ms - 600, 5, "SIGTERM time")
    driver.say("restart")
    assert "too little of the lease" in driver.wait_for("start_failed")["text"]
    assert len(driver.seen("started")) == 1


def test_deadlines(drive, containment):
    driver = drive(containment, ["sleep", "100"], renew=0)
    first_ms = driver.wait_for("started")["deadline_ms"]
    for number, (offer, taken) in enumerate([("deadline 20000", True), ("deadline 10000", False), ("deadline -5", False)]):
        before_ms = driver.seen("echo")[-1]["deadline_ms"] if driver.seen("echo") else first_ms
        driver.say(offer)
        echoed_ms = driver.wait_for("echo", number + 1)["deadline_ms"]
        assert (echoed_ms > before_ms) if taken else (echoed_ms == before_ms)


def test_no_deadline_is_taken_once_fencing_has_begun(drive, containment, folder):
    driver = drive(containment, [PYTHON, "-c", IGNORES_SIGTERM, folder / "mark"], lease_ms=LEASE_MS, renew=0, deadline_ms=2000)
    deadline_ms = driver.wait_for("started")["deadline_ms"]
    wait_for(lambda: "term" in read(folder / "mark"), 10, "SIGTERM")
    driver.say(f"deadline {LONG_MS}")
    assert driver.wait_for("echo")["deadline_ms"] == deadline_ms
    driver.wait_for("tree_dead")


@pytest.mark.parametrize("output", ["inherit", "file"])
def test_output_flood(drive, containment, folder, output):
    """300 MB as fast as they come: all of it arrives, none of it passes through the keeper."""
    path = folder / "output" if output == "file" else "inherit"
    script = "dd if=/dev/zero bs=1M count=300 status=none; exec sleep 1000"
    if output == "inherit":
        script = "exec >/dev/null; " + script
    driver = drive(containment, ["sh", "-c", script], output=str(path), lease_ms=LEASE_MS)
    pid = driver.wait_for("started")["pid"]
    wait_for(lambda: processes.command_line(pid)[0] == "sleep", 60, "the end of the flood")
    if output == "file":
        wait_for(lambda: path.stat().st_size >= 300 << 20, 60, "the whole of the flood")
        path.unlink()
    fields = read(f"/proc/{driver.keeper()}/stat").rpartition(")")[2].split()
    assert (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") < 0.3
    driver.say("stop 1000")
    driver.wait_for("tree_dead")


def test_output_is_appended(drive, containment, folder):
    path = folder / "output"
    driver = drive(containment, ["sh", "-c", "echo out; echo err >&2; read nothing || echo end"], output=str(path))
    driver.wait_for("exited")
    driver.say("restart")
    driver.wait_for("exited", 2)
    wait_for(lambda: read(path) == "out\nerr\nend\n" * 2, 30, "the output")
    assert path.stat().st_mode & 0o777 == 0o640


FAILURES = {
    "not in PATH": (dict(command=["no-such-command-at-all"]), "nowhere in PATH"),
    "no such file": (dict(command=["/no/such/command"]), "does not exist"),
    "not executable": (dict(command=["{folder}/plain"]), "not executable"),
    "no program": (dict(command=["{folder}/no-program"]), "no program this system can run"),
    "no interpreter": (dict(command=["{folder}/no-interpreter"]), "interpreter"),
    "not executable in PATH": (dict(command=["plain"], environment={"PATH": "{folder}:/usr/bin"}), "not executable"),
    "being written": (dict(command=["{folder}/busy"]), "Text file busy"),
    "a directory": (dict(command=["{folder}"]), "not executable"),
    "directory missing": (dict(command=["true"], directory="/no/such/place"), "scheduler.directory"),
    "user unknown": (dict(command=["true"], user="no-such-user"), "scheduler.user \"no-such-user\" is unknown"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_start_failures_say_what_where_and_what_to_do(drive, containment, folder, failure):
    for name, mode, text in (("plain", 0o644, "#!/bin/sh\n"), ("no-program", 0o755, "echo hello\n"),
                             ("no-interpreter", 0o755, "#!/no/such/interpreter\n"), ("busy", 0o755, "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(mode)
    spec, expected = FAILURES[failure]
    spec = json.loads(json.dumps(spec).replace("{folder}", str(folder)))
    with open(folder / "busy", "a"):
        driver = drive(containment, **spec)
        event = driver.wait_for("start_failed")
    assert expected in event["text"]
    assert ";" in event["text"]  # the remedy
    driver.say("stop 0")
    driver.wait_for("tree_dead")
    driver.wait_for("gone")
    assert not driver.seen("started")


def test_start_succeeds_once_the_fault_is_mended(drive, containment, folder):
    program = folder / "late"
    driver = drive(containment, [program])
    driver.wait_for("start_failed")
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    driver.say("restart")
    driver.wait_for("started")


SECRETS = {"HEIRFLOW_POSTGRES": "password=secret", "HEIRFLOW_RABBITMQ_URL": "amqp://news:secret@broker",
           "NOTIFY_SOCKET": "/run/secret", "WATCHDOG_USEC": "1", "LISTEN_FDS": "1", "KEPT": "yes", "PGHOST": "db1"}


def environment_of(pid):
    return dict(entry.split("=", 1) for entry in read(f"/proc/{pid}/environ").split("\0") if "=" in entry)


def test_environment_of_the_scheduler(drive, containment):
    driver = drive(containment, ["sleep", "1000"], environ=SECRETS, environment={"MINE": "a=b", "KEPT": "changed"}, group="g",
                   node="n", term=42)
    environment = environment_of(driver.wait_for("started")["pid"])
    ours = {key: value for key, value in environment.items() if key.startswith("HEIRFLOW_")}
    assert ours == {"HEIRFLOW_GROUP": "g", "HEIRFLOW_NODE": "n", "HEIRFLOW_TERM": "42",
                    "HEIRFLOW_SEAT": driver.seen("seat")[0]["seat"]}
    assert not [value for value in environment.values() if "secret" in value]
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS"} & environment.keys()
    assert environment["MINE"] == "a=b" and environment["KEPT"] == "changed" and environment["PGHOST"] == "db1"
    assert environment["SPT_NOENV"] == "1" and environment["PGAPPNAME"] == "heirflow/g/42"


def test_application_name_is_the_operators(drive, containment):
    driver = drive(containment, ["sleep", "1000"], environ={"PGAPPNAME": "mine"})
    assert environment_of(driver.wait_for("started")["pid"])["PGAPPNAME"] == "mine"


def test_path_is_the_configured_one(drive, containment, folder):
    program = folder / "only-here"
    program.write_text("#!/bin/sh\nexit 5\n")
    program.chmod(0o755)
    driver = drive(containment, ["only-here"], environment={"PATH": f"/nowhere:{folder}"})
    assert os.waitstatus_to_exitcode(driver.wait_for("exited")["status"]) == 5


def test_what_the_scheduler_inherits(drive, containment):
    """No descriptor but its three, no blocked or ignored signal, a session of its own."""
    driver = drive(containment, ["sleep", "1000"], environ=SECRETS)
    pid = driver.wait_for("started")["pid"]
    # the dynamic loader still opens libraries
    wait_for(lambda: sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"], what=lambda: os.listdir(f"/proc/{pid}/fd"))
    assert os.path.samefile(f"/proc/{pid}/fd/0", "/dev/null")
    status = dict(line.split(":\t", 1) for line in read(f"/proc/{pid}/status").splitlines())
    assert {int(status[key], 16) for key in ("SigBlk", "SigIgn", "SigCgt")} == {0}
    assert os.getsid(pid) == pid


@pytest.mark.parametrize("containment", ["user namespace"], indirect=True)
def test_what_the_scheduler_sees_of_processes(drive, containment, folder):
    """With a namespace /proc is its own, and even as the same user it cannot read the keeper's environment."""
    script = f"ls /proc | grep -c '^[0-9]' >{folder}/count; cat /proc/1/environ >{folder}/environ 2>&1; sleep 1000"
    driver = drive(containment, ["sh", "-c", script], environ=SECRETS)
    driver.wait_for("started")
    wait_for(lambda: "ermission" in read(folder / "environ"), 10, lambda: read(folder / "environ"))
    assert int(read(folder / "count")) <= 5


def test_user(drive, folder):
    driver = drive("namespace", ["sleep", "1000"], user="postgres", directory="/", environment={"EXTRA": "1"})
    pid = driver.wait_for("started")["pid"]
    identity = subprocess.run(["id", "-u", "postgres"], capture_output=True, text=True, check=True).stdout.strip()
    groups = subprocess.run(["id", "-G", "postgres"], capture_output=True, text=True, check=True).stdout.split()
    status = dict(line.split(":\t", 1) for line in read(f"/proc/{pid}/status").splitlines())
    assert set(status["Uid"].split()) == {identity}
    assert set(status["Groups"].split()) == set(groups)
    environment = environment_of(pid)
    assert environment["USER"] == environment["LOGNAME"] == "postgres"
    assert environment["HOME"] == os.path.expanduser("~postgres")


@pytest.mark.parametrize("containment", ["cgroup", "subreaper"], indirect=True)
def test_scheduler_of_another_user_dies_with_its_keeper(drive, containment):
    """The change of user clears the parent-death signal; it is set after that."""
    driver = drive(containment, ["sleep", "1000"], user="postgres")
    pid = driver.wait_for("started")["pid"]
    kill_both(driver)
    wait_until_dead([pid])


def test_user_needs_rights(drive):
    driver = drive("user namespace", ["true"], user="postgres")
    assert "run the wrapper as root" in driver.wait_for("start_failed")["text"]


def test_keeper_ignores_signals(drive, containment):
    driver = drive(containment, ["sleep", "1000"])
    driver.wait_for("started")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1):
        processes.send(driver.keeper(), number)
    driver.wait_for("echo", len(driver.seen("echo")) + 2)
    assert not driver.seen("gone") and not driver.seen("exited")


def test_keeper_is_small_and_idle(drive, containment):
    driver = drive(containment, ["sleep", "1000"])
    driver.wait_for("started")
    rollup = dict(line.split(":", 1) for line in read(f"/proc/{driver.keeper()}/smaps_rollup").splitlines()[1:])
    assert int(rollup["Private_Dirty"].split()[0]) < 1800
    assert int(rollup["Pss"].split()[0]) < 3500  # 1.5 to 2.7 MB, by how many others share the libraries
    keeper, ticks = driver.keeper(), []
    for _ in range(2):
        fields = read(f"/proc/{keeper}/stat").rpartition(")")[2].split()
        ticks.append(int(fields[11]) + int(fields[12]))
        driver.wait_for("echo", len(driver.seen("echo")) + 2)
    assert ticks[1] - ticks[0] <= 1


def test_containment_is_tried(driver_program, containment):
    environment = {"HEIRFLOW_CONTAINMENT": containment} if containment in ("cgroup", "subreaper") else {}
    user = "nobody" if containment == "user namespace" else None
    told = subprocess.run([driver_program, "containment"], env=environment, user=user, group=None, capture_output=True, text=True,
                          check=True)
    assert told.stdout.strip() == containment


# Which containers do: see conftest.
POOR = {"no privileges": lose_privileges, "masked /proc": become_nobody_with_masked_proc}


@pytest.mark.parametrize("poor", POOR)
def test_where_no_namespace_can_be_had(drive, driver_program, folder, poor):
    """What is tried next is what is told, and nothing of the tree survives the wrapper there either."""
    why = missing("user namespace" if poor == "masked /proc" else "cgroup")
    if why:
        pytest.skip(why)
    told = subprocess.run([driver_program, "containment"], preexec_fn=POOR[poor], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == {"no privileges": "cgroup", "masked /proc": "subreaper"}[poor]
    driver = drive("", [PYTHON, "-c", FAMILY, folder / "mark"], prepare=POOR[poor], lease_ms=LONG_MS)
    driver.wait_for("started")
    wait_for(lambda: "ready" in read(folder / "mark"), 10, "the daemon")
    pids = driver.tree()
    assert len(pids) >= 3
    driver.kill()
    wait_until_dead(pids)


@pytest.mark.parametrize("killed", ["wrapper", "keeper"])
def test_where_the_kernel_keeps_no_list_of_children(drive, build, folder, killed):
    preloaded = {"LD_PRELOAD": str(build / "tests" / "keeper" / "no_children.so")}
    driver = drive("subreaper", [PYTHON, "-c", FAMILY, folder / "mark"], environ=preloaded, lease_ms=LONG_MS)
    driver.wait_for("started")
    wait_for(lambda: "ready" in read(folder / "mark"), 10, "the daemon")
    pids = driver.tree()
    assert len(pids) >= 3
    processes.send(driver.keeper() if killed == "keeper" else driver.pid, signal.SIGKILL)
    wait_until_dead(pids)


def test_few_descriptors_at_the_start(drive):
    """However many are too few, it says so."""
    for most in range(11, 64):  # the driver itself needs 10
        driver = drive("namespace", ["sleep", "1000"], prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)))
        wait_for(lambda: {"error", "start_failed", "started"} & {event["event"] for event in driver.events}, 30, "its word")
        if driver.seen("started"):
            break
        assert "Too many open files" in driver.events[-1]["text"]
        driver.kill()
    assert most > 11 and driver.seen("started")


@pytest.mark.parametrize("limit, containment, says", [("nofile", "namespace", "cannot make a pipe: Too many open files"),
                                                      ("nproc", "user namespace", "cannot fork: Resource temporarily")],
                         indirect=["containment"])
def test_a_limit_that_is_too_low_for_a_restart(drive, containment, limit, says):
    def allow(most):
        subprocess.run(["prlimit", "--pid", str(driver.keeper()), f"--{limit}={most}:"], check=True,
                       preexec_fn=become_nobody if containment == "user namespace" else None)
    driver = drive(containment, ["true"], lease_ms=LONG_MS)
    driver.wait_for("exited")
    allow(1)
    driver.say("restart")
    assert says in driver.wait_for("start_failed")["text"]
    allow(512)
    driver.say("restart")
    driver.wait_for("exited", 2)


def test_user_that_it_is_already(drive):
    driver = drive("user namespace", ["sleep", "1000"], user="nobody", directory="/")
    assert environment_of(driver.wait_for("started")["pid"])["USER"] == "nobody"


def test_keeper_is_not_for_hands(driver_program):
    told = subprocess.run([driver_program, "keeper"], capture_output=True, text=True)
    assert told.returncode == 2 and "heirflow run" in told.stderr
