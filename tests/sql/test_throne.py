"""The throne: accession, renewal, abdication, and every way in which they are refused."""
import threading
import uuid

import pytest
from processes import wait_for


def test_first_accession_is_never_at_home_and_jumps(member, database):
    ada = member("ada")
    assert ada.view["home"] is False and ada.view["term"] == 0
    assert ada.accede()["acceded"]
    assert 1000 <= ada.view["term"] < 2000 and ada.view["home"] and ada.view["heir"] == ada.member_id
    assert database.value("select reason from news where event = 'acceded'") == "first"


def test_term_grows_by_one_at_home(line):
    ada, bob, cleo = line
    term = ada.view["term"]
    ada.abdicate()
    bob.beat()
    assert bob.view["home"] and bob.accede()["acceded"] and bob.view["term"] == term + 1


def test_term_jumps_past_all_that_was_seen(line, database):
    ada, bob, cleo = line
    ada.abdicate()
    database.query("update throne set identity = 'elsewhere/00000001/1' returning 1")
    cleo.beat(highest_term=70_000)
    assert not bob.beat()["home"]
    assert bob.accede(highest=60_000)["acceded"] and bob.view["term"] == 70_001


def test_identity_changes_with_a_restart(own_database, member):
    ada = member("ada", database=own_database)
    before = ada.accede()
    assert before["acceded"]
    own_database.server.restart()
    again = member("ada", database=own_database, seat=ada.seat, register=False)
    again.generation = ada.generation
    again.member_id, again.incarnation = ada.member_id, ada.incarnation
    renewed = again.beat(before["term"])
    assert renewed["renewed"], "the holder goes on"
    assert renewed["identity"] != before["identity"] and not renewed["home"]
    assert again.accede(identity=before["identity"])["refused"] == "changed"
    again.abdicate()
    again.register()
    assert again.accede()["acceded"] and again.view["term"] >= before["term"] + 1000 and again.view["home"]


@pytest.mark.parametrize("element, value", [
    ("identity", "1/00000001/1"), ("identity", None), ("heir", 999), ("heir", None),
    ("heir_incarnation", "00000000-0000-0000-0000-000000000000"), ("heir_incarnation", None), ("term", 1), ("beat", 99),
    ("term", None), ("beat", None),
])
def test_compares_the_whole_tuple(line, element, value):
    ada, bob, cleo = line
    assert bob.accede(**{element: value})["refused"] == "changed"
    assert bob.accede()["acceded"]


def test_a_renewal_defeats_a_takeover(line):
    ada, bob, cleo = line
    assert ada.beat(ada.view["term"])["renewed"]
    assert bob.accede()["refused"] == "changed" and bob.accede()["acceded"]


def race(database, first, second):
    """`first` keeps its accession uncommitted until `second` waits for the row; returns what second is told."""
    first.connection.autocommit = False
    assert first.accede()["acceded"]
    answer = []
    thread = threading.Thread(target=lambda: answer.append(second.accede(yields=True)))
    thread.start()
    wait_for(lambda: database.value("select count(*) from pg_stat_activity where wait_event_type = 'Lock' "
                                    "and datname = current_database()") == 1, what="the second to wait")
    return thread, answer


def test_two_candidates_race(line, database):
    ada, bob, cleo = line
    ada.abdicate()
    bob.beat(), cleo.beat()
    thread, answer = race(database, bob, cleo)
    bob.connection.commit()
    thread.join()
    assert answer[0]["acceded"] is False and answer[0]["refused"] == "changed" and answer[0]["heir"] == bob.member_id


def test_the_loser_wins_if_the_winner_rolls_back(line, database, events):
    ada, bob, cleo = line
    ada.abdicate()
    bob.beat(), cleo.beat()
    thread, answer = race(database, bob, cleo)
    bob.connection.rollback()
    thread.join()
    assert answer[0]["acceded"]
    assert [event[1] for event in events() if event[0] == "acceded"] == ["ada", "cleo"]


def test_renewal_that_waited_for_a_takeover_is_refused(line, database):
    ada, bob, cleo = line
    term = ada.view["term"]
    bob.connection.autocommit = False
    assert bob.accede()["acceded"]
    answer = []
    thread = threading.Thread(target=lambda: answer.append(ada.beat(term)))
    thread.start()
    wait_for(lambda: database.value("select count(*) from pg_stat_activity where wait_event_type = 'Lock' "
                                    "and datname = current_database()") == 1, what="the renewal to wait")
    bob.connection.commit()
    thread.join()
    assert answer[0]["renewed"] is False and answer[0]["heir"] == bob.member_id


def test_judgement_is_made_after_the_lock(line, database, ago):
    """An elder that speaks up while the candidate waits for the row counts."""
    ada, bob, cleo = line
    ago("bob", 9000)
    assert cleo.beat()["eldest"]
    blocker = database.connect()
    blocker.autocommit = False
    blocker.cursor().execute("select from heirflow.throne for update")
    answer = []
    thread = threading.Thread(target=lambda: answer.append(cleo.accede()))
    thread.start()
    wait_for(lambda: database.value("select count(*) from pg_stat_activity where wait_event_type = 'Lock' "
                                    "and datname = current_database()") == 1, what="the candidate to wait")
    bob.beat()
    blocker.rollback()
    thread.join()
    assert answer[0]["refused"] == "not-eldest"


