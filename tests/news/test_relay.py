"""Whatever becomes of the broker, the outbox arrives there: complete, in order, and once in calm."""


def test_all_arrive_once_in_order_at_every_viewer(relay, outbox, database, rabbitmq, viewer):
    viewers = [viewer(rabbitmq), viewer(rabbitmq)]
    outbox.tell(600)
    one = relay(database, rabbitmq)
    one.wake()
    outbox.wait_published(600)
    outbox.tell(400, event="left")
    one.wake()
    outbox.wait_published(1000)
    for each in viewers:
        each.take_until(1000)
        assert each.sequences() == list(range(1, 1001))
        assert each.received[0][0] == f"{outbox.group}.acceded" and each.received[-1][0] == f"{outbox.group}.left"
    assert viewers[0].received[7][2] == viewers[1].received[7][2]
    assert one.words()[:2] == ["news-connected", "news-caught-up"]
    assert one.states[1]["published"] == 600
    assert one.stop() < 1000
    assert one.words() == ["news-connected", "news-caught-up", "stopped"]
