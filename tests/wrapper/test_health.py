"""Schedulers that hang: seen by the health command, restarted in place, then the next node's turn."""
import json
import os
import pathlib
import signal
import subprocess
import time

import processes
import pytest
from conftest import wait_for

# The hanging scheduler, as far as a probe can tell: it fails on the nodes that the test has marked.
PROBE = """
mark() { [ -e "$0/$1" ]; }
echo "$HEIRFLOW_NODE $HEIRFLOW_TERM $$" >>"$0/asked"
[ -e "$0/lock" ] && echo "$$" >>"$0/twice"
: >"$0/lock"
sleep 0.02
rm "$0/lock"
if mark "hangs-$HEIRFLOW_NODE"; then
    echo "the first word" >&2
    echo "no heartbeat of $HEIRFLOW_NODE" >&2
    exit 3
fi
"""
SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
QUICK = {"interval_ms": 30, "timeout_ms": 5000, "failures": 2, "start_period_ms": 0}


@pytest.fixture
def probe(folder):
    """A folder where the probe says what it was asked; probe.hang(node) makes it fail there."""
    class Probe:
        path = folder / "probe"
        command = ["sh", "-c", PROBE, str(path)]

        def hang(self, node):
            (self.path / f"hangs-{node}").touch()

        def recover(self, node):
            (self.path / f"hangs-{node}").unlink()

        def asked(self):
            asked = self.path / "asked"
            return [line.split() for line in asked.read_text().splitlines()] if asked.exists() else []
    Probe.path.mkdir()
    return Probe()


@pytest.fixture
def member(wrapper, witness, database):
    """member("ada", health={...}) starts a wrapper with that health block and waits until it stands in the line."""
    def start(node, health, options=(), **scheduler):
        made = wrapper(node, database=database, command=witness.command(*options),
                       scheduler={"health": QUICK | health, **scheduler})
        made.wait_for_event("standby")
        return made
    return start


def wait_until_runs(witness, node, timeout=20):
    wait_for(lambda: witness.running_on() == node, timeout, f"the scheduler running on {node}")


def news(database, event):
    return database.query("select node, reason from news where event = %s order by sequence", event)


def probes(member, program):
    return [pid for pid in member.tree() if program in processes.command_line(pid)]


def test_a_hung_scheduler_restarts_in_place_then_the_next_node_runs_it(member, witness, probe, database):
    ada = member("ada", {"command": probe.command}, restart={"limit": 2, "backoff_ms": 10})
    member("bert", {"command": probe.command})
    wait_until_runs(witness, "ada")
    wait_for(lambda: len(probe.asked()) >= 3, 20, "healthy answers")
    assert witness.nodes() == ["ada"] and "health-failed" not in ada.events()
    probe.hang("ada")
    wait_until_runs(witness, "bert", 30)
    assert witness.nodes() == ["ada", "ada", "ada", "bert"]
    assert len({run.term for run in witness.runs() if run.node == "ada"}) == 1
    assert not witness.overlaps()
    assert not (probe.path / "twice").exists()
    assert news(database, "scheduler-unhealthy") == [("ada", "exit status 3: no heartbeat of ada")] * 3
    assert database.value("select reason from terms order by term limit 1") == "scheduler-failed"
    asked = len(probe.asked())
    wait_for(lambda: len(probe.asked()) > asked + 2, 20, "bert's answers")
    assert {node for node, *_ in probe.asked()[asked:]} == {"bert"}, "only the heir's scheduler is asked after"


@pytest.mark.parametrize("containment", ["namespace", "subreaper"])
def test_what_ignores_sigterm_is_killed_with_its_whole_tree(wrapper, witness, database, probe, containment):
    ada = wrapper("ada", database=database, command=witness.command("--ignore-term", "--child", "--grandchild"),
                  scheduler={"health": QUICK | {"command": probe.command}, "restart": {"backoff_ms": 10, "limit": 15},
                             "stop_timeout_ms": 300},
                  environment={"HEIRFLOW_CONTAINMENT": containment})
    wait_until_runs(witness, "ada")
    keeper = ada.keeper()
    probe.hang("ada")
    wait_for(lambda: len(witness.runs()) >= 2, 20, "a second run")
    probe.recover("ada")
    assert len({run.term for run in witness.runs()}) == 1 and ada.keeper() == keeper
    assert not witness.overlaps()
    ada.terminate()
    assert ada.wait() == 0


