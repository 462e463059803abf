"""The main job on real parts: who runs, who inherits, and never two at once."""
import json
import os
import signal
import time

import pytest

from conftest import wait_for


@pytest.fixture
def group(wrapper, witness, database):
    """group("ada", "bert", ...) starts wrappers one after the other, so that they stand in the line in that order."""
    def start(*nodes, options=(), **more):
        wrappers = []
        for node in nodes:
            wrappers.append(wrapper(node, database=database, command=witness.command(*options), **more))
            wrappers[-1].wait_for_event("standby")
        return wrappers
    return start


def wait_until_runs(witness, node, timeout=20):
    wait_for(lambda: witness.running_on() == node, timeout, f"the scheduler running on {node}")


def test_the_oldest_runs_and_the_next_oldest_inherits(group, witness, database):
    ada, bert, cleo = group("ada", "bert", "cleo")
    wait_until_runs(witness, "ada")
    ada.terminate()
    wait_until_runs(witness, "bert")
    assert ada.wait() == 0
    bert.terminate()
    wait_until_runs(witness, "cleo")
    assert bert.wait() == 0
    cleo.terminate()
    assert cleo.wait() == 0
    assert witness.nodes() == ["ada", "bert", "cleo"]
    assert not witness.overlaps()
    assert database.value("select count(*) from roster where present") == 0
    ends = [row[0] for row in database.query("select ended_by from terms order by term")]
    assert ends == ["abdicated"] * 3


def test_wrapper_killed_costs_no_lease(group, witness, database):
    ada, bert = group("ada", "bert", lease_ms=6000)
    wait_until_runs(witness, "ada")
    ada.kill()
    wait_until_runs(witness, "bert", timeout=4)  # well within a lease: the keeper wrote the will
    assert not witness.overlaps()
    assert database.value("select reason from terms order by term limit 1") == "wrapper died"


@pytest.mark.parametrize("options", [("--ignore-term",), ("--child", "--grandchild"), ("--child", "--grandchild", "--ignore-term")])
def test_no_process_of_the_old_tree_outlives_its_wrapper(group, witness, options):
    ada, bert = group("ada", "bert", options=options)
    wait_until_runs(witness, "ada")
    ada.kill()
    wait_until_runs(witness, "bert")
    assert not witness.overlaps()


def test_scheduler_killed_runs_again_on_the_same_node(group, witness):
    ada, bert = group("ada", "bert")
    wait_until_runs(witness, "ada")
    os.kill(ada.scheduler(), signal.SIGKILL)
    wait_for(lambda: len(witness.runs()) == 2, 10, "a second run")
    assert witness.nodes() == ["ada", "ada"]
    assert len({run.term for run in witness.runs()}) == 1
    assert not witness.overlaps()


def test_main_dead_with_a_living_child_is_noticed(group, witness):
    ada, bert = group("ada", "bert", options=("--child", "--grandchild"))
    wait_until_runs(witness, "ada")
    wait_for(lambda: len(witness.latest().roles) == 3, 10, "the whole tree")
    os.kill(ada.scheduler(), signal.SIGKILL)
    wait_for(lambda: len(witness.runs()) == 2, 10, "a second run")
    assert not witness.overlaps()


def test_after_the_restart_limit_the_next_node_runs_it(group, witness, database):
    ada, bert = group("ada", "bert", scheduler={"restart": {"limit": 2, "backoff_ms": 20}})
    wait_until_runs(witness, "ada")
    for count in (2, 3, 4):
        os.kill(wait_for(ada.scheduler, 10, "a scheduler"), signal.SIGKILL)
        wait_for(lambda: len(witness.runs()) == count, 10, f"run {count}")
    assert witness.nodes() == ["ada", "ada", "ada", "bert"]
    assert not witness.overlaps()
    assert database.value("select reason from terms order by term limit 1") == "scheduler-failed"


def test_wrapper_stopped_loses_the_throne_and_comes_back_as_a_standby(group, witness):
    ada, bert = group("ada", "bert", options=("--ignore-term",))
    wait_until_runs(witness, "ada")
    os.kill(ada.pid, signal.SIGSTOP)
    wait_until_runs(witness, "bert")
    os.kill(ada.pid, signal.SIGCONT)
    ada.wait_for_event("standby", count=2)
    assert witness.running_on() == "bert"
    assert not witness.overlaps()


def test_keeper_stopped_is_killed_and_the_next_inherits(group, witness):
    ada, bert = group("ada", "bert", options=("--ignore-term",))
    wait_until_runs(witness, "ada")
    os.kill(ada.keeper(), signal.SIGSTOP)
    wait_until_runs(witness, "bert")
    assert not witness.overlaps()
    ada.wait_for_event("standby", count=2)


