"""switchover, pause, resume, retire, enlist, lease: what an operator sees, with real members."""
import json
import re

import pytest

from conftest import wait_for

GROUP = ("--group", "tests")


@pytest.fixture
def operator(command, database):
    def run(*arguments, **more):
        return command(arguments[0], *GROUP, *arguments[1:], database=database, **more)
    return run


@pytest.fixture
def line(wrapper, witness, database):
    """Wrappers in the order of the line; returns when the first one's scheduler runs."""
    def start(*nodes, options=(), **more):
        members = {}
        for node in nodes:
            members[node] = wrapper(node, database=database, command=witness.command(*options), **more)
            members[node].wait_for_event("standby")
        wait_for(lambda: witness.running_on() == nodes[0], 20, f"the scheduler on {nodes[0]}")
        return members
    return start


def last_news(database, event):
    return database.query("select node, data from news where event = %s order by sequence desc limit 1", event)[0]


def test_switchover_to_the_next_in_line_and_to_a_chosen_one(line, operator, witness, database):
    line("ada", "bert", "cleo")
    done = operator("switchover", expect=0)
    assert re.fullmatch(r"ada -> bert, term \d+ \(switchover\), \d+\.\d{3} s without a scheduler\n", done.stdout)
    wait_for(lambda: witness.running_on() == "bert", what="the scheduler on bert")
    done = operator("switchover", "--to", "ada", "--json", expect=0)
    outcome = json.loads(done.stdout)
    assert (outcome["from"], outcome["to"], outcome["reason"]) == ("bert", "ada", "switchover")
    wait_for(lambda: witness.running_on() == "ada", what="the scheduler on ada again")
    first, second, third = sorted(witness.runs(), key=lambda run: run.start)
    assert outcome["term"] == int(third.term) and abs(outcome["gap_ms"] / 1000 - (third.start - second.end)) < 0.5
    assert not witness.overlaps()
    assert last_news(database, "abdicated")[1]["asked_by"] == "postgres"


def test_switchover_to_who_is_heir_already(line, operator):
    line("ada", "bert")
    assert operator("switchover", "--to", "ada", expect=0).stdout == "ada is the heir already\n"


@pytest.mark.parametrize("to, prepare, why", [
    ("nobody", None, "there is no standby nobody; the standbys are bert"),
    ("bert", ("retire", "--node", "bert"), "bert cannot lead: retired"),
    ("bert", ("pause",), "the group is paused")])
def test_switchover_refused(line, operator, witness, to, prepare, why):
    line("ada", "bert")
    if prepare:
        operator(*prepare, expect=0)
    refused = operator("switchover", "--to", to, expect=1)
    assert refused.stdout == "" and refused.stderr == f"heirflow switchover: {why}\n"
    assert witness.running_on() == "ada" and len(witness.runs()) == 1


def test_switchover_without_anybody_to_hand_over_to(line, operator):
    line("ada")
    assert "no standby can lead" in operator("switchover", expect=1).stderr


def test_switchover_that_takes_longer_than_its_patience(line, operator, witness):
    line("ada", "bert", options=("--ignore-term",), scheduler={"stop_timeout_ms": 3000})
    late = operator("switchover", "--timeout", "0", expect=1)
    assert "the scheduler has not stopped yet after 0 s; the request stands" in late.stderr
    wait_for(lambda: witness.running_on() == "bert", 20, "the hand-over all the same")
    assert not witness.overlaps()


def test_the_lease_is_renewed_while_the_scheduler_stops(line, operator, witness):
    """A graceful stop may take much longer than a lease."""
    line("ada", "bert", options=("--ignore-term",), scheduler={"stop_timeout_ms": 3000})
    done = operator("switchover", expect=0)
    wait_for(lambda: witness.running_on() == "bert", what="the scheduler on bert")
    assert "(switchover)" in done.stdout and not witness.overlaps()
    first, _ = sorted(witness.runs(), key=lambda run: run.start)
    assert first.end - first.start > 3


