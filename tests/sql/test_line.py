"""The line: who is in it, in which order, and who may lead."""
import threading
import uuid

import psycopg2
import pytest
from processes import wait_for


def test_a_new_group_is_founded_with_the_first_registrant(member, database, events):
    ada = member("ada", lease_ms=1500)
    assert ada.view | {"beat_in_ms": None} == ada.view
    assert (ada.view["known"], ada.view["home"], ada.view["heir"], ada.view["term"], ada.view["lease_ms"]) \
        == (True, False, None, 0, 1500)
    assert ada.view["eldest"] and ada.view["rank"] == 0
    bob = member("bob", lease_ms=9000)
    assert bob.view["lease_ms"] == 1500 and not bob.view["eldest"] and bob.view["rank"] == 1
    assert bob.member_id > ada.member_id
    assert events() == [("registered", "ada", None), ("registered", "bob", None)]


def test_equal_generation_is_idempotent(member, events):
    ada = member("ada")
    first = ada.member_id, ada.incarnation
    ada.register(generation=1, incarnation=str(uuid.uuid4()))
    assert (ada.member_id, ada.incarnation) == first
    assert events() == [("registered", "ada", None)]


def test_a_late_registration_is_refused(member, events):
    ada = member("ada")
    ada.register()
    now = ada.member_id
    assert ada.register(generation=1)["refused"] == "superseded"
    assert ada.register(generation=2)["member_id"] == now
    assert len(events()) == 2


def test_the_next_registration_goes_to_the_end(member):
    ada, bob = member("ada"), member("bob")
    before = ada.incarnation
    ada.register()
    assert ada.member_id > bob.member_id and ada.view["rank"] == 1
    assert bob.beat()["eldest"]
    ada.incarnation = before  # the superseded registrant is nobody
    assert not ada.beat()["known"]


def test_the_next_registration_of_the_heirs_seat_vacates(line, events):
    ada, bob, cleo = line
    ada.register()
    assert ada.view["heir"] is None and ada.view["named"] is False and ada.view["held_back"]
    assert bob.beat()["named"] and cleo.beat()["held_back"]
    assert ("abdicated", "ada", "restarted") in events()
    assert bob.accede()["acceded"] and bob.view["term"] == 1 + ada.view["term"]


def test_the_same_registration_again_does_not_vacate(line):
    ada, bob, cleo = line
    term = ada.view["term"]
    ada.register(generation=ada.generation)
    assert ada.view["heir"] == ada.member_id and ada.view["term"] == term


def test_a_seat_of_another_group_is_another_seat(member):
    ada = member("ada")
    other = member("ada", group="other", seat=ada.seat)
    assert ada.beat()["known"] and other.beat()["known"] and other.view["eldest"]


def test_heartbeat_of_a_stranger(member):
    ada = member("ada")
    ada.incarnation = str(uuid.uuid4())
    assert ada.beat()["known"] is False


def test_a_group_that_a_failover_lost_is_founded_again(member, database):
    ada = member("ada", lease_ms=1800)
    for table in ("throne", "roster", "news", "news_counter", "relay"):
        database.query(f"delete from {table} returning 1")
    lost = ada.beat(term=7)
    assert (lost["known"], lost["renewed"], lost["term"], lost["heir"], lost["lease_ms"], lost["wait_ms"]) \
        == (False, False, 0, None, 1800, 1800)
    assert ada.register()["known"]


@pytest.mark.parametrize("call", ["heartbeat", "abdicate"])
def test_news_of_a_group_that_is_gone_stand_in_nobodys_way(member, database, events, call):
    ada = member("ada")
    ada.accede()
    database.query("truncate throne, roster, terms, news, news_counter, relay")
    news = [{"event": "fenced", "id": str(uuid.uuid4()), "term": 1, "reason": "deposed"}]
    if call == "heartbeat":
        assert ada.beat(term=1, news=news)["known"] is False
    else:
        assert ada.call("abdicate", "g", ada.member_id, ada.incarnation, 1, "deposed", "ada", news) == {"held": False}
    ada.register()
    assert ada.accede()["acceded"]
    assert [event for event, *_ in events()] == ["fenced", "registered", "acceded"]