def test_failures_of_the_start_period_do_not_count(member, witness, probe, database):
    probe.hang("ada")
    ada = member("ada", {"command": probe.command, "start_period_ms": 600000})
    wait_for(lambda: len(probe.asked()) >= 6, 20, "failures enough")
    assert ada.running() and not news(database, "scheduler-unhealthy")
    probe.recover("ada")
    asked = len(probe.asked())
    wait_for(lambda: len(probe.asked()) >= asked + 3, 20, "successes")
    probe.hang("ada")  # the start period ended with the first success
    wait_for(lambda: len(witness.runs()) == 2, 20, "a restart")
    assert not witness.overlaps()


def test_failures_must_be_in_a_row(member, witness, database, folder):
    alternating = f"if [ -e {folder}/odd ]; then rm {folder}/odd; echo >>{folder}/good; else touch {folder}/odd; exit 1; fi"
    ada = member("ada", {"command": ["sh", "-c", alternating], "failures": 2})
    wait_for(lambda: (folder / "good").exists() and len((folder / "good").read_text()) >= 5, 20, "five successes")
    assert not news(database, "scheduler-unhealthy") and witness.nodes() == ["ada"]
    assert ada.events().count("health-failed") >= 5 and ada.events().count("health-restored") >= 4


def test_a_health_command_that_hangs_is_killed_and_counts(member, witness, database):
    ada = member("ada", {"command": ["sh", "-c", "echo stuck >&2; sleep 4711 & wait"], "timeout_ms": 200},
                 restart={"limit": 15, "backoff_ms": 10})
    wait_for(lambda: len(witness.runs()) == 2, 20, "a restart")
    assert news(database, "scheduler-unhealthy")[0] == ("ada", "timed out after 200 ms: stuck")
    assert not witness.overlaps()
    assert len(probes(ada, "4711")) <= 1, "those that timed out are gone, with their children"
    ada.terminate()
    assert ada.wait() == 0
    assert not [pid for pid in processes.descendants(os.getpid()) if "4711" in processes.command_line(pid)]


@pytest.mark.parametrize("end", ["terminate", "kill"])
@pytest.mark.parametrize("containment", ["namespace", "subreaper"])
def test_no_probe_is_left_over(wrapper, witness, database, end, containment):
    ada = wrapper("ada", database=database, command=witness.command(), environment={"HEIRFLOW_CONTAINMENT": containment},
                  scheduler={"health": QUICK | {"command": ["sleep", "4712"], "timeout_ms": 600000}})
    (pid,) = wait_for(lambda: probes(ada, "4712"), 20, "the health command")
    getattr(ada, end)()
    assert end == "kill" or ada.wait() == 0
    wait_for(lambda: not processes.alive(pid), 20, "its end")


def test_a_keeper_killed_beside_a_probe(wrapper, witness, database):
    """Without namespaces the wrapper then kills and reaps all its children, the health command among them."""
    ada = wrapper("ada", database=database, command=witness.command(), environment={"HEIRFLOW_CONTAINMENT": "subreaper"},
                  scheduler={"health": QUICK | {"command": ["sleep", "4713"], "timeout_ms": 600000, "failures": 1}})
    (pid,) = wait_for(lambda: probes(ada, "4713"), 20, "the health command")
    os.kill(ada.keeper(), signal.SIGKILL)
    wait_for(lambda: len(witness.runs()) == 2, 20, "a second run")
    wait_for(lambda: [other for other in probes(ada, "4713") if other != pid], 20, "a health command again")
    assert not witness.overlaps() and not news(database, "scheduler-unhealthy")
    ada.terminate()
    assert ada.wait() == 0


def test_a_probe_has_what_the_scheduler_has_and_nothing_more(wrapper, database, folder):
    out = folder / "probe"
    look = f"env >{out}.new; pwd >>{out}.new; ls -l /proc/self/fd >>{out}.new; mv {out}.new {out}"
    ada = wrapper("ada", database=database, environment={"HEIRFLOW_RABBITMQ_URL": ""},
                  scheduler={"environment": {"COLOUR": "teal"}, "directory": "/usr/share",
                             "health": QUICK | {"command": ["sh", "-c", look]}})
    wait_for(out.exists, 20, "the probe's findings")
    lines = out.read_text().splitlines()
    assert {"COLOUR=teal", "HEIRFLOW_NODE=ada", "HEIRFLOW_GROUP=tests", "/usr/share"} <= set(lines)
    assert not [line for line in lines if line.startswith(("HEIRFLOW_RABBITMQ", "HEIRFLOW_POSTGRES", "HEIRFLOW_CONFIG"))]
    assert [line for line in lines if line.endswith("0 -> /dev/null")]
    assert not [line for line in lines if "socket:" in line or "/run/" in line or "memfd" in line], lines
    assert ada.running()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run it as another user")
