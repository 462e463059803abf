"""An established connection: statements, deadlines, notifications, loss, and callbacks that call back."""
import signal

import pytest
from processes import send, wait_for


@pytest.fixture
def connected(driver, postgres):
    it = driver(postgres.dsn()).send("connect")
    it.expect("connected")
    return it


def backend(it):
    return int(it.ask("select pg_backend_pid()"))


def test_a_server_error_leaves_the_connection(connected):
    said = connected.send("query 5000 select 1/0").expect("failed")
    assert "division by zero (SQLSTATE 22012)" in said and "retryable=0" in said
    assert connected.ask("select 2") == "2"


def test_detail_and_hint_are_told(connected):
    said = connected.send("query 5000 do $$ begin raise 'oh' using detail = 'because', hint = 'do so'; end $$").expect("failed")
    assert "oh; because; hint: do so" in said


def test_several_statements_are_one_transaction(connected):
    connected.send("query 5000 create temp table t (i int); insert into t values (1); select 1/0").expect("failed")
    assert connected.ask("select to_regclass('pg_temp.t') is null") == "t"
    assert connected.ask("select 1; select 2") == "2"


def test_first_warning_is_told_and_notices_are_not(connected):
    said = connected.send("query 5000 do $$ begin raise notice 'small'; raise warning 'first'; raise warning 'second'; end $$")
    assert said.expect("reply").endswith("warning=first")
    assert "warning" not in connected.send("query 5000 select 1").expect("reply")


def test_a_vacuum_that_is_due_is_told_once_a_connection_and_hides_no_warning(worn_postgres, driver):
    it = driver(worn_postgres.dsn()).send("connect")
    it.expect("connected")
    it.send("query 5000 create table public.first ()").expect('vacuum-due database "')
    assert it.expect("reply").endswith("length=0")
    it.send("query 5000 create table public.second ()")
    assert it.expect("reply").endswith("length=0")
    worn_postgres.psql("alter system set synchronous_standby_names = 'nobody_there'")
    worn_postgres.reload()
    pid = backend(it)
    cancel = "select pg_cancel_backend(pid) from pg_stat_activity where pid = %s and wait_event = 'SyncRep'"

    def cancelled():
        it.send("query 60000 insert into public.first default values")
        wait_for(lambda: not it.lines.empty() or worn_postgres.psql(cancel, pid))
        return "warning=canceling wait for synchronous replication" in it.expect("reply")
    wait_for(cancelled)  # once the server has heard of its standby
    it.send("drop", "connect").expect("connected")
    it.send("query 5000 set synchronous_commit to local; create table public.third ()").expect('vacuum-due database "')
    it.expect("reply")


def test_a_big_value_both_ways(connected):
    assert connected.send("value 10000 5000000").expect("reply").endswith("length=5000000")


def test_notifications(connected, postgres):
    postgres.psql("""notify "chan ""nel", 'hello'""")
    connected.expect("notify hello")
    connected.send("query 5000 notify \"chan \"\"nel\", 'me too'")
    assert {connected.next(), connected.next()} == {"reply  length=0", "notify me too"}


def test_statement_deadline_drops_the_connection(connected, postgres):
    pid = backend(connected)
    connected.send("query 200 select pg_sleep(60)")
    assert "no answer from PostgreSQL within 200 ms" in connected.expect("failed")
    assert "retryable=1" in connected.expect("disconnected")
    assert postgres.psql("select state from pg_stat_activity where pid = %s", pid) == [("active",)]  # not cancelled
    postgres.psql("select pg_terminate_backend(%s)", pid)
    connected.send("connect").expect("connected")


def test_frozen_server(own_postgres, driver):
    it = driver(own_postgres.dsn(), attempt_ms=300).send("connect")
    it.expect("connected")
    own_postgres.freeze()
    it.send("query 300 select 1").expect("failed")
    it.expect("disconnected")
    assert "no answer within 300 ms" in it.send("connect").expect("disconnected")
    own_postgres.thaw()
    it.send("connect")
    it.expect("connected")


def test_frozen_client_takes_the_reply_that_waits(driver, postgres):
    it = driver(postgres.dsn()).send("connect")
    it.expect("connected")
    it.send("query 400 select pg_sleep(0.2)")
    wait_for(lambda: postgres.psql("select count(*) from pg_stat_activity where query = 'select pg_sleep(0.2)'") == [(1,)])
    send(it.process.pid, signal.SIGSTOP)
    wait_for(lambda: postgres.psql("select count(*) from pg_stat_activity where query = 'select pg_sleep(0.2)' "
                                   "and state = 'idle' and state_change < clock_timestamp() - interval '0.5 s'") == [(1,)])
    send(it.process.pid, signal.SIGCONT)
    it.expect("reply")


def test_terminated_while_idle(connected, postgres):
    postgres.psql("select pg_terminate_backend(%s)", backend(connected))
    assert "terminating connection due to administrator command" in connected.expect("disconnected")


def test_terminated_while_busy(connected, postgres):
    pid = backend(connected)
    connected.send("query 9000 select pg_sleep(60)")
    wait_for(lambda: postgres.psql("select state from pg_stat_activity where pid = %s", pid) == [("active",)])
    postgres.psql("select pg_terminate_backend(%s)", pid)
    assert "terminating connection due to administrator command" in connected.expect("failed")
    assert "terminating connection due to administrator command" in connected.expect("disconnected")