def test_an_ineligible_member_is_passed_over(line, ago):
    ada, bob, cleo = line
    ada.beat(eligible=True)
    bob.beat(eligible=False, reason="cooling off")
    assert cleo.beat()["eldest"] and cleo.view["rank"] == 1
    assert not bob.beat(eligible=True)["known"] is False and not cleo.beat()["eldest"]


def test_a_silent_member_is_passed_over_and_told_as_lost_once(line, ago, events):
    ada, bob, cleo = line
    ago("bob", 5000)
    assert not cleo.beat()["eldest"]
    ago("bob", 1500)
    assert cleo.beat()["eldest"] and cleo.view["rank"] == 0
    for _ in range(2):
        ada.beat(ada.view["term"])
    assert [event for event in events() if event[0] == "lost"] == [("lost", "bob", "not seen for a lease")]
    assert not (bob.beat(), cleo.beat())[1]["eldest"]


def test_a_lease_that_was_put_back_keeps_no_silent_member_in_the_line(line, ago, events):
    ada, bob, cleo = line
    assert ada.call("set_lease", "g", 600000) and ada.call("set_lease", "g", 6000)
    ago("bob", 6500)
    assert cleo.beat()["eldest"] and (cleo.view["accession_lease_ms"], cleo.view["wait_ms"]) == (6000, 600000)
    ada.beat(ada.view["term"])
    assert ("lost", "bob", "not seen for a lease") in events()


def test_a_renewal_does_not_wait_for_a_locked_member(line, ago, database):
    ada, bob, cleo = line
    ago("bob", 9000)
    with database.connect() as blocker:
        blocker.autocommit = False
        blocker.cursor().execute("select from heirflow.roster where node = 'bob' for update")
        ada.connection.cursor().execute("set lock_timeout = 1000")
        assert ada.beat(ada.view["term"])["renewed"]
        blocker.rollback()


def test_seen_in_the_future_is_not_live(line, ago):
    ada, bob, cleo = line
    ago("bob", -1500)
    assert not cleo.beat()["eldest"]
    ago("bob", -1500)
    assert cleo.beat()["eldest"]


def test_purge_takes_the_long_gone_but_never_the_holder(line, ago, database, member):
    ada, bob, cleo = line
    ago("ada", 90_000_000), ago("bob", 90_000_000)
    member("dora")
    assert database.query("select node from roster order by member_id") == [("ada",), ("cleo",), ("dora",)]
    assert bob.beat()["known"] is False and ada.beat(ada.view["term"])["renewed"]


def test_registration_and_a_heartbeat_with_news_do_not_deadlock(line, database):
    """Lock order throne, roster, counter: the superseding registration of the holder against its old heartbeat."""
    ada, bob, cleo = line
    old = database.connect()
    old.autocommit = False
    with old.cursor() as cursor:
        cursor.execute("set search_path = heirflow, pg_temp; set deadlock_timeout = '100ms'")
        cursor.execute("update roster set seen_at = clock_timestamp() where node = 'ada'")
        failure = []

        def register():
            try:
                ada.register()
            except psycopg2.Error as error:
                failure.append(error)
        thread = threading.Thread(target=register)
        ada.connection.cursor().execute("set deadlock_timeout = '100ms'")
        thread.start()
        wait_for(lambda: database.value("select count(*) from pg_stat_activity where wait_event_type = 'Lock' "
                                        "and datname = current_database()"), what="the registration to wait")
        cursor.execute("select tell('g', 'x', 'ada', 'ada', null, null)")
        old.commit()
        thread.join()
        assert not failure


def test_leaving(line, events):
    ada, bob, cleo = line
    assert ada.leave() == {"left": False}
    assert bob.leave() == {"left": True} and bob.leave() == {"left": True}
    assert [event for event in events() if event[0] == "left"] == [("left", "bob", "test")]
    assert not bob.beat()["known"] and cleo.beat()["eldest"]
    assert bob.register(generation=bob.generation)["refused"] == "superseded"
    assert bob.register()["known"]