def test_only_the_eldest(line, ago):
    ada, bob, cleo = line
    assert cleo.accede()["refused"] == "not-eldest"
    ago("bob", 9000)
    assert cleo.accede()["acceded"]


def test_seniority_yields(line):
    ada, bob, cleo = line
    assert cleo.accede(yields=True)["acceded"]


def test_unknown_and_held(line):
    ada, bob, cleo = line
    assert ada.accede()["refused"] == "held"
    cleo.incarnation = str(uuid.uuid4())
    assert cleo.accede(yields=True)["refused"] == "unknown"


def test_an_id_handed_out_twice_neither_holds_nor_blocks(line, database):
    ada, bob, cleo = line
    database.query("update roster set member_id = %s where node = 'bob' returning 1", ada.member_id)
    bob.member_id = ada.member_id
    assert bob.beat(ada.view["term"])["renewed"] is False
    assert bob.abdicate(ada.view["term"]) == {"held": False}
    assert cleo.beat()["eldest"] is False, "bob is before cleo"
    assert bob.accede()["acceded"]


def test_named_goes_first_for_a_third_of_the_lease(line, database):
    ada, bob, cleo = line
    ada.call("request_switchover", "g", "cleo")
    assert ada.beat(ada.view["term"])["request"] == "switchover"
    assert ada.abdicate(reason="switchover") == {"held": True, "successor": "cleo"}
    assert bob.beat()["held_back"] and bob.view["eldest"] and bob.accede()["refused"] == "held-back"
    assert cleo.beat()["named"] and not cleo.view["eldest"]
    database.query("update throne set named_at = named_at - interval '1.5 s' returning 1")
    assert bob.beat()["held_back"]
    database.query("update throne set named_at = named_at - interval '0.6 s' returning 1")
    assert not bob.beat()["held_back"] and not cleo.beat()["named"] and cleo.accede()["refused"] == "not-eldest"
    assert bob.accede()["acceded"]


def test_the_named_one_accedes_although_not_eldest(line):
    ada, bob, cleo = line
    ada.call("request_switchover", "g", "cleo")
    ada.abdicate()
    cleo.beat()
    assert cleo.accede()["acceded"] and not cleo.beat(cleo.view["term"])["request"]


def test_a_named_one_that_cannot_lead_holds_nobody_back(line, ago):
    ada, bob, cleo = line
    ada.abdicate()
    bob.beat(eligible=False)
    assert not cleo.beat()["held_back"] and cleo.accede()["acceded"]


def test_one_that_gave_its_term_back_holds_nobody_back(line):
    ada, bob, cleo = line
    ada.beat(ada.view["term"], version="2")  # seen just now
    ada.abdicate()
    bob.beat(eligible=False)
    assert cleo.beat()["eldest"]


def test_a_switchover_to_nobody_is_refused(line):
    ada, bob, cleo = line
    def refusal(target):
        reply = ada.call("request_switchover", "g", target)
        assert not reply["accepted"]
        return reply["refused"]
    assert ada.call("request_switchover", "g", "ada") == {"accepted": False, "already": True, "refused": "ada is the heir already"}
    assert refusal("nobody") == "there is no standby nobody; the standbys are bob, cleo"
    bob.beat(eligible=False, reason="cooling off")
    assert refusal("bob") == "bob cannot lead: cooling off"
    ada.call("set_retired", "g", "cleo", True)
    assert refusal("cleo") == "cleo cannot lead: retired"
    assert refusal(None) == "no standby can lead"
    bob.leave()
    cleo.leave()
    assert refusal("nobody") == "there is no standby nobody"


def test_who_asked_is_in_the_news(line, database):
    ada, bob, cleo = line
    ada.call("request_switchover", "g", "cleo"), ada.abdicate(reason="switchover")
    ada.call("set_paused", "g", True), ada.call("set_paused", "g", False)
    ada.call("set_retired", "g", "bob", True), ada.call("set_retired", "g", "bob", False), ada.call("set_lease", "g", 9000)
    told = dict(database.query("select event, data from news"))
    for event in ("abdicated", "paused", "resumed", "retired", "enlisted", "lease-changed"):
        assert told[event]["asked_by"] == "postgres" and told[event]["asked_from"] == "127.0.0.1", event
    assert told["lease-changed"]["lease_ms"] == 9000 and told["abdicated"]["successor"] == "cleo"


def test_an_abdication_that_nobody_asked_for_names_nobody(line, database):
    ada, bob, cleo = line
    ada.call("request_switchover", "g", "cleo"), ada.abdicate(reason="wrapper died")
    assert "asked_by" not in database.value("select data from news where event = 'abdicated'")


