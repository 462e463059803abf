"""The servers that all suites rely on do what their fixtures promise."""
import pika
import psycopg2
import pytest

from conftest import processes, wait_for


def test_a_database_has_the_schema(database):
    assert database.value("select max(version) from schema_version") >= 1


def test_databases_do_not_see_each_other(database, empty_database):
    assert empty_database.value("select count(*) from pg_namespace where nspname = 'heirflow'") == 0


def test_a_frozen_server_answers_again_once_thawed(own_postgres):
    own_postgres.freeze()
    with pytest.raises(psycopg2.OperationalError):
        own_postgres.connect(connect_timeout=2)
    own_postgres.thaw()
    assert own_postgres.psql("select 1") == [(1,)]


def test_a_killed_server_starts_again(own_database):
    own_database.query("create table kept (value int)")
    own_database.server.kill()
    own_database.server.start()
    assert own_database.value("select count(*) from kept") == 0


def test_the_shared_broker_takes_messages(rabbitmq):
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    connection.channel().exchange_declare(rabbitmq.exchange, "topic")
    connection.close()


def test_an_own_broker_can_be_killed_and_started(own_rabbitmq):
    own_rabbitmq.kill()
    assert not own_rabbitmq.running()
    own_rabbitmq.start()
    pika.BlockingConnection(pika.URLParameters(own_rabbitmq.url)).close()


def test_witnesses_of_two_runs_at_once_are_found_out(witness, folder):
    import subprocess
    first, second = (subprocess.Popen(witness.command("--child", "--grandchild"),
                                      env={"HEIRFLOW_NODE": node, "HEIRFLOW_TERM": "1"}) for node in ("ada", "bert"))
    wait_for(lambda: len(witness.runs()) == 2 and all(len(run.roles) == 3 for run in witness.runs()), what="six witnesses")
    wait_for(witness.overlaps, what="an overlap")
    for process in (first, second):
        process.kill()
        process.wait()


def test_orphans_are_noticed(folder):
    import os
    import subprocess
    subprocess.run(["sh", "-c", "sleep 1000 & sleep 1001 & exit"], check=True)
    wait_for(lambda: len([pid for pid in processes.descendants(os.getpid())
                          if processes.command_line(pid)[:1] == ["sleep"]]) == 2, what="two adopted orphans")