def test_retired_is_of_the_node_and_survives(line, member, events):
    ada, bob, cleo = line
    assert ada.call("set_retired", "g", "bob", True) == {"accepted": True, "changed": True, "term": ada.view["term"], "heir": False}
    assert not ada.call("set_retired", "g", "bob", True)["changed"]
    assert bob.beat()["retired"] and cleo.beat()["eldest"]
    bob.register()
    assert bob.view["retired"]
    ada.abdicate()
    assert cleo.beat()["named"]
    bob.beat()
    assert bob.accede()["refused"] == "retired"
    assert [event[:2] for event in events() if event[0] == "retired"] == [("retired", "bob")]


def test_enlisted_joins_at_the_end(line, events):
    ada, bob, cleo = line
    ada.call("set_retired", "g", "bob", True)
    assert ada.call("set_retired", "g", "bob", False)["changed"]
    assert not bob.beat()["known"]
    bob.register()
    assert not bob.view["retired"] and not bob.view["eldest"] and cleo.beat()["eldest"]
    assert ("enlisted", "bob", None) in events()


def test_retiring_the_heir_asks_it(line):
    ada, bob, cleo = line
    ada.call("set_retired", "g", "ada", True)
    assert ada.beat(ada.view["term"])["request"] == "retire" and bob.beat()["request"] is None
    ada.call("set_retired", "g", "ada", False)
    assert ada.beat(ada.view["term"])["request"] is None and ada.view["known"]


def test_operators_on_a_group_that_does_not_exist(member):
    ada = member("ada")
    assert ada.call("set_retired", "nope", "x", True)["refused"] == "there is no such group"
    assert ada.call("request_switchover", "nope", None)["refused"] == "there is no such group"
    assert ada.call("set_paused", "nope", True) is False and ada.call("set_lease", "nope", 5000) is False
    assert ada.call("status", "nope") is None


def test_status_tells_why_each_is_not_the_heir(line, member, ago):
    ada, bob, cleo = line
    dora, emil, fay = member("dora"), member("emil"), member("fay")
    dora.beat(eligible=False, reason="cooling off")
    ada.call("set_retired", "g", "emil", True)
    ago("fay", 9000)
    ada.beat(ada.view["term"], scheduler={"state": "running", "pid": 42})
    status = ada.call("status", "g")
    assert [(m["rank"], m["node"], m["role"], m["reason"]) for m in status["members"]] == [
        (1, "ada", "heir", None), (2, "bob", "standby", "next in line"), (3, "cleo", "standby", "1 older in line"),
        (4, "dora", "standby", "cooling off"), (5, "fay", "standby", "not seen for a lease"),
        (6, "emil", "retired", "retired")]
    assert status["heir"] == {"node": "ada", "member_id": ada.member_id}
    assert status["members"][0]["scheduler"] == {"state": "running", "pid": 42} and status["term"] == ada.view["term"]
    assert 0 <= status["members"][0]["seen_ms_ago"] < 5000
    ada.call("set_paused", "g", True)
    assert [m["reason"] for m in ada.call("status", "g")["members"]][1] == "paused"
    ada.abdicate()
    assert ada.call("status", "g")["heir"] is None


def test_status_shows_a_scheduler_only_where_a_lease_lasts(line, database):
    ada, bob, cleo = line
    ada.beat(ada.view["term"], scheduler={"state": "running", "pid": 42})

    def seen():
        return [(m["node"], m["role"], m["live"], m["scheduler"] is not None, m["reason"])
                for m in ada.call("status", "g")["members"]]
    database.query("update roster set seen_at = seen_at - interval '9 seconds' where node = 'ada' returning 1")
    assert seen()[0] == ("ada", "heir", True, True, None), "a renewal is enough"
    assert ada.call("groups")[0]["live"] == 3
    database.query("update throne set renewed_at = renewed_at - interval '7 seconds' returning 1")
    assert seen()[0] == ("ada", "heir", False, False, "lease lapsed")
    assert ada.call("groups")[0]["live"] == 2
    bob.beat()
    assert bob.accede()["acceded"]
    assert seen() == [("bob", "heir", True, False, None), ("cleo", "standby", True, False, "next in line"),
                      ("ada", "standby", False, False, "not seen for a lease")]


@pytest.mark.parametrize("lease", [0, 99, None])
def test_a_group_is_not_founded_with_a_senseless_lease(member, lease):
    with pytest.raises(psycopg2.errors.IntegrityError):
        member("ada", register=False).call("register", "g", str(uuid.uuid4()), 1, str(uuid.uuid4()), "ada", lease, {})
