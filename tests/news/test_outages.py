"""Broker or database go away in the middle: nothing is lost, order of first arrival is kept, and nobody waits for ever."""
from conftest import wait_for


def all_in_order(viewer, count, timeout=60):
    viewer.take_until(count, timeout)
    assert viewer.first_arrivals() == list(range(1, count + 1))


def test_broker_down_at_first(relay, outbox, database, own_rabbitmq, viewer):
    one = viewer(own_rabbitmq, durable=True)
    own_rabbitmq.stop()
    outbox.tell(500)
    ada = relay(database, own_rabbitmq)
    ada.wake()
    detail = ada.wait_for("news-unreachable")["detail"]
    assert f"127.0.0.1:{own_rabbitmq.port}/" in detail and "guest" not in detail
    own_rabbitmq.start()
    assert ada.wait_for("news-caught-up", 30)["published"] == 500
    one.open()
    all_in_order(one, 500)
    assert one.sequences() == one.first_arrivals()
    assert ada.words() == ["news-unreachable", "news-connected", "news-caught-up"]


def test_broker_killed_in_the_middle(relay, outbox, database, own_rabbitmq, viewer):
    one = viewer(own_rabbitmq, durable=True)
    outbox.tell(5000)
    ada = relay(database, own_rabbitmq)
    with outbox.halted_at(2000):
        ada.wake()
        outbox.wait_halted()
        own_rabbitmq.kill()
    ada.wait_for("news-unreachable")
    own_rabbitmq.start()
    ada.wait_for("news-caught-up", 60)
    one.open()
    all_in_order(one, 5000)


def test_broker_frozen_and_thawed(relay, outbox, database, own_rabbitmq, viewer):
    one = viewer(own_rabbitmq, durable=True)
    ada = relay(database, own_rabbitmq)
    outbox.tell(1)
    ada.wake()
    ada.wait_for("news-caught-up")
    own_rabbitmq.freeze()
    outbox.tell(2000, first=2)
    ada.wake()
    detail = ada.wait_for("news-unreachable", 30)["detail"]
    assert f"127.0.0.1:{own_rabbitmq.port}/" in detail
    own_rabbitmq.thaw()
    ada.wait_for("news-caught-up", 30, times=2)
    one.open()
    all_in_order(one, 2001)


def test_stop_does_not_wait_for_a_frozen_broker(relay, outbox, database, own_rabbitmq, viewer):
    viewer(own_rabbitmq)
    ada = relay(database, own_rabbitmq)
    outbox.tell(1)
    ada.wake()
    outbox.wait_published(1)
    own_rabbitmq.freeze()
    for number in range(8):  # more than the kernel's buffers take
        database.query("select tell(%s, 'left', 'ada', 'ada', 1, 'because', jsonb_build_object('text', repeat('x', 1000000)))",
                       outbox.group)
    ada.wake()
    count = "select count(*) from relay where claimed_at > (select max(told_at) from news)"
    wait_for(lambda: database.value(count), what="the relay to be at it")
    assert ada.stop(1000) < 1500
    assert outbox.published() == 1
    own_rabbitmq.thaw()


def test_memory_alarm_blocks_and_releases(relay, outbox, database, own_rabbitmq, viewer):
    one = viewer(own_rabbitmq, durable=True)
    ada = relay(database, own_rabbitmq)
    outbox.tell(1)
    ada.wake()
    ada.wait_for("news-caught-up")
    own_rabbitmq.rabbitmqctl("set_vm_memory_high_watermark", "0")
    try:
        outbox.tell(3000, first=2)
        ada.wake()
        detail = ada.wait_for("news-unreachable", 30)["detail"]
        assert "takes no messages" in detail and "memory" in detail
    finally:
        own_rabbitmq.rabbitmqctl("set_vm_memory_high_watermark", "0.6")
    ada.wait_for("news-caught-up", 30, times=2)
    assert ada.words() == ["news-connected", "news-caught-up", "news-unreachable", "news-connected", "news-caught-up"]
    one.open()
    all_in_order(one, 3001)
    assert one.sequences() == one.first_arrivals()


def test_database_killed_in_the_middle(relay, own_database, rabbitmq, viewer, outbox_of):
    outbox = outbox_of(own_database)
    one = viewer(rabbitmq)
    outbox.tell(5000)
    ada = relay(own_database, rabbitmq)
    with outbox.halted_at(2000):
        ada.wake()
        outbox.wait_halted()
        own_database.server.kill()
    detail = ada.wait_for("news-unreachable", 30)["detail"]
    assert str(own_database.server.port) in detail or "server" in detail
    own_database.server.start()
    ada.wait_for("news-caught-up", 60)
    all_in_order(one, 5000)


def test_stop_does_not_wait_for_a_frozen_database(relay, own_database, rabbitmq, outbox_of):
    outbox = outbox_of(own_database)
    ada = relay(own_database, rabbitmq)
    outbox.tell(1)
    ada.wake()
    ada.wait_for("news-caught-up")
    own_database.server.freeze()
    ada.wake()
    assert ada.stop(1000) < 1500
    own_database.server.thaw()


def test_idle_session_lost_is_no_news(relay, outbox, database, rabbitmq, viewer):
    one = viewer(rabbitmq)
    ada = relay(database, rabbitmq)
    outbox.tell(1)
    ada.wake()
    ada.wait_for("news-caught-up")
    ended = database.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'heirflow-news:%%'")
    assert len(ended) == 1
    outbox.tell(1, first=2)
    ada.wake()
    one.take_until(2)
    assert ada.words() == ["news-connected", "news-caught-up"]
