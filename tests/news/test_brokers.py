"""A list of brokers: the nodes spread over them, and one that goes away is left within its heartbeat."""
import time

from conftest import wait_for


def test_the_order_is_random(relay, outbox, database):
    outbox.tell(1)
    urls = [f"amqp://127.0.0.1:{port}/" for port in (1, 2, 3)]

    def first():
        ada = relay(database, urls)
        ada.wake()
        detail = ada.wait_for("news-unreachable")["detail"]
        assert all(f"127.0.0.1:{port}/" in detail for port in (1, 2, 3))
        return detail[:30]
    begun = first()
    wait_for(lambda: first() != begun, 60)


def relay_at(broker, others, relay, database):
    """A relay that is connected to this one of them."""
    while True:
        ada = relay(database, [broker.url, *(other.url for other in others)], exchange=broker.exchange)
        ada.wake()
        if f":{broker.port}/" in ada.wait_for("news-connected")["detail"]:
            ada.wait_for("news-caught-up")
            return ada
        ada.stop()


def test_a_frozen_broker_is_left_within_its_heartbeat(relay, outbox, database, own_rabbitmq, rabbitmq, viewer):
    rabbitmq.exchange = own_rabbitmq.exchange
    one = viewer(rabbitmq)
    outbox.tell(1)
    ada = relay_at(own_rabbitmq, [rabbitmq], relay, database)
    own_rabbitmq.freeze()
    frozen_at = time.monotonic()
    outbox.tell(100, first=2)
    ada.wake()
    one.take_until(101)
    assert time.monotonic() - frozen_at < 7.5
    detail = ada.wait_for("news-unreachable")["detail"]
    assert f"127.0.0.1:{own_rabbitmq.port}/" in detail and "no sign of life" in detail
    assert f":{rabbitmq.port}/" in ada.wait_for("news-connected", times=2)["detail"]
    assert one.sequences()[-100:] == list(range(2, 102))


def test_a_frozen_broker_that_takes_nothing_more_is_left_too(relay, outbox, database, own_rabbitmq, rabbitmq, viewer):
    """More than fits into the buffers between us: the relay hangs in a send."""
    rabbitmq.exchange = own_rabbitmq.exchange
    one = viewer(rabbitmq)
    outbox.tell(1)
    ada = relay_at(own_rabbitmq, [rabbitmq], relay, database)
    own_rabbitmq.freeze()
    for _ in range(8):
        database.query("select tell(%s, 'left', 'ada', 'ada', 1, 'because', jsonb_build_object('text', repeat('x', 1000000)))",
                       outbox.group)
    frozen_at = time.monotonic()
    ada.wake()
    one.take_until(9)
    assert time.monotonic() - frozen_at < 9
    assert "took nothing" in ada.wait_for("news-unreachable")["detail"]
