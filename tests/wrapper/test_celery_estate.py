"""Real celery beat on two nodes: what is due across a succession runs once and on time, because its schedule is inherited.

One task every EVERY_S seconds. It is sent by ada, then the scheduler moves and it is due on bert, whose schedule is new;
then it moves back and it is due on ada, whose own schedule is old by then.
"""
import json
import subprocess
import time

import pytest

from conftest import wait_for

EVERY_S = 8
MOVE_S = 2      # after a task was sent; the rest of the time is for celery's start
TOLERANCE_S = 2.5
APP = """
import json, os, time
import celery, celery.signals
app = celery.Celery('beat_app', broker='memory://')
app.conf.beat_sync_every = 1
app.conf.beat_schedule = {'tick': {'task': 'tick', 'schedule': %d}}

@celery.signals.before_task_publish.connect
def note(**_):
    with open(os.environ['SENT'], 'a') as sent:
        sent.write(json.dumps({'at': time.time(), 'node': os.environ['HEIRFLOW_NODE']}) + '\\n')
""" % EVERY_S


def has_celery_with_gdbm():
    return subprocess.run(["/usr/bin/python3", "-c", "import _gdbm, celery"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not has_celery_with_gdbm(), reason="python3-celery or python3-gdbm is not installed")


@pytest.fixture
def beat(wrapper, database, folder):
    (folder / "beat_app.py").write_text(APP)

    def make(node, estate):
        home = folder / node
        home.mkdir()
        made = wrapper(node, database=database, lease_ms=1500,
                       command=["/usr/bin/python3", "-m", "celery", "--app=beat_app", "beat", "--pidfile=", "--schedule=schedule"],
                       scheduler={"directory": str(home), "estate": estate, "estate_interval_ms": 100,
                                  "environment": {"PYTHONPATH": str(folder), "SENT": str(folder / "sent"),
                                                  "PYTHONDONTWRITEBYTECODE": "1"}})
        made.wait_for_event("standby")
        return made
    return make


@pytest.fixture
def sent(folder):
    """All that was sent so far: [(when, by which node), ...]."""
    def read():
        path = folder / "sent"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [(row["at"], row["node"]) for row in rows]
    return read


def switch_over(heir, command, database):
    command("switchover", "--group", "tests", database=database, expect=0)


def kill_wrapper(heir, command, database):
    heir.kill()


def lose_node(heir, command, database):
    heir.power_off()


def moves_after(sent, move, heir, others, copied):
    """The scheduler leaves `heir` between two runs of the task; returns once it has sent the next elsewhere."""
    count = len(sent())
    last = sent()[-1][0]
    wait_for(lambda: copied(last) and time.time() > last + MOVE_S, 30, lambda: f"a copy of what was sent\n{heir.log()}")
    move(heir)
    wait_for(lambda: len(sent()) > count, 40, lambda: f"the next task\n{heir.log()}\n{others.log()}")


def there_and_back(beat, sent, database, command, move, estate):
    ada, bert = beat("ada", estate), beat("bert", estate)

    def copied(since):
        return not estate or database.value("select coalesce(max(taken_at), 'epoch') > to_timestamp(%s) from estate", since)

    def act(heir):
        move(heir, command, database)

    wait_for(sent, 60, lambda: f"the first task\n{ada.log()}")
    moves_after(sent, act, ada, bert, copied)
    if not ada.running():
        ada.start()
        ada.wait_for_event("standby", count=2)
    moves_after(sent, act, bert, ada, copied)
    return [b[0] - a[0] for a, b in zip(sent(), sent()[1:])], [node for _, node in sent()]


@pytest.mark.parametrize("move", [switch_over, kill_wrapper, lose_node])
def test_what_is_due_across_a_succession_runs_once_and_on_time(beat, sent, database, command, move):
    gaps, nodes = there_and_back(beat, sent, database, command, move, ["schedule"])
    assert nodes == ["ada", "bert", "ada"]
    assert all(abs(gap - EVERY_S) < TOLERANCE_S for gap in gaps), gaps
    assert database.value("select count(*) from news where event = 'estate-failed'") == 0


def test_without_an_estate_it_runs_late_or_again(beat, sent, database, command):
    """The defect itself (celery #251), or else the test above would show nothing."""
    gaps, nodes = there_and_back(beat, sent, database, command, switch_over, [])
    assert nodes == ["ada", "bert", "ada"]
    assert gaps[0] > EVERY_S + MOVE_S, "late: a new schedule begins to count when it is made"
    assert gaps[1] < EVERY_S - TOLERANCE_S, "again: an old schedule does not know what ran elsewhere"