def test_pause_lets_nobody_take_over_and_resume_does(line, operator, witness, database):
    members = line("ada", "bert")
    assert operator("pause", expect=0).stdout == "tests is paused: nobody takes over until heirflow resume\n"
    assert "already" in operator("pause", expect=0).stdout
    members["ada"].kill()
    wait_for(lambda: witness.running_on() is None, what="the end of the scheduler")
    wait_for(lambda: members["bert"].log() and database.value("select status('tests')")["members"][0]["reason"] == "paused",
             what="bert to be paused")
    assert operator("resume", expect=0).stdout == "tests goes on\n" and "already" in operator("resume", expect=0).stdout
    wait_for(lambda: witness.running_on() == "bert", what="the scheduler on bert")


def test_retire_hands_over_and_enlist_puts_at_the_end(line, operator, witness, database):
    members = line("ada", "bert")
    done = operator("retire", "--node", "ada", expect=0)
    assert re.match(r"ada is retired\nada -> bert, term \d+ \(retired\), ", done.stdout)
    assert operator("retire", "--node", "ada", expect=0).stdout == "ada is retired already\n"
    members["ada"].terminate()
    members["ada"].wait()
    members["ada"].start()
    wait_for(lambda: database.value("select status('tests')")["members"][-1]["reason"] == "retired", what="ada, still retired")
    assert operator("enlist", "--node", "ada", expect=0).stdout == "ada is in the line\n"
    assert operator("enlist", "--node", "ada", expect=0).stdout == "ada is in the line already\n"
    operator("switchover", "--to", "ada", expect=0)
    assert witness.nodes() == ["ada", "bert", "ada"] and not witness.overlaps()


def test_a_name_that_nobody_bears_is_said(line, operator):
    line("ada")
    assert operator("retire", "--node", "dora", expect=0).stdout == (
        "dora is retired; no member of that name is on the roster now\n")


def test_lease_from_the_next_accession_on(line, operator, database):
    line("ada", "bert")
    assert operator("lease", "2000", expect=0).stdout == "the lease of tests will be 2000 ms from the next accession on\n"
    assert "already" in operator("lease", "2000", expect=0).stdout
    assert database.value("select lease_ms from throne") == 1000
    operator("switchover", expect=0)
    assert database.value("select lease_ms from throne") == 2000


@pytest.mark.parametrize("arguments", [("switchover",), ("pause",), ("resume",), ("retire",), ("enlist",), ("lease", "900")])
def test_a_group_that_does_not_exist(command, database, arguments):
    refused = command(*arguments, "--group", "nope", database=database, expect=1)
    assert refused.stdout == "" and refused.stderr.startswith(f'heirflow {arguments[0]}: there is no group "nope" here')


@pytest.mark.parametrize("arguments", [("switchover",), ("pause",), ("resume",), ("retire",), ("enlist",), ("lease", "900")])
def test_who_is_no_operator_is_told(line, command, database, arguments):
    line("ada")
    database.server.psql("create role onlooker login in role heirflow_viewer")
    try:
        refused = command(arguments[0], *arguments[1:], *GROUP, expect=3,
                          database=database.server.dsn(database.name, user="onlooker"))
        assert refused.stderr == (f"heirflow {arguments[0]}: this database user is no operator: grant heirflow_operator to it\n")
    finally:
        database.server.psql("drop role onlooker")


def test_an_operator_need_not_be_more(line, command, database):
    line("ada", "bert")
    database.server.psql("create role night_shift login in role heirflow_operator")
    try:
        command("switchover", *GROUP, expect=0, database=database.server.dsn(database.name, user="night_shift"))
        assert last_news(database, "abdicated")[1]["asked_by"] == "night_shift"
    finally:
        database.server.psql("drop role night_shift")


def test_the_database_is_away(command, postgres):
    away = command("pause", *GROUP, database="host=127.0.0.1 port=1 dbname=x", expect=3)
    assert away.stderr.count("\n") == 1 and away.stderr.startswith("heirflow pause: ")


@pytest.mark.parametrize("arguments, complaint", [
    (("lease",), "which lease?"), (("lease", "soon"), 'lease takes a whole number from 200, not "soon"'),
    (("lease", "100"), "from 200"), (("lease", "900", "901"), "unexpected argument"),
    (("switchover", "--timeout", "x"), "--timeout takes a whole number"), (("pause", "now"), 'unexpected argument "now"')])
def test_usage(command, arguments, complaint):
    assert complaint in command(*arguments, expect=2).stderr
