"""heirflow news --follow: each event once and in order, over the broker where it can and Postgres where it cannot."""
import json
import os
import signal
import subprocess
import threading

import pika
import pytest

import wrapper as wrappers
from conftest import GROUP, wait_for


class Follower:
    def __init__(self, heirflow, database, broker, folder, *arguments, stdout=None, group=GROUP):
        self.errors_path = folder / "follower-errors"
        self.lines = []
        url = {"HEIRFLOW_RABBITMQ_URL": broker.url, "HEIRFLOW_RABBITMQ_EXCHANGE": broker.exchange} if broker else {}
        with open(self.errors_path, "wb") as errors:
            self.process = subprocess.Popen(
                [heirflow, "news", "--follow", "--json", "--group", group, *arguments], stdout=stdout or subprocess.PIPE,
                stderr=errors, env=wrappers.clean_environment(HEIRFLOW_POSTGRES=database.dsn, **url))
        if not stdout:
            threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def sequences(self):
        return [line["data"]["sequence"] for line in self.lines]

    def errors(self):
        return self.errors_path.read_text()

    def wait_for(self, sequences, timeout=10):
        wanted = list(sequences)
        wait_for(lambda: self.sequences() == wanted or self.sequences()[len(wanted):], timeout,
                 lambda: f"{wanted[-5:]}; came {self.sequences()[-5:]}; {self.errors()}", 0.005)
        assert self.sequences() == wanted

    def end(self, number=signal.SIGTERM, timeout=5):
        self.process.send_signal(number)
        return self.process.wait(timeout)


@pytest.fixture
def follow(heirflow, database, folder):
    """follow(broker, "--from", "3", database=...) starts one."""
    started = []

    def start(broker, *arguments, database=database, **more):
        started.append(Follower(heirflow, database, broker, folder, *arguments, **more))
        return started[-1]
    yield start
    for each in started:
        if each.process.poll() is None:
            assert each.end() == 0


class Exchange:
    """Somebody who publishes to the exchange by hand."""

    def __init__(self, broker):
        self.connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        self.channel, self.exchange = self.connection.channel(), broker.exchange
        self.channel.exchange_declare(self.exchange, "topic", durable=True)
        self.channel.confirm_delivery()

    def publish(self, body, key=GROUP + ".acceded", mandatory=True):
        self.channel.basic_publish(self.exchange, key, body if isinstance(body, (bytes, str)) else json.dumps(body),
                                   mandatory=mandatory)

    def wait_bound(self):
        """Somebody has bound a queue."""
        def bound():
            try:
                self.publish("{}")
                return True
            except pika.exceptions.UnroutableError:
                return False
        wait_for(bound, 60, "the follower to bind its queue", 0.1)


@pytest.fixture
def exchange():
    made = []

    def make(broker):
        made.append(Exchange(broker))
        return made[-1]
    yield make
    for each in made:
        try:
            each.connection.close()
        except pika.exceptions.AMQPError:
            pass  # its broker is gone


def silently(database, count, first):
    """Events in the database without a word to anybody."""
    database.query("insert into news (group_name, sequence, event, node, source, term, reason) select %s, i, 'acceded', 'ada', "
                   "'ada', 1, 'because' from generate_series(%s, %s) i", GROUP, first, first + count - 1)
    database.query("update news_counter set last = %s", first + count - 1)


def bodies(database, after=0):
    return [row[0] for row in database.query("select body from news_after(%s, %s, 1000)", GROUP, after)]


def test_over_the_broker_while_the_database_is_frozen(follow, own_database, rabbitmq, exchange, outbox_of):
    outbox = outbox_of(own_database)
    outbox.tell(5)
    follower = follow(rabbitmq, "--from", "2", database=own_database)
    follower.wait_for(range(3, 6))
    exchange(rabbitmq).wait_bound()
    silently(own_database, 2, first=6)
    late = bodies(own_database, 5)
    own_database.server.freeze()
    for body in late:
        exchange(rabbitmq).publish(body)
    follower.wait_for(range(3, 8), 3)
    assert follower.lines[-2:] == late
    own_database.server.thaw()


def test_a_loss_is_read_again_and_repetitions_are_dropped(follow, outbox, database, rabbitmq, exchange):
    outbox.tell(2)
    follower = follow(rabbitmq)
    by_hand = exchange(rabbitmq)
    by_hand.wait_bound()
    follower.wait_for(range(1, 3))
    silently(database, 300, first=3)
    events = bodies(database)
    for number in (4, 3, 3, 2, 302, 4):  # the first is a gap; all after it is known once that is filled
        by_hand.publish(events[number - 1])
    follower.wait_for(range(1, 303), 3)
    assert follower.lines == events


def test_what_the_broker_loses_at_the_end_comes_from_the_database(follow, outbox, rabbitmq, exchange):
    follower = follow(rabbitmq)
    exchange(rabbitmq).wait_bound()
    outbox.tell(3)  # no relay: only the notification says so
    follower.wait_for(range(1, 4), 5)


