"""status, history, audit and news on a roster made by SQL calls."""
import json
import re
import subprocess
import uuid

import pytest

from conftest import wait_for
from wrapper import clean_environment

GROUP = "tests"


class Member:
    """A member of the group, without a wrapper."""

    def __init__(self, database, node, **self_says):
        self.database, self.node = database, node
        self.seat, self.incarnation = str(uuid.uuid4()), str(uuid.uuid4())
        self.says = {"node": node, "version": "0.1.0", "lease_ms": 600000, "heartbeat_ms": 100000, "eligible": True} | self_says
        reply = database.value("select register(%s, %s, 1, %s, %s, 600000, %s)", GROUP, self.seat, self.incarnation, node,
                               json.dumps(self.says))
        self.member_id = reply["member_id"]

    def heartbeat(self, term=None, news=(), **self_says):
        self.says |= self_says
        return self.database.value("select heartbeat(%s, %s, %s, %s, %s, %s, %s)", GROUP, self.seat, self.member_id,
                                   self.incarnation, term, json.dumps(self.says), json.dumps(list(news)))

    def accede(self):
        reply = self.database.value(
            "select accede(%s, %s, %s, %s, server_identity(), t.member_id, t.incarnation, t.term, t.beat, 0, true) "
            "from throne t where group_name = %s", GROUP, self.seat, self.member_id, self.incarnation, GROUP)
        assert reply["acceded"], reply
        self.term = reply["term"]

    def abdicate(self, reason):
        return self.database.value("select abdicate(%s, %s, %s, %s, %s)", GROUP, self.member_id, self.incarnation, self.term,
                                   reason)

    def tell(self, event, **data):
        self.heartbeat(news=[{"id": str(uuid.uuid4()), "event": event, "reason": "because", "data": data}])


@pytest.fixture
def roster(database):
    members = [Member(database, "ada"), Member(database, "bob"), Member(database, "cleo", eligible=False, reason="no_heir"),
               Member(database, "dan")]
    members[0].accede()
    members[0].heartbeat(term=members[0].term, scheduler={"state": "running", "pid": 42, "restarts": 2,
                                                          "started_at": "2001-02-03T04:05:06Z"})
    return members


def test_status_shows_the_line_and_why_each_is_not_heir(command, database, roster):
    text = command("status", "--group", GROUP, database=database, expect=0, HEIRFLOW_RABBITMQ_URL="amqp://nowhere").stdout
    head, unpublished, blank, *table = text.splitlines()
    assert re.fullmatch(rf"group {GROUP}, term {roster[0].term}, lease 10 min, heir ada for \d+ (ms|s)", head)
    assert (unpublished, blank) == ("5 news not yet published to RabbitMQ", "")
    column = table[0].index("WHY NOT HEIR")
    assert [line[column:] for line in table[1:]] == ["", "next in line", "no_heir", "1 older in line"]
    assert [line.split()[:3] for line in table[1:]] == [["1", "ada", "heir"], ["2", "bob", "standby"],
                                                        ["3", "cleo", "standby"], ["4", "dan", "standby"]]
    assert re.search(r"running \d+ d, 2 restarts", table[1])
    assert all(" ago" in line for line in table[1:])
    assert all(len(line) <= 80 for line in text.splitlines()), text


def test_status_as_json_has_what_the_table_has(command, database, roster):
    status = json.loads(command("status", "--json", "--group", GROUP, database=database, expect=0).stdout)
    assert status["heir"] == {"node": "ada", "member_id": roster[0].member_id}
    assert status["group"] == GROUP and status["term"] == roster[0].term and status["paused"] is False
    assert [(m["rank"], m["node"], m["role"], m["reason"]) for m in status["members"]] == [
        (1, "ada", "heir", None), (2, "bob", "standby", "next in line"), (3, "cleo", "standby", "no_heir"),
        (4, "dan", "standby", "1 older in line")]
    assert status["members"][0]["scheduler"]["pid"] == 42


def test_status_tells_of_a_lease_that_is_still_waited_for(command, database, roster):
    database.query("select set_lease(%s, 1200000), set_lease(%s, 600000)", GROUP, GROUP)
    text = command("status", "--group", GROUP, database=database, expect=0).stdout
    assert text.splitlines()[1] == "if the database restarts before the next accession, everybody waits 20 min"


def test_status_of_an_heir_that_is_gone(command, database, roster):
    database.query("update throne set renewed_at = renewed_at - interval '1 day' returning 1")
    text = command("status", "--group", GROUP, database=database, expect=0).stdout
    assert re.search(r", heir ada for \S+ \S+, its lease has lapsed$", text.splitlines()[0])
    assert re.search(r"ada +heir +24 h ago +- +lease lapsed$", text, re.MULTILINE)


def test_status_of_a_vacant_and_paused_group(command, database, roster):
    database.query("select set_paused(%s, true)", GROUP)
    roster[0].abdicate("shutdown")
    text = command("status", "--group", GROUP, database=database, expect=0).stdout
    assert "no heir at present" in text and "paused: nobody takes over" in text


@pytest.mark.parametrize("name", ["status", "history", "audit", "news"])
def test_an_unknown_group_is_told_which_there_are(command, database, roster, name):
    result = command(name, "--group", "other", database=database, expect=1)
    assert f"known groups: {GROUP};" in result.stderr and result.stdout == ""