def test_abdication_is_idempotent_and_a_late_one_harmless(line, events):
    ada, bob, cleo = line
    term = ada.view["term"]
    assert ada.abdicate(term) == {"held": True, "successor": "bob"}
    assert ada.abdicate(term) == {"held": False}
    bob.beat()
    assert bob.accede()["acceded"]
    assert ada.abdicate(term) == {"held": False} and ada.abdicate(bob.view["term"]) == {"held": False}
    assert bob.abdicate(term) == {"held": False}
    assert bob.beat(bob.view["term"])["renewed"]
    assert len([event for event in events() if event[0] == "abdicated"]) == 1


def test_renewal_needs_member_incarnation_and_term(line):
    ada, bob, cleo = line
    term, beat = ada.view["term"], ada.view["beat"]
    assert ada.beat(term)["renewed"] and ada.view["beat"] == beat + 1
    for attribute, value in (("member_id", bob.member_id), ("incarnation", str(uuid.uuid4()))):
        kept = getattr(ada, attribute)
        setattr(ada, attribute, value)
        assert not ada.beat(term)["renewed"]
        setattr(ada, attribute, kept)
    assert not ada.beat(term - 1)["renewed"] and not ada.beat(term + 1)["renewed"]
    assert ada.beat(term)["beat"] == beat + 2
    assert ada.beat()["renewed"] is False and ada.view["beat"] == beat + 2, "without a term nothing is renewed"


def test_deposed(line, events, database):
    ada, bob, cleo = line
    term = ada.view["term"]
    assert bob.accede()["acceded"]
    assert not ada.beat(term)["renewed"] and ada.view["known"]
    assert ("deposed", "ada", "lease lapsed") in events()
    ended, began = database.query("select a.ended_at, b.began_at from terms a, terms b where a.term + 1 = b.term")[0]
    assert ended <= began, "a presumed end is no overlap"
    assert [(t["node"], t["ended_by"]) for t in ada.call("history", "g", 10)] == [("bob", None), ("ada", "deposed")]
    assert ada.call("history", "g", 1)[0]["gap_ms"] >= 0


def test_paused(line, database):
    ada, bob, cleo = line
    assert ada.call("set_paused", "g", True) and not ada.call("set_paused", "g", True)
    assert bob.beat()["paused"] and bob.accede(yields=True)["refused"] == "paused"
    assert ada.call("request_switchover", "g", None)["refused"] == "the group is paused"
    assert ada.call("set_retired", "g", "ada", True)["refused"] == "the group is paused"
    assert ada.beat(ada.view["term"])["renewed"], "the heir goes on"
    assert ada.abdicate() == {"held": True, "successor": None}
    bob.beat()
    assert bob.accede(yields=True)["refused"] == "paused"
    ada.register()
    assert ada.view["last_seat"] and ada.accede()["acceded"], "the last heir's seat, although the youngest"
    ada.abdicate()
    assert bob.call("set_paused", "g", False)
    bob.beat()
    assert bob.accede()["acceded"]


def test_a_pause_forgets_requests_but_not_a_retirement(line):
    ada, bob, cleo = line
    ada.call("request_switchover", "g", "cleo")
    ada.call("set_paused", "g", True)
    assert ada.beat(ada.view["term"])["request"] is None
    ada.call("set_paused", "g", False)
    assert ada.beat(ada.view["term"])["request"] is None
    ada.call("set_retired", "g", "ada", True)
    ada.call("set_paused", "g", True)
    ada.call("set_paused", "g", False)
    assert ada.beat(ada.view["term"])["request"] == "retire"
    assert ada.abdicate()["successor"] == "bob", "the forgotten switchover's target counts no more"


def test_lease_changes_with_the_next_accession(line):
    ada, bob, cleo = line
    assert ada.call("set_lease", "g", 9000)
    assert (bob.beat()["lease_ms"], bob.view["wait_ms"]) == (6000, 9000)
    ada.abdicate()
    bob.beat()
    bob.accede()
    assert (bob.view["lease_ms"], bob.view["wait_ms"]) == (9000, 9000)
    bob.call("set_lease", "g", 2000)
    assert (cleo.beat()["lease_ms"], cleo.view["wait_ms"]) == (9000, 9000)


def test_the_hint_falls_just_after_the_heirs_next_beat(line):
    ada, bob, cleo = line
    ada.beat(ada.view["term"])
    assert 500 < bob.beat()["beat_in_ms"] <= 1000 + 15 + 3


def test_a_standby_takes_no_lock_on_the_throne(line, database):
    ada, bob, cleo = line
    blocker = database.connect()
    blocker.autocommit = False
    blocker.cursor().execute("select from heirflow.throne for update")
    bob.connection.cursor().execute("set lock_timeout = 1000")
    assert bob.beat()["known"]
    assert bob.beat(news=[{"event": "scheduler-exited", "id": str(uuid.uuid4())}])["known"]
    blocker.rollback()
