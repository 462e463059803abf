"""heirflow@GROUP under a real systemd: it is ready, watched, reloaded, restarted, stopped and killed."""
import json
import re
import signal

import processes
from conftest import GROUP, LEASE, UNIT
from processes import wait_for
from test_install import MANUAL, blocks

CRASH = 1.0  # usually 0.05, and 2 would be the lease; the machine is small and shared


def test_ready_before_the_database_is_there(world):
    ada = world.machine("ada")
    ada.wait_until_up()
    ada("systemctl", "start", UNIT)  # returns once it is ready, which is not a matter of databases
    assert ada.status() == "joining, latest term 0"
    world.start_postgres()
    world.until_runs("ada")
    wait_for(lambda: re.fullmatch(r"heir, term \d+, scheduler running", ada.status()), what=ada.status)


def test_restart_is_one_hand_over(world):
    ada, bert = world.pair()
    ada("systemctl", "restart", UNIT)
    world.until_runs("bert")
    world.until_standby(ada)
    assert [run.node for run in world.witness.runs()] == ["ada", "bert"]
    assert world.judge("systemctl restart") < CRASH
    assert "left" in ada.journal(UNIT)


def test_killed_wrapper_costs_milliseconds_and_comes_back(world):
    ada, bert = world.pair()
    pid = ada.main_pid()
    ada("sh", "-c", f"kill -KILL {pid}")
    world.until_runs("bert")
    world.until_standby(ada)
    assert ada.main_pid() != pid and ada.show(UNIT, "NRestarts") == "1"
    assert world.judge("wrapper killed") < CRASH


def test_watchdog_restarts_a_loop_that_hangs(world):
    ada, bert = world.pair(unit="WatchdogSec=6")
    pid = ada.main_pid()
    processes.send(ada.our_pid(pid), signal.SIGSTOP)
    world.until_runs("bert")  # the succession waits for no watchdog
    assert world.judge("loop frozen") < 3 * LEASE
    wait_for(lambda: ada.main_pid() not in (0, pid), 30, lambda: ada.journal(UNIT), 0.1)
    assert "Watchdog timeout" in ada.journal(UNIT)
    world.until_standby(ada)
    world.judge()


def test_a_loop_that_turns_is_left_alone(world):
    ada = world.machine("ada", unit="WatchdogSec=1")
    world.start_postgres()
    ada.wait_until_up()
    ada("systemctl", "start", UNIT)
    world.until_runs("ada")
    since = world.witness.latest().start
    wait_for(lambda: world.witness.latest().end - since > 3.5, 30, "three watchdog times")
    assert ada.show(UNIT, "NRestarts") == "0" and len(world.witness.runs()) == 1


def test_reload_is_answered(world):
    ada = world.machine("ada")
    world.start_postgres()
    ada.wait_until_up()
    ada("systemctl", "start", UNIT)
    world.until_runs("ada")
    pid = ada.main_pid()
    ada("systemctl", "reload", UNIT)
    wait_for(lambda: "reloaded changes=none" in ada.journal(UNIT), what=lambda: ada.journal(UNIT))
    wait_for(lambda: ada.show(UNIT, "ActiveState", "SubState") == ["active", "running"], what=lambda: ada.show(UNIT, "SubState"))
    assert ada.main_pid() == pid and len(world.witness.runs()) == 1


def test_stop_takes_the_scheduler_s_time_whatever_the_unit_says(world):
    stubborn = {"command": world.witness.command("--ignore-term"), "stop_timeout_ms": 4000}
    ada = world.machine("ada", scheduler=stubborn, unit="TimeoutStopSec=1")
    world.start_postgres()
    ada.wait_until_up()
    ada("systemctl", "start", UNIT)
    world.until_runs("ada")
    ada("systemctl", "stop", UNIT)
    assert ada.show(UNIT, "Result", "ExecMainStatus") == ["success", "0"], ada.journal(UNIT)
    assert "abdicated" in ada.journal(UNIT)
    wait_for(lambda: world.witness.running_on() is None, what="no witness")


def test_stop_leaves_no_process_and_a_start_finds_its_seat(world):
    ada, bert = world.pair()
    ada("systemctl", "stop", UNIT)
    world.until_runs("bert")
    assert ada.show(UNIT, "Result") == "success"
    assert not ada("sh", "-c", "cat /proc/[0-9]*/comm | grep -E 'heirflow|witness'", check=None).stdout
    seats = ada("sh", "-c", "cat /run/heirflow/*").stdout
    ada("systemctl", "start", UNIT)
    world.until_standby(ada)
    words = [re.search(r"[0-9a-f-]{36}", text)[0] for text in (seats, ada("sh", "-c", "cat /run/heirflow/*").stdout)]
    assert words[0] == words[1]
    world.judge()


def test_out_of_memory_is_for_heirflow_to_mend(world):
    """The kernel's killer takes the scheduler; the service goes on and starts it again."""
    greedy = ["sh", "-c", "test -e /run/greed || exec " + " ".join(world.witness.command()) +
              "; rm /run/greed; exec perl -e '$x = \"x\" x 1e9'"]
    ada = world.machine("ada", scheduler={"command": greedy})
    world.start_postgres()
    ada.wait_until_up()
    ada("systemctl", "start", UNIT)
    world.until_runs("ada")
    pid, first = ada.main_pid(), world.witness.latest()
    ada("touch", "/run/greed")
    with ada.short_of_memory(64):
        processes.send(ada.scheduler(), signal.SIGKILL)  # what runs next eats
        wait_for(lambda: ada.journal(UNIT).count("(SIGKILL)") >= 2, 30, lambda: ada.journal(UNIT))
    wait_for(lambda: world.witness.latest().start > first.end and world.witness.running_on() == "ada", 30, world.logs)
    assert ada.main_pid() == pid and ada.show(UNIT, "NRestarts") == "0"
    world.judge()


