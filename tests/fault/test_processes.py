"""SIGKILL and SIGSTOP of wrapper, keeper and scheduler, alone and in pairs."""
import itertools
import signal

import pytest

import processes
from world import BACK, CRASH, LEASE, LOSS

PARTS = ("wrapper", "keeper", "scheduler")
SIGNALS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}


def pids(member):
    return {"wrapper": member.pid, "keeper": member.keeper(), "scheduler": member.scheduler()}


def excluded(faults):
    """A frozen keeper whose wrapper cannot kill it: docs/protocol.md, The promise."""
    return faults.get("keeper") == "stopped" and "wrapper" in faults


def strike(member, faults):
    targets = pids(member)
    for part, what in sorted(faults.items(), key=lambda fault: fault[1] == "killed"):  # or the frozen one might react first
        processes.send(targets[part], SIGNALS[what])
    if faults.get("wrapper") == "killed":
        member.process.wait()
    return [targets[part] for part, what in faults.items() if what == "stopped"]


def case(faults):
    return "heir's " + " and ".join(f"{part} {what}" for part, what in faults.items())


@pytest.fixture
def trio(world):
    world.postgres()
    return world.group("ada", "bert")


def succeed(world, ada, faults):
    before = world.alive()
    frozen = strike(ada, faults)
    world.another_run(before)
    if frozen:
        world.steady(LEASE / 2)
    for pid in frozen:
        processes.send(pid, signal.SIGCONT)
    if frozen:
        world.steady(LEASE)
    if excluded(faults):
        world.until(lambda: len(world.alive()) == 1, "one scheduler again")
    world.judge()


SINGLE = [{part: what} for part in PARTS for what in SIGNALS if (part, what) != ("scheduler", "stopped")]
PAIRS = [{first: a, second: b} for first, second in itertools.combinations(PARTS, 2) for a in SIGNALS for b in SIGNALS]


@pytest.mark.parametrize("faults", SINGLE + PAIRS, ids=case)
def test_struck(world, trio, faults):
    # with wrapper and keeper nobody is left to write a last will
    crash = set(faults.values()) == {"killed"} and not {"wrapper", "keeper"} <= set(faults)
    world.claim(case(faults), CRASH if crash else LOSS, excluded=excluded(faults))
    succeed(world, trio[0], faults)


def test_scheduler_stopped(world, trio):
    world.claim("heir's scheduler stopped")
    pid = trio[0].scheduler()
    processes.send(pid, signal.SIGSTOP)
    world.steady(2 * LEASE)
    processes.send(pid, signal.SIGCONT)
    world.until_runs("ada")
    world.note("noticed by a health command only")
    world.judge()
    assert len(world.witness.runs()) == 1


@pytest.mark.parametrize("part", ["wrapper", "keeper"])
@pytest.mark.parametrize("what", SIGNALS)
def test_struck_and_then_the_database_gone(world, trio, part, what):
    world.claim(f"heir's {part} {what}, then the database stopped", BACK)
    frozen = strike(trio[0], {part: what})
    world.databases[0].stop("immediate")
    world.until_none()
    world.databases[0].start()
    world.back()
    world.until_any()
    for pid in frozen:
        processes.send(pid, signal.SIGCONT)
    world.steady(LEASE)
    world.judge()
