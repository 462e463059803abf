"""RabbitMQ stopped, frozen or out of memory stops no succession, and all news arrive in the end."""
import pytest

from world import CRASH


@pytest.mark.timeout(200)
@pytest.mark.parametrize("how", ["stopped", "frozen", "out of memory"])
def test_broker(world, how):
    world.postgres()
    broker = world.rabbitmq()
    ada, bert = world.group("ada", "bert")
    published = lambda: world.query("select (select published from relay) = (select last from news_counter)")[0][0]
    world.until(published, "the news to be published")
    world.claim(f"RabbitMQ {how} during a succession", CRASH)
    {"stopped": broker.kill, "frozen": broker.host.freeze, "out of memory": lambda: broker.watermark("0.00001")}[how]()
    ada.kill()
    world.until_runs("bert")
    world.steady(2)
    world.judge()
    {"stopped": broker.start, "frozen": broker.host.thaw, "out of memory": lambda: broker.watermark("0.4")}[how]()
    world.until(published, "all news to be published once the broker is back", 60)