def test_nonsense_on_the_exchange_is_passed_over(follow, outbox, database, rabbitmq, exchange):
    follower = follow(rabbitmq)
    by_hand = exchange(rabbitmq)
    by_hand.wait_bound()
    silently(database, 1, first=1)
    [event] = bodies(database)
    other = event | {"source": f"/heirflow/{GROUP}.other/ada"}
    far = event | {"data": {"sequence": 10**15}}
    for body in (b"\xff\x00", "[]", "[" * 3000, "null", "{}", event | {"data": 7}, event | {"id": 7}, other, far,
                 json.dumps(event) + "x" * 1000000, event):
        by_hand.publish(body)
    by_hand.publish(event | {"data": {"sequence": 2}}, key=GROUP + ".other.x")  # forged, but the next
    follower.wait_for([1, 2])


def test_the_broker_goes_and_comes_back(follow, outbox, database, own_rabbitmq, relay, exchange):
    outbox.tell(2)
    follower = follow(own_rabbitmq)
    exchange(own_rabbitmq).wait_bound()
    own_rabbitmq.kill()
    wait_for(lambda: "reading from Postgres" in follower.errors(), 10)
    outbox.tell(2, first=3)
    follower.wait_for(range(1, 5), 3)
    own_rabbitmq.start()
    exchange(own_rabbitmq).wait_bound()
    relay(database, own_rabbitmq).wake()
    outbox.tell(2, first=5)
    outbox.wait_published(6)
    follower.wait_for(range(1, 7), 15)
    assert follower.errors().count("127.0.0.1") <= 2, "each cause once"


def test_without_any_broker(follow, outbox):
    follower = follow(None, "--from", "0")
    outbox.tell(500)
    follower.wait_for(range(1, 501))


def test_the_database_restarts_while_the_broker_goes_on(follow, own_database, rabbitmq, exchange, outbox_of, relay):
    outbox = outbox_of(own_database)
    outbox.tell(2)
    follower = follow(rabbitmq, database=own_database)
    exchange(rabbitmq).wait_bound()
    follower.wait_for([1, 2])
    own_database.server.restart("immediate")
    outbox.tell(2, first=3)
    relay(own_database, rabbitmq).wake()
    follower.wait_for([1, 2, 3, 4])


@pytest.fixture
def lossy_failover(database):
    """lossy_failover(6): the events from 6 on have never been."""
    def lose(first):
        database.query("delete from news where sequence >= %s", first)
        database.query("update news_counter set last = %s", first - 1)
    return lose


def cut_off(database):
    database.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'heirflow news'")


@pytest.mark.parametrize("again", [1, 3, 8])
def test_a_failover_that_lost_events(follow, outbox, database, lossy_failover, again):
    outbox.tell(8)
    follower = follow(None)
    follower.wait_for(range(1, 9))
    lossy_failover(6)
    silently(database, again, first=6)
    cut_off(database)
    follower.wait_for([*range(1, 9), *range(6, 6 + again)])
    assert len({line["id"] for line in follower.lines}) == 8 + again
    assert "lost the events 6 to 8; it goes on after 5" in follower.errors()


def test_a_failover_that_the_broker_tells_of(follow, outbox, database, rabbitmq, exchange, lossy_failover):
    outbox.tell(8)
    follower = follow(rabbitmq)
    by_hand = exchange(rabbitmq)
    by_hand.wait_bound()
    follower.wait_for(range(1, 9))
    lossy_failover(6)
    silently(database, 2, first=6)
    by_hand.publish(bodies(database, 6)[0])
    follower.wait_for([*range(1, 9), 6, 7])
    by_hand.publish(bodies(database, 6)[0])
    outbox.tell(1, first=8)
    follower.wait_for([*range(1, 9), 6, 7, 8])


def test_what_comes_while_it_compares_is_no_failover(follow, outbox, database, rabbitmq, exchange):
    outbox.tell(600)
    follower = follow(rabbitmq)
    by_hand = exchange(rabbitmq)
    by_hand.wait_bound()
    follower.wait_for(range(581, 601))
    connection = database.connect()
    cut_off(database)
    silently(database, 2, first=601)
    with connection.cursor() as cursor:
        cursor.execute("begin; lock heirflow.news_counter")
        wait_for(lambda: database.value("select count(*) from pg_locks where not granted"), 20)
        for body in bodies(database, 600):
            by_hand.publish(body)
        follower.wait_for(range(581, 603))
        cursor.execute("rollback")
    outbox.tell(1, first=603)
    follower.wait_for(range(581, 604))
    assert "failover" not in follower.errors()