def test_a_probe_runs_as_the_schedulers_user(wrapper, database, folder):
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    wrapper("ada", database=database, command=["sleep", "infinity"],
            scheduler={"user": "nobody", "health": QUICK | {"command": ["touch", str(shared / "seen")]}})
    wait_for((shared / "seen").exists, 20, "the probe")
    assert (shared / "seen").owner() == "nobody"


def test_a_health_command_that_does_not_exist_is_refused_at_the_start(command, database, folder):
    path = folder / "heirflow.json"
    path.write_text(json.dumps({"run_directory": str(folder / "run"),
                                "scheduler": {"command": ["sleep", "1"], "health": {"command": ["no-such-probe"]}}}))
    started = command("run", "--config", str(path), database=database, expect=1)
    assert '"scheduler.health.command"' in started.stderr and '"no-such-probe" is not found along PATH' in started.stderr
    lines = command("check", "--config", str(path), database=database, expect=1).stdout.splitlines()
    assert [line for line in lines if line.startswith('BAD health command: command "no-such-probe"')]


def test_one_that_goes_away_later_counts_as_a_failure(member, witness, database, folder):
    program = folder / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    ada = member("ada", {"command": [str(program)]})
    wait_until_runs(witness, "ada")
    program.unlink()
    wait_for(lambda: len(witness.runs()) == 2, 20, "a restart")
    assert "exit status 127: command" in news(database, "scheduler-unhealthy")[0][1]
    assert "does not exist; correct scheduler.health.command" in ada.log()


# -- the probe for celery beat ----------------------------------------------------------------------------------------

BEAT_ALIVE = SOURCE / "config" / "probes" / "celery-beat-alive"


def test_celery_beat_alive(folder):
    schedule = folder / "schedule"

    def ask(*arguments):
        return subprocess.run([str(BEAT_ALIVE), *map(str, arguments)], capture_output=True, text=True)
    assert "does not exist" in ask(schedule, 60).stderr
    pathlib.Path(f"{schedule}.db").touch()
    assert "python3-gdbm" in ask(schedule, 60).stderr
    schedule.touch()
    assert ask(schedule, 60).returncode == 0
    os.utime(schedule, (time.time() - 100,) * 2)
    late = ask(schedule, 60)
    assert late.returncode == 1 and "more than 60" in late.stderr
    pathlib.Path(f"{schedule}.dat").touch()
    assert ask(schedule, 60).returncode == 0
    assert ask(schedule, "soon").returncode == 1 and ask().returncode == 1


def has_celery_with_gdbm():
    return subprocess.run(["/usr/bin/python3", "-c", "import _gdbm, celery"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_celery_with_gdbm(), reason="python3-celery or python3-gdbm is not installed")
def test_a_frozen_celery_beat_is_restarted(wrapper, database, folder):
    (folder / "beat_app.py").write_text(
        "import celery\napp = celery.Celery('beat_app', broker='memory://')\napp.conf.beat_sync_every = 1\n"
        "app.conf.beat_schedule = {'tick': {'task': 'tick', 'schedule': 0.2}}\n")
    schedule = folder / "schedule"
    ada = wrapper("ada", database=database,
                  command=["/usr/bin/python3", "-m", "celery", "--app=beat_app", "beat", "--pidfile=", f"--schedule={schedule}"],
                  scheduler={"directory": str(folder), "environment": {"PYTHONPATH": str(folder)},
                             "health": QUICK | {"command": [str(BEAT_ALIVE), str(schedule), "3"], "interval_ms": 300,
                                                "start_period_ms": 60000}})
    wait_for(lambda: list(folder.glob("schedule*")), 30, lambda: "the schedule file\n" + ada.log())
    first = ada.scheduler()
    written = lambda: max(path.stat().st_mtime for path in folder.glob("schedule*"))
    start = written()
    wait_for(lambda: written() > start + 3.5, 30, "the schedule file advancing")
    assert not news(database, "scheduler-unhealthy")
    os.kill(first, signal.SIGSTOP)
    wait_for(lambda: news(database, "scheduler-unhealthy"), 20, "the news")
    assert "not written for" in news(database, "scheduler-unhealthy")[0][1]
    wait_for(lambda: ada.scheduler() not in (None, first), 20, "a restart in place")
