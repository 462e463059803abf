"""What leaves the outbox reaches every viewer: complete, in order, and once in calm."""
import uuid

import pika


def gapless(count):
    return list(range(1, count + 1))


def test_all_arrive_once_in_order_at_every_viewer(relay, outbox, database, rabbitmq, viewer):
    viewers = [viewer(rabbitmq), viewer(rabbitmq)]
    outbox.tell(600)
    one = relay(database, rabbitmq)
    one.wake()
    outbox.wait_published(600)
    outbox.tell(400, event="left", first=601)
    one.wake()
    outbox.wait_published(1000)
    for each in viewers:
        each.take_until(1000)
        assert each.sequences() == gapless(1000)
        assert [key for key, _, _ in each.received] == [f"{outbox.group}.acceded"] * 600 + [f"{outbox.group}.left"] * 400
    assert [event for *_, event in viewers[0].received] == [event for *_, event in viewers[1].received]
    assert one.stop() < 1000
    assert one.words() == ["news-connected", "news-caught-up", "stopped"]
    assert one.states[1]["published"] == 600


def test_messages_are_persistent_cloudevents(relay, outbox, database, rabbitmq, viewer):
    one = viewer(rabbitmq, binding=f"{outbox.group}.deposed")
    outbox.tell(1, event="acceded")
    outbox.tell(1, event="deposed", first=2)
    relay(database, rabbitmq).wake()
    [(key, properties, event)] = one.take_until(2)
    assert key == f"{outbox.group}.deposed"
    assert properties.content_type == "application/cloudevents+json" and properties.delivery_mode == 2
    assert properties.message_id == event["id"] == str(uuid.UUID(event["id"]))
    assert event == database.value("select body from news_after(%s, 1, 1)", outbox.group)
    assert event["specversion"] == "1.0" and event["type"] == "heirflow.deposed" and event["subject"] == "ada"


def test_nothing_grows_without_a_viewer(relay, outbox, database, rabbitmq, viewer):
    outbox.tell(50)
    ada = relay(database, rabbitmq)
    ada.wake()
    outbox.wait_published(50)
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    connection.channel().exchange_delete(rabbitmq.exchange, if_unused=True)  # refused while a queue is bound
    connection.close()
    late = viewer(rabbitmq)
    outbox.tell(1, first=51)
    ada.wake()
    late.take_until(51)
    assert late.sequences() == [51]


def test_any_text_and_a_megabyte_survive(relay, outbox, database, rabbitmq, viewer):
    one = viewer(rabbitmq)
    outbox.tell(1, data='{"text": "Straße \\"quoted\\" \\\\ 日本 \\u0007 \\n"}')
    for number in range(2, 12):  # more than a batch's worth of bytes
        database.query("select tell(%s, 'left', 'ada', 'ada', 1, 'because', jsonb_build_object('text', repeat('é', 500000)))",
                       outbox.group)
    relay(database, rabbitmq).wake()
    one.take_until(11)
    assert one.sequences() == gapless(11)
    assert one.received[0][2]["data"]["text"] == 'Straße "quoted" \\ 日本 \x07 \n'
    assert all(event["data"]["text"] == "é" * 500000 for *_, event in one.received[1:])


def test_two_members_relay_without_doubles(relay, outbox, database, rabbitmq, viewer):
    one = viewer(rabbitmq)
    members = [relay(database, rabbitmq, node="ada"), relay(database, rabbitmq, node="bob")]
    for first in range(1, 2001, 100):
        outbox.tell(100, first=first)
        for number, each in enumerate(members, 1):
            each.wake(number)
    members[0].wake(1)
    members[1].wake(2)
    one.take_until(2000)
    assert one.sequences() == gapless(2000)


def test_claim_of_another_member_holds_until_it_is_old(relay, outbox, database, rabbitmq, viewer):
    one = viewer(rabbitmq)
    outbox.tell(1)
    database.query("update relay set member_id = 9, claimed_at = clock_timestamp()")
    bob = relay(database, rabbitmq, node="bob")
    bob.wake(2)
    bob.stop()
    assert one.take(lambda sequences: True) == []
    assert outbox.published() == 0 and database.value("select member_id from relay") == 9
    database.query("update relay set claimed_at = clock_timestamp() - interval '16 s'")
    relay(database, rabbitmq, node="bob").wake(2)
    one.take_until(1)


def test_last_words_go_out_before_the_end(relay, outbox, database, rabbitmq, viewer):
    one = viewer(rabbitmq)
    ada = relay(database, rabbitmq)
    outbox.tell(700)
    ada.wake()
    assert ada.stop(10000) < 10000
    assert outbox.published() == 700
    one.take_until(700)


def test_a_relay_that_is_not_woken_connects_to_nothing(relay, outbox, database, rabbitmq):
    count = "select count(*) from pg_stat_activity where application_name like 'heirflow-news:%%'"
    outbox.tell(1)
    asleep, awake = relay(database, rabbitmq, node="asleep"), relay(database, rabbitmq, node="awake")
    awake.wake()
    outbox.wait_published(1)
    assert database.query("select application_name from pg_stat_activity where application_name like 'heirflow-news:%%'"
                          ) == [(f"heirflow-news:{outbox.group}:awake",)]
    awake.stop()
    assert database.value(count) == 0
    assert asleep.stop() < 500


def test_the_second_broker_does(relay, outbox, database, rabbitmq, viewer):
    one = viewer(rabbitmq)
    outbox.tell(10)
    ada = relay(database, ["amqp://127.0.0.1:1/", rabbitmq.url], exchange=rabbitmq.exchange)
    ada.wake()
    one.take_until(10)
    ada.wait_for("news-caught-up")
    assert ada.words() == ["news-connected", "news-caught-up"]


def test_without_a_broker_configured_there_is_no_relay(relay, outbox, database):
    outbox.tell(1)
    ada = relay(database, [], exchange="heirflow.news")
    assert ada.stop() < 100
    assert ada.words() == ["stopped"]