def test_a_forged_event_does_not_hide_the_real_one(follow, outbox, database, rabbitmq, exchange):
    outbox.tell(2)
    follower = follow(rabbitmq)
    by_hand = exchange(rabbitmq)
    by_hand.wait_bound()
    follower.wait_for([1, 2])
    by_hand.publish(bodies(database, 1)[0] | {"id": "forged", "data": {"sequence": 3}})
    follower.wait_for([1, 2, 3])
    outbox.tell(1, first=3)  # no relay brings it
    follower.wait_for([1, 2, 3, 3], 15)
    assert follower.lines[-1] == bodies(database, 2)[0]


def test_an_event_that_cannot_be_shown_is_named(follow, outbox):
    outbox.tell(1, data='{"odd": 1e400}')
    outbox.tell(1, first=2)
    follower = follow(None, "--from", "0")
    follower.wait_for([2])
    assert "event 1 cannot be shown" in follower.errors()


def test_events_that_are_not_kept_any_more_are_named(follow, outbox, database):
    outbox.tell(8)
    database.query("delete from news where sequence <= 5")
    follower = follow(None, "--from", "2")
    follower.wait_for(range(6, 9))
    assert "events 3 to 5 are not kept any more" in follower.errors()
    other = follow(None)
    other.wait_for(range(6, 9))
    assert other.errors() == ""


def test_a_sequence_that_is_not_told_yet(follow, outbox):
    outbox.tell(3)
    follower = follow(None, "--from", "7")
    wait_for(lambda: "no more than 3 events" in follower.errors())
    outbox.tell(1, first=4)
    follower.wait_for([4])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_peace(follow, outbox, rabbitmq, exchange, number):
    outbox.tell(3)
    follower = follow(rabbitmq)
    exchange(rabbitmq).wait_bound()
    follower.wait_for(range(1, 4))
    assert follower.end(number) == 0 and follower.errors() == ""


def test_a_signal_ends_it_though_nobody_reads(follow, outbox):
    outbox.tell(3000)  # more than a pipe takes
    reading, writing = os.pipe()
    follower = follow(None, "--from", "0", stdout=writing)
    wait_for(lambda: open(f"/proc/{follower.process.pid}/wchan").read() in ("pipe_write", "anon_pipe_write"), 10)
    assert follower.end() == 0
    os.close(reading), os.close(writing)


def test_a_full_disk_is_no_reader_that_went_away(heirflow, database, outbox):
    outbox.tell(3)
    with open("/dev/full", "w") as full:
        result = subprocess.run([heirflow, "news", "--follow", "--group", GROUP], stdout=full, stderr=subprocess.PIPE, text=True,
                                env=wrappers.clean_environment(HEIRFLOW_POSTGRES=database.dsn), timeout=10)
    assert result.returncode == 1 and "standard output: No space left" in result.stderr


@pytest.mark.parametrize("pipe, lines", [
    ("--json | jq --unbuffered --raw-output '.type + \" \" + (.data.sequence | tostring)'",
     ["heirflow.acceded 1", "heirflow.left 2", "heirflow.acceded 3"]),
    ("| grep --line-buffered ' left '", ["left"]),
], ids=["jq", "grep"])
def test_in_a_pipe(heirflow, database, outbox, rabbitmq, exchange, relay, pipe, lines):
    """Each line as soon as it is there, and no colours."""
    outbox.tell(1)
    process = subprocess.Popen(["bash", "-c", f"\"$0\" news --follow --group {GROUP} {pipe}", heirflow], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                               env=wrappers.clean_environment(HEIRFLOW_POSTGRES=database.dsn, HEIRFLOW_RABBITMQ_URL=rabbitmq.url,
                                                              HEIRFLOW_RABBITMQ_EXCHANGE=rabbitmq.exchange))
    exchange(rabbitmq).wait_bound()
    outbox.tell(1, "left", first=2)
    outbox.tell(1, first=3)
    relay(database, rabbitmq).wake()
    for line in lines:
        came = process.stdout.readline()
        assert line in came and "\x1b" not in came
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.read() == "" and process.stderr.read() == ""
    process.wait(5)


@pytest.mark.parametrize("idle", [False, True], ids=["busy", "idle"])
def test_head_ends_it(heirflow, database, outbox, idle):
    outbox.tell(1 if idle else 2000)
    result = subprocess.run(["bash", "-c", f"\"$0\" news --follow --from 0 --group {GROUP} | head -n 1; echo ${{PIPESTATUS[*]}}",
                             heirflow], capture_output=True, text=True, timeout=10,
                            env=wrappers.clean_environment(HEIRFLOW_POSTGRES=database.dsn))
    assert result.stdout.splitlines()[1] == "0 0" and " 1 acceded ada" in result.stdout and result.stderr == ""


def test_closed_standard_output_is_no_connection_to_the_database(heirflow, database, outbox):
    outbox.tell(300)
    result = subprocess.run(["bash", "-c", f"\"$0\" news --from 0 --group {GROUP} >&-; echo $?", heirflow], capture_output=True,
                            text=True, timeout=20, env=wrappers.clean_environment(HEIRFLOW_POSTGRES=database.dsn))
    assert result.stderr == "" and result.stdout == "0\n"