def test_keeper_killed(group, witness):
    ada, bert = group("ada", "bert", options=("--child", "--grandchild"))
    wait_until_runs(witness, "ada")
    os.kill(ada.keeper(), signal.SIGKILL)
    wait_for(lambda: len(witness.runs()) == 2, 10, lambda: "a second run\n" + ada.log() + bert.log())
    assert not witness.overlaps()


def test_node_lost(group, witness, database):
    ada, bert = group("ada", "bert", options=("--child", "--grandchild"))
    wait_until_runs(witness, "ada")
    ada.power_off()
    wait_until_runs(witness, "bert")
    assert not witness.overlaps()
    assert database.value("select ended_by from terms order by term limit 1") == "deposed"


def test_restarted_wrapper_takes_its_own_seat_without_waiting_a_lease(wrapper, witness, database):
    ada = wrapper("ada", database=database, command=witness.command(), lease_ms=6000)
    wait_until_runs(witness, "ada")
    ada.kill()
    ada.start()
    wait_for(lambda: len(witness.runs()) == 2, 4, "a second run within less than a lease")
    assert not witness.overlaps()
    assert database.value("select count(*) from roster") == 1


def test_a_standby_obeys_sigterm_at_once(group, witness):
    ada, bert = group("ada", "bert")
    wait_until_runs(witness, "ada")
    bert.terminate()
    assert bert.wait(timeout=5) == 0
    assert witness.nodes() == ["ada"]


def test_members_come_and_go_without_disturbing_the_heir(group, witness, database):
    ada, bert = group("ada", "bert")
    wait_until_runs(witness, "ada")
    (cleo,) = group("cleo")
    bert.terminate()
    assert bert.wait() == 0
    ada.terminate()
    wait_until_runs(witness, "cleo")
    assert witness.nodes() == ["ada", "cleo"]
    assert not witness.overlaps()


def test_database_away_for_longer_than_a_lease(group, witness, own_database, wrapper):
    ada = wrapper("ada", database=own_database, command=witness.command("--ignore-term"))
    ada.wait_for_event("standby")
    bert = wrapper("bert", database=own_database, command=witness.command("--ignore-term"))
    wait_until_runs(witness, "ada")
    own_database.server.stop()
    wait_for(lambda: witness.running_on() is None, 10, "the scheduler stopped before its lease ended")
    own_database.server.start()
    wait_for(lambda: witness.running_on() is not None, 10, "a scheduler again")
    assert not witness.overlaps()
    assert ada.running() and bert.running()


def test_frozen_database_fences_and_heals(witness, own_database, wrapper):
    ada = wrapper("ada", database=own_database, command=witness.command("--ignore-term"))
    wait_until_runs(witness, "ada")
    own_database.server.freeze()
    wait_for(lambda: witness.running_on() is None, 10, "the scheduler stopped")
    own_database.server.thaw()
    wait_for(lambda: witness.running_on() == "ada", 10, "a scheduler again")
    assert not witness.overlaps()


def test_broker_outage_stops_nobody(group, witness, database, own_rabbitmq):
    ada, bert = group("ada", "bert", rabbitmq=own_rabbitmq)
    wait_until_runs(witness, "ada")
    own_rabbitmq.kill()
    ada.terminate()
    wait_until_runs(witness, "bert")
    assert not witness.overlaps()
    own_rabbitmq.start()
    wait_for(lambda: database.value("select last from news_counter") == database.value("select published from relay"),
             40, lambda: "all news published once the broker is back\n" + bert.log())


def test_switchover_is_graceful(group, witness, database):
    ada, bert, cleo = group("ada", "bert", "cleo")
    wait_until_runs(witness, "ada")
    assert database.value("select request_switchover('tests', 'cleo')")["accepted"]
    wait_until_runs(witness, "cleo")
    assert witness.nodes() == ["ada", "cleo"]
    assert not witness.overlaps()
    ada.wait_for_event("standby", count=2)  # at the end of the line


def test_retired_heir_hands_over_and_stays_out(group, witness, database):
    ada, bert = group("ada", "bert")
    wait_until_runs(witness, "ada")
    assert database.value("select set_retired('tests', 'ada', true)")["accepted"]
    wait_until_runs(witness, "bert")
    roles = {m["node"]: m["role"] for m in database.value("select status('tests')")["members"]}
    assert roles == {"ada": "retired", "bert": "heir"}
    assert not witness.overlaps()


def test_paused_nobody_takes_over_but_the_last_seat(group, witness, database):
    ada, bert = group("ada", "bert")
    wait_until_runs(witness, "ada")
    database.value("select set_paused('tests', true)")
    ada.kill()
    wait_for(lambda: database.value("select member_id is null from throne"), 10, "the vacancy")
    ada.start()
    wait_for(lambda: len(witness.runs()) == 2, 15, "the last heir's seat again")
    assert witness.nodes() == ["ada", "ada"]
    ada.kill()
    wait_for(lambda: database.value("select member_id is null from throne"), 10, "the vacancy")
    database.value("select set_paused('tests', false)")
    wait_until_runs(witness, "bert")
    assert not witness.overlaps()


