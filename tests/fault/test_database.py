"""The database stopped, frozen, crashed, failed over, doubled, stuck; its connections cut; its clock set."""
import itertools
import time

import pytest

from world import BACK, LEASE, LOSS, faketime

LONG = [pytest.param(seconds, marks=[pytest.mark.long, pytest.mark.timeout(300)]) for seconds in (20, 60)]


@pytest.fixture
def trio(world):
    world.postgres()
    return world.group("ada", "bert")


@pytest.mark.parametrize("seconds", [5, *LONG])
@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_stopped(world, trio, how, seconds):
    world.claim(f"database {'stopped' if how == 'fast' else 'crashed'}, {seconds} s", BACK)
    server = world.databases[0]
    server.stop(how)
    world.until_none()
    world.steady(seconds - LEASE)
    server.start()
    world.back()
    world.until_any()
    world.judge()


@pytest.mark.parametrize("seconds", [5, *LONG])
def test_frozen(world, trio, seconds):
    world.claim(f"database frozen, {seconds} s", BACK)
    world.databases[0].host.freeze()
    world.until_none()
    world.steady(seconds - LEASE)
    world.databases[0].host.thaw()
    world.back()
    world.until_any()
    world.judge()


def test_restarted_within_the_lease(world, trio):
    world.claim("database restarted at once", BACK)
    world.databases[0].restart()
    world.back()
    world.steady(LEASE)
    world.until_any()
    world.judge()


def test_power_loss(world, trio):
    server = world.databases[0]
    world.claim("database's host loses its power, 3 s", BACK)
    server.power_off()
    world.until_none()
    world.steady(2)
    server.host.plug(True)
    server.start()
    world.back()
    world.until_any()
    world.judge()


@pytest.fixture
def pair(world):
    """pair(synchronous) starts primary, standby and wrappers; returns the two servers."""
    def start(synchronous, nodes=("ada", "bert")):
        first = world.postgres("pg1", wal_sender_timeout="5s")
        second = world.postgres("pg2", primary=first, wal_receiver_timeout="5s")
        if synchronous:
            first.psql("alter system set synchronous_standby_names = 'pg2'")
            first.reload()
            in_step = "select 1 from pg_stat_replication where sync_state = 'sync'"
            world.until(lambda: first.psql(in_step), "the standby in step")
        world.group(*nodes)
        return first, second
    return start


def promote(world, server):
    server.psql("select pg_promote()")
    world.back()


def test_synchronous_failover_with_the_old_primary_beside_the_old_heir(world, pair):
    first, second = pair(synchronous=True)
    world.claim("synchronous failover, old primary cut off with the old heir", BACK)
    world.lab.isolate(["pg1", "ada"])
    promote(world, second)
    world.until_runs("bert")
    world.steady(2 * LEASE)
    assert set(world.alive().values()) == {"bert"}
    world.judge()


def test_synchronous_failover_at_once_with_all_wrappers_on_one_side(world, pair):
    first, second = pair(synchronous=True)
    world.claim("synchronous failover, old primary alive and cut off alone", BACK)
    before = world.alive()
    world.lab.isolate(["pg1"])
    promote(world, second)
    world.another_run(before)
    world.judge()


def test_asynchronous_failover_that_loses_commits(world, pair):
    first, second = pair(synchronous=False)
    world.claim("asynchronous failover, last commits lost, old heir alive", BACK)
    world.lab.isolate(["pg2"])
    world.members["ada"].kill()  # the succession is among what the failover forgets
    world.until_runs("bert")
    world.members["ada"].start()
    world.until_rejoined("ada", 2)
    first.power_off()
    world.lab.heal()
    promote(world, second)
    world.until_any()
    world.steady(2 * LEASE)
    lost = {run.term for run in world.witness.runs()[:2]}
    assert world.query("select term from throne", server=second)[0][0] > max(map(int, lost))
    world.judge()


def test_asynchronous_failover_to_a_server_that_knows_the_throne_as_vacant(world, pair):
    first, second = pair(synchronous=False, nodes=["ada"])
    ada = world.members["ada"]
    ada.terminate()
    ada.wait()
    vacant = lambda: world.query("select member_id is null from throne", server=second)[0][0]
    world.until(vacant, "the vacancy on the standby")
    world.lab.isolate(["pg2"])
    world.group("bert", "cleo")
    world.claim("asynchronous failover, the accession itself lost, old heir alive", BACK)
    before = world.alive()
    second.psql("select pg_promote()")
    world.lab.heal()
    first.stop("immediate")
    world.back()
    world.another_run(before)
    world.judge()


