"""Real members: the heir relays, and another one when the heir cannot."""
import json
import os
import signal
from types import SimpleNamespace

from conftest import wait_for


def caught_up(database):
    return database.value("select (select published from relay) = (select last from news_counter)")


def test_a_standby_relays_when_the_heir_cannot(database, rabbitmq, wrapper, viewer):
    one = viewer(rabbitmq)
    ada = wrapper("ada", database, rabbitmq=SimpleNamespace(url="amqp://127.0.0.1:1/"))
    ada.wait_for_event("scheduler-started")
    bob = wrapper("bob", database, rabbitmq=rabbitmq)
    wait_for(lambda: caught_up(database), 30, bob.log)
    assert "news-unreachable" in ada.events() and "news-caught-up" in bob.events()
    last = database.value("select last from news_counter")
    one.take_until(last)
    assert one.sequences() == list(range(1, last + 1))


def test_no_doubles_through_a_succession(database, rabbitmq, wrapper, viewer):
    one = viewer(rabbitmq)
    ada = wrapper("ada", database, rabbitmq=rabbitmq)
    ada.wait_for_event("scheduler-started")
    bob = wrapper("bob", database, rabbitmq=rabbitmq)
    bob.wait_for_event("standby")
    cleo = wrapper("cleo", database, rabbitmq=rabbitmq)
    cleo.wait_for_event("standby")
    # what a slow broker has not confirmed by the end of a relay is published again
    wait_for(lambda: caught_up(database), 30, ada.log)
    ada.terminate()
    ada.wait()
    bob.wait_for_event("scheduler-started")
    wait_for(lambda: caught_up(database), 30, bob.log)
    bob.terminate()
    bob.wait()
    cleo.wait_for_event("scheduler-started")
    wait_for(lambda: caught_up(database), 30, cleo.log)
    last = database.value("select last from news_counter")
    one.take_until(last)
    assert one.sequences() == list(range(1, last + 1))


def reload(wrapper, rabbitmq):
    """Other brokers for a member that runs."""
    wrapper.configuration["rabbitmq"] = rabbitmq
    wrapper.config_path.write_text(json.dumps(wrapper.configuration))
    before = wrapper.events().count("reloaded")
    os.kill(wrapper.pid, signal.SIGHUP)
    wrapper.wait_for_event("reloaded", count=before + 1)


def make_news(database):
    """Two events."""
    database.query("select set_paused('tests', true)")
    database.query("select set_paused('tests', false)")


def test_brokers_named_at_run_time(database, rabbitmq, wrapper, viewer):
    one = viewer(rabbitmq)
    ada = wrapper("ada", database)
    ada.wait_for_event("scheduler-started")
    reload(ada, {"url": "amqp://127.0.0.1:1/", "exchange": rabbitmq.exchange})
    ada.wait_for_event("news-unreachable")
    reload(ada, {"url": rabbitmq.url, "exchange": rabbitmq.exchange})
    wait_for(lambda: caught_up(database), 30, ada.log)
    last = database.value("select last from news_counter")
    one.take_until(last)
    assert one.sequences() == list(range(1, last + 1))


def test_each_event_once_while_exchanges_change(database, rabbitmq, wrapper, viewer):
    first, second = rabbitmq.exchange, rabbitmq.exchange + ".second"
    viewers = [viewer(rabbitmq)]
    rabbitmq.exchange = second
    viewers.append(viewer(rabbitmq))
    ada = wrapper("ada", database, rabbitmq=SimpleNamespace(url=rabbitmq.url, exchange=first))
    ada.wait_for_event("scheduler-started")
    for turn in range(8):
        make_news(database)
        reload(ada, {"url": rabbitmq.url, "exchange": first if turn % 2 else second})
        make_news(database)
    wait_for(lambda: caught_up(database), 30, ada.log)
    last = database.value("select last from news_counter")
    for one in viewers:
        one.take(lambda sequences: True)
    assert sorted(one for each in viewers for one in each.sequences()) == list(range(1, last + 1))
