"""The outbox: gap-free sequences, each event once, and one relay at a time."""
import threading
import uuid

import psycopg2
from processes import wait_for


def test_no_gap_under_concurrent_sessions_and_rollbacks(member, database, events):
    member("ada")
    failures = []

    def work(number):
        try:
            connection = database.connect()
            with connection.cursor() as cursor:
                cursor.execute("set search_path = heirflow, pg_temp")
                connection.autocommit = False
                for turn in range(30):
                    cursor.execute("select tell('g', 'x', %s, 'n', null, null)", (f"{number}-{turn}",))
                    connection.rollback() if turn % 3 == 0 else connection.commit()
            connection.close()
        except psycopg2.Error as error:
            failures.append(error)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    told = [event[1] for event in events() if event[0] == "x"]
    assert sorted(told) == sorted(f"{number}-{turn}" for number in range(8) for turn in range(30) if turn % 3)
    for number in range(8):  # commits are in the order of the sequences
        mine = [int(name.split("-")[1]) for name in told if name.startswith(f"{number}-")]
        assert mine == sorted(mine)


def test_a_visible_event_has_no_invisible_elder(member, database):
    """Whoever told first commits first: a second session waits for the first one's commit."""
    member("ada")
    first, second = database.connect(), database.connect()
    first.autocommit = False
    with first.cursor() as cursor:
        cursor.execute("set local search_path = heirflow; select tell('g', 'x', 'a', 'a', null, null)")
    with second.cursor() as cursor:
        cursor.execute("set search_path = heirflow; set lock_timeout = 100")
        try:
            cursor.execute("select tell('g', 'y', 'b', 'b', null, null)")
            raise AssertionError("did not wait")
        except psycopg2.errors.LockNotAvailable:
            pass
    first.commit()


def test_once_per_id(member, events, database):
    ada = member("ada")
    once, other = (str(uuid.uuid4()) for _ in range(2))
    news = [{"event": "scheduler-exited", "id": once, "reason": "r", "term": 3, "data": {"status": 1}},
            {"event": "scheduler-started", "id": other}]
    ada.beat(news=news)
    ada.beat(news=news)
    assert events()[1:] == [("scheduler-exited", "ada", "r"), ("scheduler-started", "ada", None)]
    assert database.query("select term, data, source from news where id = %s", once) == [(3, {"status": 1}, "ada")]


def test_once_per_id_when_the_lost_request_still_runs(member, database, events):
    """The same news twice at the same time: the repetition waits for the first and then tells nothing."""
    ada = member("ada")
    news = [{"event": "x", "id": str(uuid.uuid4())}]
    late = member("ada", seat=ada.seat, register=False)
    late.member_id, late.incarnation = ada.member_id, ada.incarnation
    late.connection.autocommit = False
    late.beat(news=news)
    thread = threading.Thread(target=lambda: ada.beat(news=news))
    thread.start()
    late.connection.commit()
    thread.join()
    assert [event[0] for event in events()] == ["registered", "x"]


def test_an_event_shares_the_fate_of_its_change(line, events):
    ada, bob, cleo = line
    before = events()
    ada.connection.autocommit = False
    ada.abdicate()
    ada.connection.rollback()
    assert events() == before


def test_news_are_cloudevents(line, database):
    ada, bob, cleo = line
    ada.call("set_paused", "g", True)
    rows = database.query("select sequence, event, body from news_after('g', 3, 10)")
    assert [row[:2] for row in rows] == [(4, "acceded"), (5, "paused")]
    body = rows[0][2]
    assert body | {"id": "", "time": "", "data": {}} == {
        "specversion": "1.0", "id": "", "source": "/heirflow/g/ada", "type": "heirflow.acceded", "subject": "ada", "time": "",
        "datacontenttype": "application/json", "data": {}}
    assert uuid.UUID(body["id"]) and body["time"].endswith("Z") and body["data"]["sequence"] == 4
    assert body["data"]["term"] == ada.view["term"] and body["data"]["reason"] == "first"
    assert rows[1][2]["subject"] == "g", "CloudEvents forbids an empty subject"
    assert database.value("select news_last('g')") == 5
    assert database.query("select sequence from news_after('g', 0, 2)") == [(1,), (2,)]


def test_one_relay_at_a_time(line, database):
    ada, bob, cleo = line
    assert bob.call("relay_claim", "g", bob.member_id, 5000)["granted"]
    assert not cleo.call("relay_claim", "g", cleo.member_id, 5000)["granted"]
    assert bob.call("relay_claim", "g", bob.member_id, 5000) == {"granted": True, "published": 0}
    assert bob.call("relay_published", "g", bob.member_id, 3) and bob.beat()["unpublished"] == 1
    assert not cleo.call("relay_published", "g", cleo.member_id, 4) and bob.beat()["unpublished"] == 1
    assert bob.call("relay_published", "g", bob.member_id, 2) and bob.beat()["unpublished"] == 1, "never backwards"
    database.query("update relay set claimed_at = claimed_at - interval '6 s' returning 1")
    assert cleo.call("relay_claim", "g", cleo.member_id, 5000) == {"granted": True, "published": 3}
    assert not bob.call("relay_published", "g", bob.member_id, 4)
    assert not cleo.call("relay_claim", "nope", 1, 5000)["granted"]


def test_what_has_not_been_told_is_not_published(line):
    """A relay's late word from before a lossy failover must not skip the events that get those sequences now."""
    ada, bob, cleo = line
    bob.call("relay_claim", "g", bob.member_id, 5000)
    bob.call("relay_published", "g", bob.member_id, 1000)
    assert bob.beat()["unpublished"] == 0
    ada.abdicate()
    assert bob.beat()["unpublished"] == 1


def test_commits_wake_listeners(line, database):
    ada, bob, cleo = line
    listener = database.connect()
    listener.cursor().execute("listen heirflow_wake; listen heirflow_news")
    ada.beat(ada.view["term"]), bob.beat()
    ada.abdicate()

    def heard():
        listener.poll()
        return len(listener.notifies) >= 2
    wait_for(heard)
    # notifications come in the order of the commits: had a heartbeat sent any, it would be among the first
    assert sorted((notify.channel, notify.payload) for notify in listener.notifies[:2]) == [
        ("heirflow_news", "g"), ("heirflow_wake", f'{{"group" : "g", "member_id" : {bob.member_id}}}')]
