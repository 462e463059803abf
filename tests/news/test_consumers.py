"""Whoever listens: the example consumer works, and no queue is of a kind that RabbitMQ 4 rejects."""
import json
import os
import pty
import re
import subprocess
import sys

import pika
import pytest

import wrapper as wrappers
from conftest import GROUP, wait_for

SOURCE = wrappers.processes.__file__.rsplit("/", 2)[0]


@pytest.fixture
def consumer(build, database, folder):
    """config/examples/consumer.py as its head says."""
    def start(broker, queue):
        environment = wrappers.clean_environment(HEIRFLOW_POSTGRES=database.dsn)
        environment["PATH"] = f"{build}/heirflow:{environment['PATH']}"
        return subprocess.Popen([sys.executable, f"{SOURCE}/config/examples/consumer.py", broker.url, GROUP, queue],
                                stdout=open(folder / "consumed", "wb"), stderr=subprocess.STDOUT, env=environment)
    return start


class VirtualHost:
    """A broker all of one's own, on the shared one."""

    def __init__(self, rabbitmq):
        self.name, self.rabbitmqctl = f"test-{os.getpid()}-{id(self)}", rabbitmq.rabbitmqctl
        self.url, self.exchange = rabbitmq.url + self.name, "heirflow.news"
        self.rabbitmqctl("add_vhost", self.name)
        self.rabbitmqctl("set_permissions", "-p", self.name, "guest", ".*", ".*", ".*")

    def queues(self):
        """{queue: (durable, exclusive)}"""
        rows = self.rabbitmqctl("list_queues", "-p", self.name, "name", "durable", "exclusive", "--formatter", "json").stdout
        return {row["name"]: (row["durable"], row["exclusive"]) for row in json.loads(rows)}


@pytest.fixture
def virtual_host(rabbitmq):
    made = VirtualHost(rabbitmq)
    yield made
    rabbitmq.rabbitmqctl("delete_vhost", made.name)


def bound(rabbitmq, queue):
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    try:
        return connection.channel().queue_declare(queue, passive=True).method.consumer_count
    except pika.exceptions.ChannelClosedByBroker:
        return 0
    finally:
        connection.close()


def publish(rabbitmq, events):
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    for event in events:
        connection.channel().basic_publish(rabbitmq.exchange, f"{GROUP}.x", json.dumps(event))
    connection.close()


def test_the_example_acts_once_on_each_event(consumer, outbox, database, relay, virtual_host, folder):
    process = consumer(virtual_host, "mine")

    def consumed():
        text = (folder / "consumed").read_text()
        assert "Traceback" not in text, text
        return [int(number) for number in re.findall(r"^\S+Z heirflow\.\S+ \S+ (\d+)\n", text, re.MULTILINE)]
    wait_for(lambda: bound(virtual_host, "mine"), 20, lambda: (folder / "consumed").read_text(), 0.1)
    outbox.tell(3)
    ada = relay(database, virtual_host)
    ada.wake()
    wait_for(lambda: consumed() == [1, 2, 3], 10, consumed)
    outbox.tell(4, first=4)
    events = [row[0] for row in database.query("select body from news_after(%s, 0, 100)", GROUP)]
    publish(virtual_host, [events[2], events[6], events[6]])  # 4 to 6 are lost
    wait_for(lambda: len(consumed()) >= 7, 10, consumed)
    assert consumed() == [1, 2, 3, 4, 5, 6, 7]
    process.terminate()
    process.wait(10)
    outbox.tell(1, first=8)
    ada.wake()
    outbox.wait_published(8)
    process = consumer(virtual_host, "mine")  # what came meanwhile has waited
    wait_for(lambda: 8 in consumed(), 10, consumed)
    process.terminate()
    process.wait(10)


@pytest.fixture
def screen():
    """A terminal for the interface."""
    master, slave = pty.openpty()
    yield slave
    os.close(master)
    os.close(slave)


def test_no_queue_is_both_transient_and_shared(consumer, heirflow, build, outbox, database, virtual_host, screen):
    environment = wrappers.clean_environment(HEIRFLOW_POSTGRES=database.dsn, HEIRFLOW_RABBITMQ_URL=virtual_host.url, TERM="xterm")
    database.query("insert into throne (group_name, lease_ms) values (%s, 6000)", GROUP)
    programs = [consumer(virtual_host, "consumer"),
                subprocess.Popen([heirflow, "news", "--follow", "--group", GROUP], stdout=subprocess.DEVNULL, env=environment),
                subprocess.Popen([build / "interface" / "heirflow-interface", "--group", GROUP], stdin=screen, stdout=screen,
                                 env=environment)]

    wait_for(lambda: len(virtual_host.queues()) == len(programs), 30, virtual_host.queues, 0.2)
    for name, (durable, exclusive) in virtual_host.queues().items():
        assert durable or exclusive, f"RabbitMQ 4 rejects the queue {name}: it is neither durable nor exclusive"
    for program in programs:
        program.terminate()
        program.wait(10)


def test_no_policy_mirrors_queues_of_news():
    """The only place that may: where a deployment's queues of tasks are set up, for RabbitMQ 3."""
    files = subprocess.run(["grep", "-rlIE", "ha-mode|ha-params|set_policy", ".", "--exclude-dir=.git", "--exclude-dir=build*"],
                           cwd=SOURCE, capture_output=True, text=True).stdout.split()
    assert set(files) == {"./provision/on-host/queue", f"./tests/news/{os.path.basename(__file__)}"}