def test_asynchronous_failover_with_the_old_primary_beside_the_old_heir(world, pair):
    first, second = pair(synchronous=False)
    world.claim("asynchronous failover, old primary alive and cut off with the old heir", BACK, excluded=True)
    world.lab.isolate(["pg1", "ada"])
    promote(world, second)
    world.until_runs("bert")
    world.steady(2 * LEASE)
    both = set(world.alive().values()) == {"ada", "bert"}
    world.note("both run while the old primary acknowledges" if both else "no exposure")
    world.lab.heal()
    first.power_off()
    world.until(lambda: len(world.alive()) == 1, "one scheduler once the old primary is gone")
    world.judge()


def test_two_servers_that_accept_writes(world, pair):
    first, second = pair(synchronous=False)
    world.claim("two servers of one connection string accept writes, first one then goes", BACK)
    promote(world, second)
    world.steady(2 * LEASE)
    assert set(world.alive().values()) == {"ada"}
    world.lab.isolate(["pg1"])
    world.until_none()
    world.back()
    world.until_any()
    world.lab.heal()
    world.steady(2 * LEASE)
    world.note("all use the first reachable one, and stay with the other after that")
    world.judge()


def test_two_servers_that_accept_writes_seen_differently(world, pair):
    first, second = pair(synchronous=False)
    world.claim("two servers accept writes, first one hidden from the standby only", excluded=True)
    promote(world, second)
    world.lab.cut(["bert"], ["pg1"])
    world.steady(4 * LEASE)
    world.note("both run" if len(world.alive()) == 2 else "one runs")
    second.power_off()
    world.lab.heal()
    world.until(lambda: len(world.alive()) == 1, "one scheduler once one server is left")
    world.judge()


def test_commit_stuck_waiting_for_the_standby(world, pair):
    first, second = pair(synchronous=True)
    world.claim("commits wait for a synchronous standby that is cut off, 4 s", BACK)
    world.lab.isolate(["pg2"])
    world.until_none()
    world.steady(3 * LEASE)
    world.lab.heal()
    world.query("create table answered ()")  # the standby's connection takes a second or two to notice that it can go on
    world.back()
    world.until_any()
    world.steady(LEASE)
    world.judge()


def terminate(world, condition):
    return world.query("select pg_terminate_backend(pid) from pg_stat_activity"
                       " where application_name like %s and " + condition, "heirflow:%")


STEPS = {"renewal": "heartbeat", "abdication": "abdicate", "accession": "accede"}


@pytest.mark.parametrize("step", STEPS)
def test_connection_terminated_at(world, trio, step):
    """The throne's lock holds the step up, so that the connection is cut in the middle of it."""
    world.claim(f"connection terminated in the middle of the {step}", LOSS)
    holder = world.databases[0].connect("heirflow")
    holder.autocommit = False
    before = world.alive()
    waiting = f"wait_event_type = 'Lock' and query ilike '%%{STEPS[step]}%%'"
    if step == "accession":
        world.lab.isolate(["ada"])
        world.until_none()
    with holder.cursor() as cursor:
        cursor.execute("select 1 from heirflow.throne for update")
        if step == "abdication":
            world.members["ada"].terminate()
        world.until(lambda: terminate(world, waiting), f"a backend to cut in the {step}")
    holder.rollback()
    holder.close()
    if step == "renewal":
        world.steady(LEASE)
        world.until_any()
    else:
        world.another_run(before)
    world.judge()


def test_connections_terminated_all_the_time(world, trio):
    world.claim("every connection terminated again and again during successions, 6 s")
    ends, gaps = time.monotonic() + 6, itertools.cycle((0.05, 0.3, 0.01, 0.6, 0.15))
    while time.monotonic() < ends:
        terminate(world, "true")
        time.sleep(next(gaps))
        for node in set(world.alive().values()):
            if next(gaps) == 0.6:
                world.members[node].kill()
                world.members[node].start()
    world.until_any()
    world.note(f"{len(world.witness.runs()) - 1} successions")
    world.judge()


@pytest.mark.parametrize("step", ["+3600", "-3600"])
def test_clock_of_the_database_set(world, step):
    clock = world.folder / "clock"
    clock.write_text("+0\n")
    world.postgres(variables=faketime(clock))
    world.group("ada", "bert")
    world.claim(f"database's clock set by {step} s", LOSS)
    shown = lambda: world.query("select extract(epoch from clock_timestamp())")[0][0]
    clock.write_text(step + "\n")
    world.until(lambda: abs(float(shown()) - time.time() - int(step)) < 60, "the clock being another")
    world.steady(3 * LEASE)
    assert set(world.alive().values()) == {"ada"}
    world.members["ada"].kill()
    world.until_runs("bert")
    world.judge()
