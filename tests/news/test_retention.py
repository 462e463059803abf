"""Old news are removed by the heir's relay."""
import uuid

from conftest import wait_for


def enthrone(database, outbox, member=1):
    database.query("insert into throne (group_name, lease_ms, member_id, incarnation, term) values (%s, 6000, %s, %s, 1)",
                   outbox.group, member, str(uuid.uuid4()))


def age(database, days, up_to):
    database.query("update news set told_at = told_at - %s * interval '1 day' where sequence <= %s", days, up_to)


def kept(database):
    return [row[0] for row in database.query("select sequence from news order by 1")]


def test_the_heir_removes_what_is_old_and_out(relay, outbox, database, rabbitmq, viewer):
    one = viewer(rabbitmq)
    enthrone(database, outbox)
    outbox.tell(1200)
    ada = relay(database, rabbitmq, retention_days=30)
    ada.wake()
    outbox.wait_published(1200)
    age(database, 40, 1100)
    outbox.tell(10, first=1201)
    age(database, 40, 1210)  # 1201 to 1210 are old, but not out yet
    database.query("update news set told_at = clock_timestamp() where sequence between 1101 and 1200")
    ada.reign(1)
    wait_for(lambda: kept(database) == list(range(1101, 1211)), 30, lambda: kept(database)[:1])
    one.take_until(1200)
    assert "news-kept" not in ada.words()


def test_without_a_broker_only_the_age_counts(relay, outbox, database):
    enthrone(database, outbox)
    outbox.tell(20)
    age(database, 40, 10)
    ada = relay(database, [], exchange="heirflow.news", retention_days=30)
    ada.reign(1)
    wait_for(lambda: kept(database) == list(range(11, 21)), 30)
    ada.wake()
    assert ada.stop() < 500
    assert ada.words() == ["stopped"]


def test_a_database_that_does_not_let_it_is_told_once(relay, outbox, database):
    enthrone(database, outbox)
    database.query("drop function forget(text, bigint, integer, boolean, integer)")
    ada = relay(database, [], exchange="heirflow.news")
    ada.reign(1)
    assert "forget" in ada.wait_for("news-kept")["detail"]


def test_the_retention_of_a_real_heir(database, wrapper):
    ada = wrapper("ada", database)
    wait_for(lambda: database.value("select count(*) from news where event = 'scheduler-started'"), 30, "all news")
    last = database.value("select last from news_counter")
    age(database, 100, last)
    wait_for(lambda: kept(database)[:1] == [last], 30, lambda: (kept(database), ada.log()))
