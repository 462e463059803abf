"""Brokers that do not let us in: one clear text with broker, cause and remedy, never a password, and later retries."""
import json
import subprocess
import uuid

import pika
import pytest

import wrapper as wrappers


def unreachable(relay, database, url, exchange="heirflow.news"):
    ada = relay(database, url, exchange=exchange)
    ada.wake()
    return ada.wait_for("news-unreachable")["detail"], ada


def test_wrong_password(relay, outbox, database, rabbitmq):
    outbox.tell(1)
    detail, _ = unreachable(relay, database, f"amqp://guest:s3cret@127.0.0.1:{rabbitmq.port}/")
    assert f"127.0.0.1:{rabbitmq.port}/" in detail and "check user and password" in detail
    assert "s3cret" not in detail and "guest" not in detail


def test_missing_virtual_host(relay, outbox, database, rabbitmq):
    outbox.tell(1)
    detail, _ = unreachable(relay, database, rabbitmq.url + "nowhere")
    assert f"127.0.0.1:{rabbitmq.port}/nowhere" in detail and "add_vhost" in detail


def test_exchange_of_another_type(relay, outbox, database, rabbitmq):
    outbox.tell(1)
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    connection.channel().exchange_declare(rabbitmq.exchange, "fanout", durable=True)
    connection.close()
    detail, _ = unreachable(relay, database, rabbitmq.url, rabbitmq.exchange)
    assert rabbitmq.exchange in detail and "delete that exchange" in detail and "rabbitmq.exchange" in detail


def test_nobody_listens_and_no_such_host(relay, outbox, database):
    outbox.tell(1)
    detail, ada = unreachable(relay, database, ["amqp://u:s3cret@127.0.0.1:1/", "amqp://u:s3cret@nowhere.invalid/"])
    assert "127.0.0.1:1/ cannot be reached" in detail and "nowhere.invalid:5672/: the host name is unknown" in detail
    assert "s3cret" not in detail
    assert ada.stop(3000) < 3000
    assert ada.words().count("news-unreachable") == 1
    assert outbox.published() == 0


def test_something_else_listens_there(relay, outbox, database, postgres):
    outbox.tell(1)
    detail, _ = unreachable(relay, database, f"amqp://127.0.0.1:{postgres.port}/")
    assert "AMQP" in detail


@pytest.mark.parametrize("url", ["garbage s3cret", "amqp://u:s3cret@host:99999999/", "amqp://u:%zzs3cret@host/",
                                 "amqps://u:s3cret@host:0/", "http://u:s3cret@host/"])
def test_unusable_urls_are_refused_before_anything_starts(build, folder, url):
    path = folder / "garbage.json"
    path.write_text(json.dumps({"node": "ada", "rabbitmq": {"url": url}}))
    path.chmod(0o600)
    result = subprocess.run([build / "tests" / "news" / "relay", path], env=wrappers.clean_environment(), input="",
                            capture_output=True, text=True, timeout=10)
    assert result.returncode == 2 and "rabbitmq.url" in result.stderr and "s3cret" not in result.stderr


def test_user_without_configure_permission_uses_an_existing_exchange(relay, outbox, database, rabbitmq, viewer):
    user = f"news{uuid.uuid4().hex}"
    url = f"amqp://{user}:pw@127.0.0.1:{rabbitmq.port}/"
    rabbitmq.rabbitmqctl("add_user", user, "pw")
    try:
        rabbitmq.rabbitmqctl("set_permissions", user, "^$", ".*", "^$")
        outbox.tell(3)
        detail, ada = unreachable(relay, database, url, rabbitmq.exchange)
        assert "create it" in detail and rabbitmq.exchange in detail
        one = viewer(rabbitmq)  # the first three may be published before its queue is bound to the exchange it made
        ada.wait_for("news-caught-up")
        outbox.tell(3)
        ada.wake()
        one.take_until(6)
        assert one.sequences()[-3:] == [4, 5, 6]
        ada.stop()
    finally:
        rabbitmq.rabbitmqctl("delete_user", user)


def test_database_without_schema(relay, empty_database, rabbitmq):
    detail, _ = unreachable(relay, empty_database, rabbitmq.url, rabbitmq.exchange)
    assert "claiming the news" in detail and "relay_claim" in detail


def test_an_event_that_the_broker_refuses_is_reported_and_tried_again(relay, outbox, database, rabbitmq, viewer):
    one = viewer(rabbitmq)
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    channel, full = connection.channel(), f"full-{uuid.uuid4()}"
    channel.queue_declare(full, exclusive=True, arguments={"x-max-length": 3, "x-overflow": "reject-publish"})
    channel.queue_bind(full, rabbitmq.exchange, "#")
    outbox.tell(200)
    ada = relay(database, rabbitmq)
    ada.wake()
    detail = ada.wait_for("news-unreachable")["detail"]
    assert "refused an event" in detail and rabbitmq.exchange in detail
    one.take(lambda sequences: sequences.count(4) >= 3)
    again = one.sequences().index(4, one.sequences().index(4) + 1)
    assert set(one.sequences()[again:]) == {4}, "not all of the rest again and again"
    channel.queue_delete(full)
    connection.close()
    ada.wait_for("news-caught-up", 30)
    one.take(lambda sequences: sequences[-1] == 200)
    assert one.first_arrivals() == list(range(1, 201))
