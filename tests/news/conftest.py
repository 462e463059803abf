"""The relay alone on a database and a broker, and a consumer with a queue of its own."""
import contextlib
import json
import subprocess
import threading
import uuid

import pika
import pytest

import wrapper as wrappers
from processes import wait_for

GROUP = "air.flow"


class Relay:
    """tests/news/relay.c on a configuration file; see there."""

    def __init__(self, program, path, configuration):
        path.write_text(json.dumps(configuration))
        path.chmod(0o600)
        self.states = []
        self.process = subprocess.Popen([program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, bufsize=1, env=wrappers.clean_environment())
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.states.append(json.loads(line))

    def wake(self, member=1):
        self.process.stdin.write(f"wake {member}\n")

    def reign(self, member):
        self.process.stdin.write(f"reign {member}\n")

    def words(self):
        return [state["state"] for state in self.states]

    def wait_for(self, word, timeout=20, times=1):
        def said():
            return self.words().count(word) >= times or self.process.poll() is not None
        wait_for(said, timeout, lambda: f"{word} from the relay; said {self.states}")
        self.reader.join(None if self.process.poll() is not None else 0)
        assert self.words().count(word) >= times, f"the relay ended, having said {self.states}\n{self.process.stderr.read()}"
        return [state for state in self.states if state["state"] == word][-1]

    def stop(self, within_ms=2000, timeout=20):
        """How long news_stop took, in ms."""
        try:
            self.process.stdin.write(f"stop {within_ms}\n")
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        status = self.process.wait(timeout)
        errors = self.process.stderr.read()
        assert status == 0 and not errors, f"exit {status}\n{errors}"
        return self.wait_for("stopped", 5)["after_ms"]


@pytest.fixture
def relay(build, folder):
    """relay(database, broker or urls, node="ada", **more) starts one; all are stopped at the end and must end well."""
    started = []

    def start(database, broker, node="ada", group=GROUP, exchange=None, **more):
        urls = getattr(broker, "url", broker)
        configuration = {"group": group, "node": node, "postgres": getattr(database, "dsn", database),
                         "rabbitmq": {"url": urls, "exchange": exchange or getattr(broker, "exchange", "heirflow.news")},
                         "run_directory": str(folder), **more}
        made = Relay(build / "tests" / "news" / "relay", folder / f"{node}-{len(started)}.json", configuration)
        started.append(made)
        return made
    yield start
    for each in started:
        if each.process.poll() is None:
            each.stop()


class Outbox:
    def __init__(self, database, group=GROUP):
        self.database, self.group = database, group
        database.query("insert into news_counter (group_name) values (%s)", group)
        database.query("insert into relay (group_name) values (%s)", group)

    def tell(self, count, event="acceded", data="{}", first=1):
        self.database.query("select tell(%s, %s, 'ada', 'ada', i, 'because', %s::jsonb || jsonb_build_object('number', i))"
                            " from generate_series(%s, %s) i", self.group, event, data, first, first + count - 1)

    @contextlib.contextmanager
    def halted_at(self, sequence):
        """The relay comes to a halt in the middle: when it records `sequence`, or a later one, until the block ends."""
        self.database.query("create function halt() returns trigger language plpgsql as $$ begin"
                            " perform pg_advisory_xact_lock_shared(1); return new; end $$;"
                            "create trigger halt before update on relay for each row"
                            f" when (new.published >= {sequence:d}) execute function halt()")
        connection = self.database.connect()
        connection.cursor().execute("select pg_advisory_lock(1)")
        try:
            yield
        finally:
            connection.close()

    def wait_halted(self):
        wait_for(lambda: self.database.value("select count(*) from pg_locks where locktype = 'advisory' and not granted"), 30,
                 lambda: f"the relay to come to the halt; published {self.published()}")

    def published(self):
        return self.database.value("select published from relay where group_name = %s", self.group)

    def wait_published(self, sequence, timeout=30):
        wait_for(lambda: self.published() >= sequence, timeout, lambda: f"{sequence} published; are {self.published()}", 0.05)


@pytest.fixture
def outbox(database):
    """The outbox of GROUP in the test's database: .tell(count), .published(), .wait_published(sequence)."""
    return Outbox(database)


@pytest.fixture
def outbox_of():
    """The same in another database."""
    return Outbox


class Viewer:
    """A consumer with a queue of its own, which outlives a restart of the broker."""

    def __init__(self, url, exchange, binding="#", durable=False):
        self.url, self.exchange, self.binding, self.durable = url, exchange, binding, durable
        self.queue = f"viewer-{uuid.uuid4()}"
        self.received = []  # (routing key, properties, CloudEvent)
        self.open()
        self.channel.exchange_declare(exchange, "topic", durable=True)
        self.channel.queue_declare(self.queue, durable=durable, exclusive=not durable)
        self.channel.queue_bind(self.queue, exchange, binding)

    def open(self):
        self.connection = pika.BlockingConnection(pika.URLParameters(self.url))
        self.channel = self.connection.channel()

    def take(self, enough, timeout=30):
        """Reads until enough(sequences) or fails."""
        def look():
            while True:
                method, properties, body = self.channel.basic_get(self.queue, auto_ack=True)
                if method is None:
                    return enough(self.sequences())
                self.received.append((method.routing_key, properties, json.loads(body)))
        wait_for(look, timeout, lambda: f"news; {len(self.received)} came, last {self.sequences()[-3:]}", 0.05)
        return self.received

    def take_until(self, last, timeout=30):
        return self.take(lambda sequences: last in sequences, timeout)

    def sequences(self):
        return [event["data"]["sequence"] for _, _, event in self.received]

    def first_arrivals(self):
        return list(dict.fromkeys(self.sequences()))

    def close(self):
        self.channel.queue_delete(self.queue)
        self.connection.close()


@pytest.fixture
def viewer():
    """viewer(broker) binds a queue of its own to the broker's exchange."""
    made = []

    def make(broker, **more):
        made.append(Viewer(broker.url, broker.exchange, **more))
        return made[-1]
    yield make
    for each in made:
        try:
            each.close()
        except pika.exceptions.AMQPError:
            pass  # its broker is gone, and so is the queue or soon the broker's folder