def test_no_heir_never_leads(wrapper, witness, database):
    ada = wrapper("ada", database=database, command=witness.command(), no_heir=True)
    ada.wait_for_event("standby")
    wrapper("bert", database=database, command=witness.command())
    wait_until_runs(witness, "bert")
    reasons = {m["node"]: m["reason"] for m in database.value("select status('tests')")["members"]}
    assert reasons["ada"] == "no_heir"


def test_a_later_wrapper_adopts_the_lease_of_the_group(group, wrapper, witness, database):
    group("ada", lease_ms=1000)
    wait_until_runs(witness, "ada")
    bert = wrapper("bert", database=database, command=witness.command(), lease_ms=6000)
    bert.wait_for_event("lease-adopted")
    cleo = wrapper("cleo", database=database, command=witness.command(), lease_ms=60000, heartbeat_ms=10000)
    cleo.wait_for_event("lease-unfit")
    assert "heartbeat <= lease/3" in cleo.log()


def test_the_scheduler_knows_its_term_and_no_secret(wrapper, database, folder):
    out = folder / "environment"
    ada = wrapper("ada", database=database, command=["sh", "-c", f"env > {out}.new; mv {out}.new {out}; exec sleep infinity"],
                  environment={"HEIRFLOW_RABBITMQ_URL": ""})
    wait_for(out.exists, 10, "the scheduler's environment")
    lines = dict(line.split("=", 1) for line in out.read_text().splitlines() if "=" in line)
    assert lines["HEIRFLOW_GROUP"] == "tests" and lines["HEIRFLOW_NODE"] == "ada"
    assert int(lines["HEIRFLOW_TERM"]) == database.value("select term from throne")
    assert lines["PGAPPNAME"] == f"heirflow/tests/{lines['HEIRFLOW_TERM']}"
    assert not {"HEIRFLOW_RABBITMQ_URL", "HEIRFLOW_POSTGRES", "HEIRFLOW_CONFIG"} & set(lines)
    assert ada.running()


def test_exit_status_is_told_as_it_was(wrapper, database):
    wrapper("ada", database=database, command=["sh", "-c", "exit 7"], scheduler={"restart": {"limit": 0}})
    wait_for(lambda: database.query("select reason from news where event = 'scheduler-exited'"), 15, "the news")
    assert database.query("select distinct reason from news where event = 'scheduler-exited'") == [("exit status 7",)]


def test_a_broken_build_does_not_spin_and_others_get_their_turn(wrapper, witness, database):
    ada = wrapper("ada", database=database, command=["false"], scheduler={"restart": {"limit": 1, "backoff_ms": 10}})
    ada.wait_for_event("abdicated")
    wrapper("bert", database=database, command=witness.command())
    wait_until_runs(witness, "bert")
    assert witness.running_on() == "bert"


def test_news_tell_the_succession_in_order(group, witness, database):
    ada, bert = group("ada", "bert", lease_ms=3000)
    wait_until_runs(witness, "ada")
    ada.terminate()
    wait_until_runs(witness, "bert")
    ada.wait()
    told = lambda: [row for row in database.query("select event, node from news order by sequence")]
    wait_for(lambda: told().count(("scheduler-started", "bert")) == 1, 10, "the news of bert's scheduler")
    news = told()
    order = [("registered", "ada"), ("acceded", "ada"), ("scheduler-started", "ada"), ("abdicated", "ada"),
             ("acceded", "bert"), ("scheduler-started", "bert")]
    assert [entry for entry in news if entry in order] == order
    sequences = [row[0] for row in database.query("select sequence from news order by 1")]
    assert sequences == list(range(1, len(sequences) + 1))


def test_one_statement_per_heartbeat_and_hot_updates(group, witness, database):
    ada, bert = group("ada", "bert")
    wait_until_runs(witness, "ada")
    def counts():
        return dict((name, (total, hot)) for name, total, hot in database.query(
            "select relname, n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname in ('throne', 'roster')"))
    start = counts()
    wait_for(lambda: all(counts()[t][0] - start[t][0] >= 60 for t in start), 60, "sixty heartbeats")
    end = counts()
    for table in start:
        total, hot = (end[table][i] - start[table][i] for i in (0, 1))
        assert hot >= 0.99 * total, f"{table}: {hot} of {total} updates were HOT"


def test_garbage_notifications_are_ignored(group, witness, database):
    (ada,) = group("ada")
    wait_until_runs(witness, "ada")
    for payload in ("", "not json", "[1,2", '{"group": 7}', "x" * 7000):
        database.query("select pg_notify('heirflow_wake', %s)", payload)
    beat = database.value("select beat from throne")
    wait_for(lambda: database.value("select beat from throne") > beat + 2, 10, "heartbeats going on")
    assert witness.nodes() == ["ada"]
