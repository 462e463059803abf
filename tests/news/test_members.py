"""Real members: the heir relays, and another one when the heir cannot."""
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
    ada.terminate()
    ada.wait()
    bob.wait_for_event("scheduler-started")
    bob.terminate()
    bob.wait()
    cleo.wait_for_event("scheduler-started")
    wait_for(lambda: caught_up(database), 30, cleo.log)
    last = database.value("select last from news_counter")
    one.take_until(last)
    assert one.sequences() == list(range(1, last + 1))