def test_reboot_of_the_heir_s_machine(world):
    ada, bert = world.pair()
    ada.reboot()
    world.until_runs("bert")
    world.until_standby(ada)
    assert [run.node for run in world.witness.runs()] == ["ada", "bert"]
    assert world.judge("systemctl reboot") < CRASH


def test_wrong_configuration_is_not_tried_again(world):
    ada = world.machine("ada", lease_ms="long")
    ada.wait_until_up()
    ada("systemctl", "start", UNIT, check=1)
    assert ada.show(UNIT, "ActiveState", "NRestarts", "ExecMainStatus") == ["failed", "0", "2"]
    assert f"/etc/heirflow/{GROUP}.json, line 2: \"lease_ms\" must be a whole number" in ada.journal(UNIT)


def test_a_user_that_comes_late_is_waited_for(world):
    """As one of a directory service that is not up yet when the machine boots."""
    ada = world.machine("ada", scheduler={"user": "late"})
    world.start_postgres()
    ada.wait_until_up()
    ada("systemctl", "start", UNIT, check=None)
    wait_for(lambda: int(ada.show(UNIT, "NRestarts")) >= 2, 30, lambda: ada.journal(UNIT), 0.1)
    assert "there is no user \"late\" on this node" in ada.journal(UNIT)
    ada("useradd", "late")
    world.until_runs("ada")


def test_sandbox(world):
    """Locked up, and still able to run a scheduler as another user, alone in its namespaces."""
    ada = world.machine("ada", scheduler={"user": "games", "environment": {"GREETING": "hello"}}, http={"listen": ""})
    world.start_postgres()
    ada.wait_until_up()
    ada("systemctl", "start", UNIT)
    world.until_runs("ada")
    report = ada("systemd-analyze", "security", "--no-pager", UNIT).stdout
    exposure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)[1])
    assert exposure <= 4.0, report
    status = dict(line.split(":", 1) for line in open(f"/proc/{ada.scheduler()}/status"))
    games = ada("id", "--user", "games").stdout.strip()
    assert status["Uid"].split() == [games] * 4
    assert len(status["NSpid"].split()) == len(open(f"/proc/{ada.our_pid(ada.main_pid())}/status").read().partition(
        "NSpid:")[2].splitlines()[0].split()) + 1
    environment = open(f"/proc/{ada.scheduler()}/environ").read()
    assert "GREETING=hello" in environment
    assert not re.search(r"(NOTIFY_SOCKET|WATCHDOG_|HEIRFLOW_POSTGRES|LISTEN_)", environment)
    assert status["CapEff"].strip() == status["CapPrm"].strip() == "0" * 16


def test_setuid_programs_work_once_they_are_allowed(world):
    """With the directives of docs/install.md."""
    row, = re.findall(r"(?m)^\| calls sudo .*", MANUAL.read_text())
    words = "passwd --status >$0/status; exec \"$@\""  # asks /etc/shadow for its caller's entry
    command = ["sh", "-c", words, "/var/tmp", *world.witness.command()]
    ada = world.machine("ada", scheduler={"user": "games", "command": command})
    world.start_postgres()
    ada.wait_until_up()
    ada("systemctl", "start", UNIT)
    world.until_runs("ada")
    assert ada("cat", "/var/tmp/status").stdout == "games P\n"  # all it knows without /etc/shadow
    ada.override("\n".join(word for word in re.findall(r"`(\w+=\S*)`", row)))
    ada("systemctl", "daemon-reload")
    ada("systemctl", "restart", UNIT)
    wait_for(lambda: ada("cat", "/var/tmp/status").stdout.startswith("games L "), 30, world.logs, 0.1)


def test_without_root(world):
    """With the drop-in of docs/install.md."""
    (_, drop_in), = (block for block in blocks("The unit") if "without root" in block[0])
    ada = world.machine("ada", unit=drop_in.removeprefix("[Service]\n"))
    bert = world.machine("bert")
    world.start_postgres()
    for member in (ada, bert):
        member.wait_until_up()
    ada("chown", "games:", f"/etc/heirflow/{GROUP}.json")
    ada("chmod", "400", f"/etc/heirflow/{GROUP}.json")
    ada("systemctl", "start", UNIT)
    world.until_runs("ada")
    bert("systemctl", "start", UNIT)
    world.until_standby(bert)
    games = ada("id", "--user", "games").stdout.strip()
    for pid in ada.processes():
        assert re.search(r"(?m)^Uid:(.*)", open(f"/proc/{pid}/status").read())[1].split() == [games] * 4
    ada("sh", "-c", f"kill -KILL {ada.main_pid()}")
    world.until_runs("bert")
    world.until_standby(ada)
    assert world.judge("wrapper without root killed") < CRASH


def test_two_groups_share_a_machine(world):
    ada = world.machine("ada")
    ada.configure(world, group="other", http={"listen": "127.0.0.1:8471"})
    world.start_postgres()
    ada.wait_until_up()
    ada("systemctl", "start", UNIT, "heirflow@other")
    for unit in (UNIT, "heirflow@other"):
        wait_for(lambda: "scheduler running" in ada.show(unit, "StatusText"), 30, world.logs)
    ada("systemctl", "stop", UNIT)
    assert "scheduler running" in ada.show("heirflow@other", "StatusText")
    done = ada("heirflow", "status", "--config", "/etc/heirflow/other.json", "--json")
    assert json.loads(done.stdout)["group"] == "other"