def test_server_killed_while_busy(own_postgres, driver):
    it = driver(own_postgres.dsn()).send("connect")
    it.expect("connected")
    it.send("query 9000 select pg_sleep(60)")
    wait_for(lambda: own_postgres.psql("select count(*) from pg_stat_activity where state = 'active' and query ~ '^select pg_sl'")
             == [(1,)])
    own_postgres.kill()
    it.expect("failed")
    assert "connection to PostgreSQL lost" in it.expect("disconnected")


def test_drop_is_silent(connected):
    connected.send("query 5000 select pg_sleep(60)", "drop", "connect").expect("connected")


def test_query_without_connection_fails_later(driver, postgres):
    it = driver(postgres.dsn())
    assert "not connected to PostgreSQL" in it.send("query 100 select 1").expect("failed")
    it.send("query 100 select 1", "connect").expect("failed")
    it.expect("connected")


def test_connect_twice_is_connect_once(driver, postgres):
    it = driver(postgres.dsn()).send("connect", "connect")
    it.expect("connected")
    it.send("connect")
    assert it.ask("select 1") == "1"


def test_destroy_at_any_moment(driver, postgres):
    driver(postgres.dsn()).send("destroy").expect("closed")
    driver(postgres.dsn()).send("connect", "destroy").expect("closed")
    driver("host=nowhere.invalid").send("connect", "destroy").expect("closed")
    it = driver(postgres.dsn()).send("connect")
    it.expect("connected")
    it.send("query 1000 select pg_sleep(9)", "destroy").expect("closed")


# -- callbacks that call back

@pytest.mark.parametrize("command, lines", [
    ("query 5000 select 2", ["connected", "reply 2 length=1"]),
    ("drop", ["connected"]),
    ("destroy", ["connected", "closed"]),
    ("connect", ["connected"]),
])
def test_from_on_connected(driver, postgres, command, lines):
    it = driver(postgres.dsn()).send(f"then connected {command}", "connect")
    for line in lines:
        it.expect(line)


@pytest.mark.parametrize("command, lines", [
    ("query 5000 select 2", ["reply 1", "reply 2"]),
    ("drain", ["reply 1"]),
    ("drop", ["reply 1"]),
    ("destroy", ["reply 1", "closed"]),
])
def test_from_a_reply(connected, command, lines):
    connected.send(f"then reply {command}", "query 5000 select 1")
    for line in lines:
        connected.expect(line)


@pytest.mark.parametrize("command, lines", [
    ("connect", ["failed", "disconnected", "connected"]),
    ("query 100 select 1", ["failed", "disconnected", "failed"]),
    ("drain", ["failed", "disconnected"]),
    ("drop", ["failed"]),
    ("destroy", ["failed", "closed"]),
])
def test_from_the_failure_of_a_lost_connection(connected, command, lines):
    connected.send(f"then reply {command}", "query 5000 select pg_terminate_backend(pg_backend_pid())")
    for line in lines:
        connected.expect(line)


@pytest.mark.parametrize("command, lines", [
    ("connect", ["failed", "disconnected", "connected"]),
    ("drop", ["failed", "disconnected"]),
    ("destroy", ["failed", "disconnected", "closed"]),
])
def test_from_on_disconnected(connected, command, lines):
    connected.send(f"then disconnected {command}", "query 100 select pg_sleep(60)")
    for line in lines:
        connected.expect(line)


@pytest.mark.parametrize("command, lines", [
    ("query 5000 select 2", ["notify one", "notify two", "notify three", "reply 2"]),
    ("drain", ["notify one", "notify two", "notify three"]),
    ("drop", ["notify one"]),
    ("destroy", ["notify one", "closed"]),
])
def test_from_a_notification(connected, postgres, command, lines):
    connected.send(f"then notify {command}")
    connected.ask("select 1")
    postgres.psql("begin; notify \"chan \"\"nel\", 'one'; notify \"chan \"\"nel\", 'two'; notify \"chan \"\"nel\", 'three'; commit")
    for line in lines:
        connected.expect(line)


def test_connect_again_from_a_failed_round(driver):
    it = driver("host=127.0.0.1 port=1 user=x").send("then disconnected connect", "then disconnected destroy", "connect")
    it.expect("disconnected")
    it.expect("disconnected")
    it.expect("closed")


# -- the blocking face

def test_blocking_face(driver, postgres):
    it = driver(postgres.dsn()).send("open 5000")
    it.expect("opened")
    it.send("call 5000 select 3").expect("reply 3")
    assert "division by zero" in it.send("call 5000 select 1/0").expect("failed")
    it.send("call 5000 select 4").expect("reply 4")
    it.send("wait 50").expect("silence")
    it.send("wait 9000")
    postgres.psql("""notify "chan ""nel", 'x'""")
    it.expect("notified")
    it.send("call 5000 notify \"chan \"\"nel\"").expect("reply")
    it.send("wait 9000").expect("notified")
    it.send("call 200 select pg_sleep(60)").expect("failed retryable=1 no answer")
    it.send("call 200 select 1").expect("failed retryable=1 not connected")
    assert "no answer" in it.send("wait 5000").expect("silence")
    it.send("close").expect("session-closed")


def test_blocking_face_tells_why_it_cannot_open(driver, postgres):
    it = driver(postgres.dsn("missing")).send("open 5000")
    assert 'database "missing" does not exist' in it.expect("failed retryable=0")