def test_control_characters_never_reach_the_terminal(command, database):
    evil = "x\x1b[2Jy\x9b31mz\x7f"
    member = Member(database, evil, eligible=False, reason=evil)
    member.accede()
    member.tell("scheduler-started", note=evil)
    member.abdicate(evil)
    for name in ("status", "history", "audit", "news"):
        for option in ([], ["--json"]):
            text = command(name, "--group", GROUP, *option, database=database, expect=0).stdout
            assert not re.search("[\x00-\x09\x0b-\x1f\x80-\x9f]", text), (name, option)
            assert "[2J" in text


def test_history_shows_terms_newest_first_with_gaps(command, database, roster):
    ada, bob = roster[:2]
    ada.abdicate("scheduler-failed")
    bob.accede()
    text = command("history", "--group", GROUP, database=database, expect=0).stdout
    lines = text.splitlines()
    assert lines[1].split()[:2] == [str(bob.term), "bob"] and lines[1].endswith("still heir")
    assert lines[2].split()[:2] == [str(ada.term), "ada"] and lines[2].endswith("abdicated: scheduler-failed")
    assert re.search(r" \d+ ms  still heir$", lines[1]), lines[1]
    assert len(command("history", "--limit", "1", "--group", GROUP, database=database, expect=0).stdout.splitlines()) == 2
    terms = json.loads(command("history", "--json", "--group", GROUP, database=database, expect=0).stdout)
    assert [term["node"] for term in terms] == ["bob", "ada"] and terms[0]["gap_ms"] >= 0


def test_audit_of_an_abdication_and_a_takeover(command, database, roster):
    ada, bob = roster[:2]
    ada.abdicate("scheduler-failed")
    bob.accede()
    ada.accede()
    told = json.loads(command("audit", "--json", "--group", GROUP, database=database, expect=0).stdout)
    assert [(term["node"], term["ended_by"], term["presumed"]) for term in told["terms"]] == [
        ("ada", "abdicated", False), ("bob", "deposed", True), ("ada", None, False)]
    assert [term["gap_ms"] >= 0 for term in told["terms"][:2]] == [True, True] and told["terms"][2]["running"]


def test_news_are_one_event_a_line_in_order(command, database, roster):
    lines = command("news", "--group", GROUP, database=database, expect=0).stdout.splitlines()
    assert [line.split()[2:4] for line in lines] == [["registered", "ada"], ["registered", "bob"], ["registered", "cleo"],
                                                     ["registered", "dan"], ["acceded", "ada"]]
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z +5 acceded ada term={roster[0].term} reason=first "
                        rf"member_id={roster[0].member_id}", lines[4])
    latest = command("news", "--limit", "2", "--group", GROUP, database=database, expect=0).stdout.splitlines()
    assert latest == lines[-2:]
    assert command("news", "--from", "3", "--limit", "1", "--group", GROUP, database=database).stdout.splitlines() == [lines[3]]
    events = [json.loads(line) for line in command("news", "--json", "--group", GROUP, database=database).stdout.splitlines()]
    assert [event["data"]["sequence"] for event in events] == [1, 2, 3, 4, 5]
    assert events[4]["type"] == "heirflow.acceded" and events[4]["specversion"] == "1.0"


def test_news_from_the_start_passes_over_pages(command, database, roster):
    roster[1].heartbeat(news=[{"id": str(uuid.uuid4()), "event": "scheduler-started"} for _ in range(450)])
    lines = command("news", "--from", "0", "--group", GROUP, database=database, expect=0).stdout.splitlines()
    assert [int(line.split()[1]) for line in lines] == list(range(1, 456))


def follow(heirflow, database, folder):
    output = open(folder / "news", "w")
    return subprocess.Popen([heirflow, "news", "--follow", "--group", GROUP], stdout=output, stderr=subprocess.STDOUT,
                            env=clean_environment(HEIRFLOW_POSTGRES=database.dsn))


def test_news_follow_prints_what_happens_at_once(heirflow, database, roster, folder):
    following = follow(heirflow, database, folder)
    news = folder / "news"
    wait_for(lambda: news.read_text().count("\n") == 5)
    roster[0].abdicate("shutdown")
    wait_for(lambda: "abdicated ada" in news.read_text(), 1.5)  # sooner than the poll without notifications
    assert following.poll() is None


def test_news_follow_outlives_a_restart_of_the_database(heirflow, own_database, folder):
    Member(own_database, "ada")
    follow(heirflow, own_database, folder)
    news = folder / "news"
    wait_for(lambda: "registered ada" in news.read_text())
    own_database.server.stop()
    wait_for(lambda: "refused" in news.read_text())
    own_database.server.start()
    Member(own_database, "bob")
    wait_for(lambda: "registered bob" in news.read_text(), 20, news.read_text)
    assert news.read_text().count("registered ada") == 1
    assert news.read_text().count("refused") == 1


def test_news_follow_ends_with_its_reader(heirflow, database, roster):
    following = subprocess.Popen([heirflow, "news", "--follow", "--group", GROUP], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, env=clean_environment(HEIRFLOW_POSTGRES=database.dsn))
    assert [b"registered" in following.stdout.readline() for _ in roster] == [True] * 4
    assert b"acceded ada" in following.stdout.readline()  # the last for now: no write will find out that we are gone
    following.stdout.close()
    assert following.wait(15) == 0
    assert following.stderr.read() == b""
