"""The last will: a wrapper that dies costs milliseconds, and its keeper says so to the database itself."""
import processes
import pytest
from processes import wait_for

TERMS = "select term, node, ended_by, reason from terms where ended_at is not null order by term"


@pytest.mark.parametrize("containment", ["", "cgroup", "subreaper"])
def test_killed_wrapper_abdicates(wrapper, database, witness, containment):
    ada = wrapper("ada", database, witness.command(), lease_ms=3000,
                  environment={"HEIRFLOW_CONTAINMENT": containment})
    ada.wait_for_event("scheduler-started")
    pids = set(ada.tree()) - {ada.keeper()}
    ada.kill()
    wait_for(lambda: database.query(TERMS), 20, "the abdication")
    assert not any(processes.alive(pid) for pid in pids)
    assert database.query(TERMS)[0][1:] == ("ada", "abdicated", "wrapper died")


def test_restarted_wrapper_does_not_wait_for_the_will(wrapper, own_database, witness):
    """With the database away nobody can write a will; the lock is free all the same."""
    ada = wrapper("ada", own_database, witness.command())
    ada.wait_for_event("scheduler-started")
    own_database.server.stop()
    ada.kill()
    away = ada.events().count("database-away")
    ada.start()
    ada.wait_for_event("database-away", count=away + 1)
    assert "wrapper-died" not in ada.events()  # the will is still being tried
    own_database.server.start()
    ada.wait_for_event("scheduler-started", count=2)
    assert not witness.overlaps()
