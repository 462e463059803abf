"""Databases, queue hosts and balancers on real hosts: set up, broken, mended, changed; and what is shut to whom."""
import contextlib
import json
import random
import socket
import subprocess
import time

import pika
import psycopg2
import pytest

from cluster_hosts import FAILOVER, Writer
from processes import wait_for

QUEUES, DATABASES, BALANCERS = ("q1", "q2", "q3"), ("d1", "d2"), ("b1", "b2")
# as docs/deployment.md has them: seconds without commits, and without a broker that takes tasks
STANDBY_LOST, BALANCER_LOST, QUEUE_LOST, BROKER_LOST = 6, 5, 3, 15


@pytest.fixture(scope="session")
def deployment(cluster):
    """Everything, set up once; a database that ran alone at first has kept its content."""
    for name in (*QUEUES, *DATABASES, *BALANCERS):
        cluster.node(name)
    assert "without Patroni" in cluster("db_first", "d1")
    with contextlib.closing(cluster.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("create table kept as select 42 as answer")
    cluster("q_first", "q1")
    for name in QUEUES[1:]:
        cluster("q_later", name)
    cluster("db_first", "d1")
    with contextlib.closing(cluster.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select answer from kept")
        assert cursor.fetchall() == [(42,)]
    cluster("db_later", "d2")
    for name in BALANCERS:
        cluster("balancer", name)
    return cluster


@pytest.fixture
def fine(deployment):
    deployment.wait_until_fine()
    yield deployment
    deployment.lab.heal()
    for node in deployment.nodes.values():
        if node.process.poll() is not None:  # whatever a failed test left switched off
            node.start()


def test_everything_is_there_and_a_second_run_changes_nothing(fine):
    told = fine("status")
    for line in ("leader, 3 members", "3 of 3 brokers run", "sync standby", "has the floating address"):
        assert line in told
    for program, name in (("q_first", "q1"), ("q_later", "q3"), ("db_first", "d1"), ("db_later", "d2"), ("balancer", "b2")):
        output = fine(program, name)
        assert "nothing had to be changed" in output and not any(
            word in output for word in ("wrote", "started", "made", "gave")), output


def test_nothing_secret_is_left_on_the_way(fine):
    for node in fine.nodes.values():
        assert node("ls", "/var/lib/heirflow-provision").stdout.split() == sorted(
            set(node("ls", "/var/lib/heirflow-provision").stdout.split()) - {"stage"})
        assert fine.secret("DB_PASSWORD") not in node("ps", "axww", "-o", "args").stdout


def test_who_is_let_in(fine):
    cluster = fine
    address = cluster.nodes["d1"].address
    for refused in ({"sslmode": "disable"}, {"user": "postgres"}, {"password": "wrong"}):
        with pytest.raises(psycopg2.OperationalError):
            cluster.connect(**refused)
    with cluster.lab.switch.inside():
        for port in (5672, 15672):
            with pytest.raises(OSError):
                socket.create_connection((cluster.nodes["q1"].address, port), 3)
    with pytest.raises(pika.exceptions.AMQPError):  # of the news, to the tasks
        cluster.broker("q1", "heirflow", "NEWS_QUEUE_PASSWORD", "airflow")
    with contextlib.closing(cluster.broker("q1", "heirflow", "NEWS_QUEUE_PASSWORD", "heirflow")) as connection:
        connection.channel().exchange_declare("heirflow.news", "topic", durable=True)
        own = connection.channel()
        own.queue_bind(own.queue_declare("", exclusive=True).method.queue, "heirflow.news", "#")
        for name in ("elsewhere",):
            with pytest.raises(pika.exceptions.ChannelClosedByBroker):
                connection.channel().queue_declare(name)

    def curl(*arguments):
        return subprocess.run(["nsenter", f"--net={cluster.lab.switch.path}", "curl", "--silent", "--max-time", "5",
                               "--cacert", cluster.state / "ca" / "ca.crt", *arguments], capture_output=True, text=True)
    assert curl(f"https://{cluster.nodes['q1'].address}:2379/health").returncode != 0, "etcd without a certificate"
    answer = curl("--output", "/dev/null", "--write-out", "%{http_code}", "--request", "POST", f"https://{address}:8008/restart")
    assert answer.stdout in ("401", "403"), "Patroni without a password"


def test_the_primary_loses_power(fine, note):
    writer = Writer(fine)
    writer.start()
    writer.has_written_for(2)
    lost = fine.leader()
    lost.power_off()
    wait_for(lambda: fine_or_none(fine) not in (None, lost), 60, "another primary")
    writer.has_written_for(3)
    note("primary database", "power lost", no_commits=(writer.end(), FAILOVER))
    assert " BAD " in fine("status", expect=1)
    lost.start()
    assert "sync standby" in fine.wait_until_fine(*DATABASES)


def fine_or_none(cluster):
    try:
        return cluster.leader()
    except psycopg2.Error:
        return None


def test_the_standby_loses_power(fine, note):
    writer = Writer(fine)
    writer.start()
    writer.has_written_for(2)
    standby = next(fine.nodes[name] for name in DATABASES if fine.nodes[name] is not fine.leader())
    standby.power_off()
    writer.has_written_for(3)
    note("standby database", "power lost", no_commits=(writer.end(), STANDBY_LOST))
    standby.start()
    fine.wait_until_fine(*DATABASES)


@pytest.mark.parametrize("how", ["cut off", "Patroni frozen"])
def test_a_former_primary_acknowledges_nothing_any_more(fine, note, how):
    """What Heirflow's promise asks of its database."""
    old = fine.leader()
    beside_it = Writer(fine, inside=old.host.namespace, host=old.address, port="5432", options="-c statement_timeout=0",
                       tcp_user_timeout="60000")
    beside_it.start()
    beside_it.has_written_for(2)
    patroni = old.our_pid(int(old.show("patroni", "MainPID")))
    lost = time.monotonic()
    if how == "cut off":
        fine.lab.isolate([old.name])
    else:
        subprocess.run(["kill", "-STOP", str(patroni)], check=True)
    try:
        new = next(fine.nodes[name] for name in DATABASES if fine.nodes[name] is not old)
        wait_for(lambda: accepts_writes(fine, new), 60, "another primary")
        promoted, acknowledged = time.monotonic(), len(beside_it.acknowledged)
        assert beside_it.last < promoted
        wait_for(lambda: time.monotonic() > promoted + 5, 10, "some seconds")
        assert len(beside_it.acknowledged) == acknowledged, "the former primary has acknowledged a commit"
        with contextlib.closing(fine.connect(host=new.address, port="5432")) as connection:
            connection.cursor().execute("create table since_then (answer) as select 42")
    finally:
        fine.lab.heal()
        subprocess.run(["kill", "-CONT", str(patroni)], check=False)
    beside_it.end()
    fine.wait_until_fine(*DATABASES)
    assert fine.leader() is new, "the former primary has taken its place back"
    note("primary database", how, another_primary=(promoted - lost, FAILOVER))
    with contextlib.closing(fine.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("drop table since_then")


def accepts_writes(cluster, node):
    try:
        with contextlib.closing(cluster.connect(host=node.address, port="5432")) as connection:
            connection.cursor().execute("create table if not exists accepted (n int); insert into accepted values (1)")
        return True
    except psycopg2.Error:
        return False


def test_each_queue_host_loses_power_in_turn(fine, note):
    with contextlib.closing(fine.broker("q1")) as connection:
        connection.channel().queue_declare("tasks", durable=True)
    for number, name in enumerate(QUEUES):
        others = [other for other in QUEUES if other != name]
        wait_for(lambda: copies_are_in_step(fine.nodes[others[0]]), 60, "copies of the queue")
        writer = Writer(fine)
        writer.start()
        writer.has_written_for(1)
        lost = time.monotonic()
        fine.nodes[name].power_off()
        wait_for(lambda: publishes(fine, others[0], number), 40, "a broker that takes tasks")
        waited = time.monotonic() - lost
        writer.has_written_for(2)
        note(f"queue host {name}", "power lost", no_commits=(writer.end(), QUEUE_LOST), no_tasks_taken=(waited, BROKER_LOST))
        fine.nodes[name].start()
        fine.wait_until_fine(*QUEUES)
    with contextlib.closing(fine.broker("q3")) as connection:
        channel = connection.channel()
        bodies = {channel.basic_get("tasks", auto_ack=True)[2] for _ in QUEUES}
    assert bodies == {b"0", b"1", b"2"}


def has_copies(cluster):
    """Of a queue that was made before, perhaps, one of the brokers came."""
    with contextlib.closing(cluster.broker("q1")) as connection:
        connection.channel().queue_declare("tasks", durable=True)
    wait_for(lambda: copies_are_in_step(cluster.nodes["q1"]), 90, "copies of the queue")
    return True


def copies_are_in_step(node):
    """Of the one queue there is, on all three hosts."""
    def of_queue(*columns):
        listed = node("rabbitmqctl", "--quiet", "--formatter", "json", "list_queues", "--vhost", "airflow", *columns, check=None)
        return json.loads(listed.stdout)[0] if listed.returncode == 0 else {}
    queue = of_queue("type", "online")
    if queue.get("type") == "quorum":
        return len(queue["online"]) == len(QUEUES)
    mirrored = of_queue("slave_pids", "synchronised_slave_pids")
    return all(len(mirrored.get(column) or []) == 2 for column in ("slave_pids", "synchronised_slave_pids"))


def publishes(cluster, name, number):
    try:
        with contextlib.closing(cluster.broker(name)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish("", "tasks", str(number).encode(), pika.BasicProperties(delivery_mode=2), mandatory=True)
        return True
    except (pika.exceptions.AMQPError, OSError):
        return False


def test_a_broker_that_does_not_come_back_by_itself_is_restarted(fine):
    """Its program is up, and it is none of those that run: as after some cuts of the network. Nor does it stop when it is told to."""
    q3 = fine.nodes["q3"]
    q3("systemctl", "stop", "rabbitmq-server")
    q3("systemctl", "start", "heirflow-broker-watch", timeout=300)
    assert q3.show("rabbitmq-server", "ActiveState") == "inactive", "it was stopped on purpose"
    q3("systemctl", "start", "rabbitmq-server", timeout=300)
    fine.wait_until_fine("q3")
    q3("rabbitmqctl", "--quiet", "stop_app")
    hangs = "/run/systemd/system/rabbitmq-server.service.d/hangs.conf"
    q3("install", "-D", "/dev/stdin", hangs, input="[Service]\nExecStop=\nExecStop=/bin/sleep infinity\n")
    q3("systemctl", "daemon-reload")
    assert " BAD " in fine("status", "q3", expect=1)
    fine.wait_until_fine("q3", timeout=420)
    assert "restarting rabbitmq-server" in q3("journalctl", "--unit", "heirflow-broker-watch", "--output", "cat").stdout
    assert "code=killed, status=9/KILL" in q3.journal("rabbitmq-server")
    q3("rm", hangs)
    q3("systemctl", "daemon-reload")


def test_a_queue_host_with_a_new_disk(fine):
    fine.node("q2")
    assert "ssh-keygen -R q2" in fine("q_later", "q2", expect=1)
    fine.forget_keys("q2")
    output = fine("q_later", "q2")
    assert "3 running" in output and "3 members" in output
    fine.wait_until_fine(*QUEUES)
    assert has_copies(fine)


def test_a_database_host_with_a_new_disk(fine):
    standby = next(name for name in DATABASES if fine.nodes[name] is not fine.leader())
    fine.node(standby)
    fine.forget_keys(standby)
    assert "sync standby" in fine("db_later", standby)
    fine.wait_until_fine(*DATABASES)


def test_the_floating_address_moves(fine, note):
    def through_it(**more):
        return fine.connect(host=fine.floating, port="5432", **more)
    through_it().close()
    fine.broker(None, address=fine.floating).close()
    holder = next(fine.nodes[name] for name in BALANCERS
                  if fine.floating in fine.nodes[name]("ip", "-4", "address").stdout)
    writer = Writer(fine, host=fine.floating, port="5432")
    writer.start()
    writer.has_written_for(2)
    holder.power_off()
    writer.has_written_for(3)
    note("balancer with the address", "power lost", no_commits=(writer.end(), BALANCER_LOST))
    holder.start()
    fine.wait_until_fine(*BALANCERS)


def test_a_hook_moves_the_address_in_place_of_vrrp(fine, tmp_path):
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\necho \"$1\" >/run/hook-was-told\n")
    hook.chmod(0o700)

    def is_told(node):
        return node("cat", "/run/hook-was-told", check=None).stdout.strip() == fine.floating
    try:
        fine.write_settings(FLOATING_HOOK=hook)
        fine("balancer", BALANCERS[0])
        fine("balancer", BALANCERS[1])
        holder = wait_for(lambda: next((fine.nodes[name] for name in BALANCERS if is_told(fine.nodes[name])), None), 30, "a holder")
        other = next(fine.nodes[name] for name in BALANCERS if fine.nodes[name] is not holder)
        other("rm", "-f", "/run/hook-was-told")
        holder.power_off()
        wait_for(lambda: is_told(other), 30, "the hook on the other balancer")
        assert fine.floating not in other("ip", "-4", "address").stdout, "the hook alone moves it"
        holder.start()
    finally:
        fine.write_settings()
        for name in BALANCERS:
            fine("balancer", name)


def test_out_and_in_again(fine):
    leader = fine.leader().name
    assert "handed the database over" in fine("remove", leader)
    assert leader not in fine("status", expect=0)
    assert "sync standby" in fine("db_later", leader)
    assert has_copies(fine)
    assert "two queue hosts" in fine("remove", "q3")
    fine.wait_until_fine()
    assert "3 members" in fine("q_later", "q3")
    fine.wait_until_fine()
    assert has_copies(fine)


def test_interrupted_anywhere_and_completed(fine):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for program, name in (("q_later", "q3"), ("db_later", next(d for d in DATABASES if fine.nodes[d] is not fine.leader()))):
        fine("remove", name)
        for _ in range(2):
            fine.interrupt(dice.uniform(1, 20), program, name)
        fine(program, name)
    fine.wait_until_fine()


def test_most_queue_hosts_are_gone_for_good(fine):
    """One goes on with what etcd knows, so that the database takes writes again; others come."""
    assert "q2 can be reached" in fine("q_first", "--force", "q1", expect=1)
    for name in ("q2", "q3"):
        fine.nodes[name].power_off()
    wait_for(lambda: not accepts_writes(fine, fine.nodes["d1"]) and not accepts_writes(fine, fine.nodes["d2"]), 60, "databases without etcd")
    assert "provision/q_first --force" in fine("remove", "--force", "q2", expect=1)
    told = fine("q_first", "--force", "q1")
    assert "etcd goes on without the other members" in told and "one queue host" in told
    assert "nothing had to be changed" in fine("q_first", "q1")
    fine.wait_until_fine()
    for name in ("q2", "q3"):
        fine.node(name)
        fine.forget_keys(name)
        fine("q_later", name)
    fine.wait_until_fine()
    assert has_copies(fine)


def test_the_last_database_host_is_gone_for_good(fine):
    """etcd forgets the database with it, or the next one would wait for a primary for ever."""
    for name in DATABASES:
        fine.nodes[name].power_off()
        fine("remove", "--force", name, expect=None)
    fine.node("d1")
    fine.forget_keys("d1")
    fine("db_first", "d1")
    with contextlib.closing(fine.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select to_regclass('kept')")
        assert cursor.fetchall() == [(None,)]
    fine.node("d2")
    fine.forget_keys("d2")
    fine("db_later", "d2")
    fine.wait_until_fine()
