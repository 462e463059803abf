"""Schedulers that write to the database: nothing of an old term is written once a new one has begun."""
import contextlib
import json
import signal

import psycopg2
import pytest

import fencing
import processes
from processes import wait_for


@pytest.fixture
def pair(wrapper, fenced):
    def start(*nodes, **more):
        members = []
        for node in nodes or ("ada", "bob"):
            members.append(wrapper(node, database=fenced, command=fencing.ledger(fenced.server, node), fence_role=f"scheduler_{node}", **more))
            members[-1].wait_for_event("standby")
        return members
    return start


@contextlib.contextmanager
def stray_session(fenced, node):
    """A session of that node's scheduler which does not end, however often it is told to, for as long as the block lasts."""
    session = fenced.login(node)
    processes.send(session.info.backend_pid, signal.SIGSTOP)
    try:
        yield
    finally:
        processes.send(session.info.backend_pid, signal.SIGCONT)


def wait_until_works(fenced, node):
    wait_for(lambda: fencing.last_worker(fenced.server) == node, 20, f"work of {node}")


def test_each_successor_writes_alone(pair, fenced):
    ada, bob = pair()
    wait_until_works(fenced, "ada")
    assert fenced.may_enter("ada") and not fenced.may_enter("bob")
    ada.kill()
    wait_until_works(fenced, "bob")
    assert fenced.may_enter("bob") and not fenced.may_enter("ada")
    terms = fencing.terms_worked(fenced.server)
    assert len(terms) == 2 and terms == sorted(set(terms)), "no row of an old term after one of a new"
    assert "fence-closed" in bob.events()


def test_a_session_that_got_away_is_ended_before_the_successor_starts(pair, fenced):
    ada, bob = pair()
    wait_until_works(fenced, "ada")
    stray = fenced.login("ada")
    stray.autocommit = True
    stray.cursor().execute("insert into work (node, term) values ('stray', 1)")
    ada.kill()
    wait_until_works(fenced, "bob")
    with pytest.raises(psycopg2.Error):
        stray.cursor().execute("insert into work (node, term) values ('stray', 1)")
    assert not fenced.may_enter("ada")


def test_sessions_that_do_not_end_cost_the_term_and_nothing_starts(pair, fenced):
    ada, bob = pair()
    wait_until_works(fenced, "ada")
    with stray_session(fenced, "ada"):
        ada.kill()
        bob.wait_for_event("fence-failed")
        assert "sessions that do not end: 1" in bob.log()
        bob.wait_for_event("standby", count=2)   # at the end of the line again
        assert "scheduler-started" not in bob.events() and "fencing: sessions that do not end: 1" in json.dumps(
            fenced.value("select audit('tests')"))
    wait_until_works(fenced, "bob")


def test_renewals_go_on_while_sessions_end(pair, fenced):
    """What keeps the sessions open goes away in time: no term is lost over it."""
    ada, bob = pair(lease_ms=3000)
    wait_until_works(fenced, "ada")
    with stray_session(fenced, "ada"):
        ada.kill()
        bob.wait_for_event("heir")
        before = fenced.value("select beat from throne")
        wait_for(lambda: fenced.value("select beat from throne") > before + 1, what="renewals")
        assert "scheduler-started" not in bob.events()
    wait_until_works(fenced, "bob")
    assert "fence-failed" not in bob.events()


def test_the_fences_own_connection_is_tried_again(pair, fenced):
    """Ended again and again while it waits, it finishes all the same."""
    ada, bob = pair(lease_ms=3000)
    wait_until_works(fenced, "ada")
    with stray_session(fenced, "ada"):
        ada.kill()
        for _ in range(3):
            wait_for(lambda: fenced.admin("select pg_terminate_backend(pid) from pg_stat_activity "
                                          "where application_name like 'heirflow-fence:%' and query like '%fence(%'"),
                     what="the fence's connection")
    wait_until_works(fenced, "bob")
    assert "fence-failed" not in bob.events()


def test_leaving_while_fencing(pair, fenced):
    ada, bob = pair(lease_ms=3000)
    wait_until_works(fenced, "ada")
    with stray_session(fenced, "ada"):
        ada.kill()
        bob.wait_for_event("heir")
        bob.terminate()
        assert bob.wait() == 0
        assert not {"scheduler-started", "fence-failed"} & set(bob.events())
    assert fenced.value("select status('tests')")["heir"] is None


def test_who_was_not_set_up_stands_aside_and_says_why(pair, fenced):
    fenced.admin("revoke heirflow_fenced from scheduler_ada")
    ada, bob = pair()
    wait_until_works(fenced, "bob")
    assert "fence_role: scheduler_ada is no member of heirflow_fenced" in ada.log()
    fenced.admin("grant heirflow_fenced to scheduler_ada")
    bob.kill()
    wait_until_works(fenced, "ada")


def test_ways_past_the_gate_are_said_at_each_accession(pair, fenced):
    fenced.admin("grant connect on database app to public")
    ada, = pair("ada")
    wait_until_works(fenced, "ada")
    assert "fence-leaks" in ada.events() and "scheduler_ada may connect to app as anybody may" in ada.log()
