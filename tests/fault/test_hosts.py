"""The heir's host cut off, lossy, powered off, frozen; its disk full."""
import datetime
import shlex
import signal
import time

import pytest

import fencing
import processes
from world import CRASH, LEASE, LOSS, faketime, now


@pytest.fixture
def trio(world):
    world.postgres()
    return world.group("ada", "bert")


@pytest.mark.parametrize("direction", ["in", "out", "both"])
def test_cut_off_and_healed(world, trio, direction):
    world.claim(f"heir's host cut off ({direction})", LOSS)
    world.lab.isolate(["ada"], direction)
    world.until_runs("bert")
    world.steady(LEASE)
    world.lab.heal()
    world.until_rejoined("ada")
    world.judge()
    assert set(world.alive().values()) == {"bert"}


@pytest.mark.parametrize("lossy", ["heir's host loses", "every host loses"])
@pytest.mark.parametrize("lease, seconds", [(1, 6), pytest.param(6, 60, marks=[pytest.mark.long,
                                                                               pytest.mark.timeout(200)])])
def test_packet_loss(world, lossy, lease, seconds):
    world.postgres()
    world.group("ada", "bert", lease_ms=lease * 1000)
    world.claim(f"{lossy} 30 % of its packets each way, {seconds} s, lease {lease} s")
    world.lab.lose(["ada"] if "heir" in lossy else world.lab.hosts)
    world.steady(seconds)
    world.lab.heal()
    world.until_any()
    world.note(f"{len(world.witness.runs()) - 1} successions")
    world.judge()


def test_power_loss(world, trio):
    ada, _ = trio
    world.claim("heir's host loses its power, comes back later", LOSS)
    ada.host.power_off()
    ada.process.wait()
    world.until_runs("bert")
    ada.host.plug(True)
    ada.start()
    world.until_rejoined("ada")
    world.judge()
    assert set(world.alive().values()) == {"bert"}


def test_frozen_and_thawed(world, trio):
    ada, _ = trio
    world.claim("heir's whole host frozen and thawed", LOSS, excluded=True)
    ada.host.freeze()
    world.until_runs("bert")
    world.steady(LEASE)
    ada.host.thaw()
    thawed = now()
    world.until_rejoined("ada")
    world.steady(LEASE)
    assert set(world.alive().values()) == {"bert"}
    old, new = world.witness.runs()
    exposure = max(0, old.end - thawed)
    world.note(f"old scheduler gone {exposure:.3f} s after the thaw")
    world.judge()
    world.verdict = (exposure, new.start - world.begun)
    assert exposure < LEASE


@pytest.fixture
def fenced_trio(world):
    """Schedulers that write to a gated database as well as bearing witness."""
    server = world.postgres()
    with world.lab.switch.inside():
        fencing.prepare(server, "postgres", "ada", "bert")
    for node in ("ada", "bert"):
        command = [*world.witness.command("--child", "--grandchild", "--ignore-term"), "&", "exec", *fencing.ledger(server, node)]
        world.wrapper(node, command=["sh", "-c", " ".join(word if word == "&" else shlex.quote(word) for word in command)],
                      fence_role=f"scheduler_{node}")
    world.until(lambda: fencing.last_worker(server) == "ada", "work on ada")
    return server, world.members["ada"]


def judge_fencing(world, server):
    world.until(lambda: fencing.last_worker(server) == "bert", "work on bert")
    terms = fencing.terms_worked(server)
    assert len(terms) == 2 and terms == sorted(terms), f"work of an old term after that of a new one: {terms}"
    world.note("PostgreSQL took nothing from the old scheduler")
    world.judge()


def test_frozen_and_thawed_behind_the_gate(world, fenced_trio):
    server, ada = fenced_trio
    world.claim("heir's whole host frozen and thawed, fenced at the database", LOSS, excluded=True)
    ada.host.freeze()
    world.until_runs("bert")
    ada.host.thaw()
    world.until_rejoined("ada")
    world.steady(LEASE)
    judge_fencing(world, server)


def test_out_of_control_behind_the_gate(world, fenced_trio):
    """What the promise excludes: nobody is left to stop the old scheduler, and it never learns."""
    server, ada = fenced_trio
    world.claim("heir's wrapper stopped and keeper stopped, fenced at the database", LOSS, excluded=True)
    for pid in (ada.process.pid, ada.keeper()):
        processes.send(pid, signal.SIGSTOP)
    world.until_runs("bert")
    world.until(lambda: "permission denied for database" in ada.log(), "the old scheduler to be refused")
    world.steady(LEASE)
    judge_fencing(world, server)


def test_frozen_briefly(world, trio):
    ada, _ = trio
    world.claim("heir's whole host frozen for a third of the lease", LOSS)
    ada.host.freeze()
    world.steady(LEASE / 3)
    ada.host.thaw()
    world.until_any()
    world.steady(LEASE)
    world.until_any()
    world.judge()


def test_disk_full_for_the_output(world):
    world.postgres()
    disk = world.folder / "disk"
    disk.mkdir()
    mount = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=64k tmpfs {disk} && exec "$@"', "sh"]
    command = ["sh", "-c", 'head -c 1000000 /dev/zero; echo "disk: $?" >&2; exec "$@"', "sh",
               *world.witness.command("--child", "--grandchild", "--ignore-term")]
    for node in ("ada", "bert"):
        world.wrapper(node, prefix=mount, command=command, scheduler={"output": str(disk / "output")})
    world.until_runs("ada")
    world.claim("disk full for the scheduler's output", CRASH)
    world.members["ada"].kill()
    world.until_runs("bert")
    world.steady(2 * LEASE)
    world.judge()
    assert set(world.alive().values()) == {"bert"}


@pytest.mark.parametrize("step", ["+3600", "-3600"])
def test_clock_of_the_host_set(world, step):
    clock = world.folder / "clock"
    clock.write_text("+0\n")
    world.postgres()
    faked = ["env", *(f"{name}={value}" for name, value in faketime(clock).items())]
    world.group("ada", "bert", prefix=faked)
    world.claim(f"every wrapper's clock set by {step} s", LOSS)
    clock.write_text(step + "\n")
    world.steady(3 * LEASE)
    assert set(world.alive().values()) == {"ada"}
    world.members["ada"].kill()
    world.until_runs("bert")
    world.judge()
    shown = datetime.datetime.fromisoformat(world.members["bert"].log().splitlines()[-1].split()[0])
    assert abs(shown.timestamp() - time.time() - int(step)) < 60
