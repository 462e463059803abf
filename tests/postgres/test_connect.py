"""Connecting: which server is chosen, how long that takes, and what is said when none will do."""
import socket
import subprocess

import pytest
import servers
from processes import free_port, wait_for


@pytest.fixture
def black_hole():
    """A port whose kernel says yes and where nobody ever answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield listener.getsockname()[1]


def test_connects_and_sets_the_session_up(driver, postgres):
    it = driver(postgres.dsn()).send("connect")
    it.expect("connected")
    assert it.ask("select current_setting('search_path')") == '"heir ""flow""", pg_temp'
    assert it.ask("select current_setting('lock_timeout')") == "700ms"
    assert it.ask("select current_setting('application_name')") == "heirflow:tests:driver"
    assert it.ask("select current_setting('client_encoding')") == "UTF8"


def test_settings_of_the_role_do_not_get_in_the_way(driver, postgres):
    postgres.psql("create role awkward login")
    for setting in ("statement_timeout = '10s'", "lock_timeout = 1", "default_transaction_read_only = on",
                    "default_transaction_isolation = serializable", "idle_in_transaction_session_timeout = 5",
                    "idle_session_timeout = '10s'", "client_min_messages = error"):
        postgres.psql(f"alter role awkward set {setting}")
    try:
        it = driver(postgres.dsn(user="awkward")).send("connect")
        it.expect("connected")
        assert it.ask("select concat_ws(' ', current_setting('statement_timeout'), current_setting('lock_timeout'), "
                      "current_setting('transaction_read_only'), current_setting('transaction_isolation'), "
                      "current_setting('idle_in_transaction_session_timeout'), current_setting('idle_session_timeout'), "
                      "current_setting('client_min_messages'))") == "0 700ms off read committed 0 0 warning"
        it.finish()
    finally:
        postgres.psql("drop role awkward")


def test_application_name_of_the_connection_string_wins(driver, postgres):
    it = driver(postgres.dsn(application_name="mine"), PGAPPNAME="theirs").send("connect")
    it.expect("connected")
    assert it.ask("select current_setting('application_name')") == "mine"


def test_environment_says_where(driver, postgres):
    it = driver("", PGHOST="127.0.0.1", PGPORT=str(postgres.port), PGUSER="postgres").send("connect")
    it.expect("connected")


def test_uri_with_several_hosts(driver, postgres):
    it = driver(f"postgresql://postgres@127.0.0.1:{free_port()},localhost:{postgres.port}/postgres").send("connect")
    it.expect("connected")


@pytest.fixture
def service(folder):
    """service(port=5432, ...) writes the service "here" and returns the environment to find it in."""
    def write(**options):
        (folder / "services").write_text("[here]\n" + "".join(f"{key}={value}\n" for key, value in options.items()))
        return {"PGSERVICEFILE": str(folder / "services")}
    return write


def test_service(driver, postgres, service):
    found = service(host="localhost", port=postgres.port, user="postgres", dbname="template1", application_name="theirs")
    it = driver("service=here dbname=postgres", **found).send("connect")
    it.expect("connected")
    assert it.ask("select current_database()") == "postgres", "the connection string goes before the service"
    driver("", PGSERVICE="here", **found).send("connect").expect("connected")


def test_service_with_several_hosts(driver, postgres, service, black_hole):
    port = free_port()
    hosts = {"host": "localhost,127.0.0.1,localhost", "port": f"{port},{black_hole},{postgres.port}", "user": "postgres"}
    driver("service=here", attempt_ms=700, **service(**hosts)).send("connect").expect("connected")
    said = driver("service=here host=127.0.0.1 port=1", **service(**hosts)).send("connect").expect("disconnected")
    assert "127.0.0.1 port 1: Connection refused" in said and "localhost" not in said


def test_service_that_is_not_in_its_file(driver, service):
    it = driver("service=there", **service(host="localhost"))
    it.process.stdin.close()
    assert 'retryable=1 postgres: definition of service "there" not found' in it.expect("unusable")
    assert it.process.wait(10) == 2


def test_unix_socket(own_postgres, driver):
    own_postgres.stop()
    own_postgres.settings = own_postgres.settings | {"unix_socket_directories": str(own_postgres.data), "listen_addresses": ""}
    own_postgres.start(wait=False)
    wait_for((own_postgres.data / f".s.PGSQL.{own_postgres.port}").exists)
    conninfo = f"host={own_postgres.data} port={own_postgres.port} user=postgres"
    it = driver(conninfo)

    def connected():
        it.send("connect")
        return it.next().startswith("connected")
    wait_for(connected)


def test_refused_port_names_host_cause_and_remedy(driver):
    port = free_port()
    it = driver(f"host=localhost port={port} user=x password=hush").send("connect")
    said = it.expect("disconnected")
    assert f"localhost (127.0.0.1) port {port}: Connection refused (is the server running" in said
    assert "retryable=1" in said and "hush" not in said


def test_every_host_is_named_in_one_line(driver):
    one, two = free_port(), free_port()
    said = driver(f"host=127.0.0.1,nowhere.invalid,localhost port={one},2,{two} user=x").send("connect").expect("disconnected")
    assert f"127.0.0.1 port {one}: Connection refused" in said and "nowhere.invalid port 2: cannot resolve the name" in said
    assert f"port {two}: Connection refused" in said


def test_black_hole_does_not_starve_the_next_host(driver, postgres, black_hole, seconds):
    it = driver(f"host=127.0.0.1,127.0.0.1 port={black_hole},{postgres.port} user=postgres", attempt_ms=700).send("connect")
    it.expect("connected")
    assert seconds() < 3


def test_next_round_begins_where_it_worked(driver, postgres, black_hole, seconds):
    it = driver(f"host=127.0.0.1,127.0.0.1 port={black_hole},{postgres.port} user=postgres", attempt_ms=4000).send("connect")
    it.expect("connected")
    before = seconds()
    it.send("drop", "connect").expect("connected")
    assert seconds() - before < 2


def test_black_hole_alone(driver, black_hole, seconds):
    said = driver(f"host=127.0.0.1 port={black_hole} user=x", attempt_ms=300).send("connect").expect("disconnected")
    assert "no answer within 300 ms" in said and seconds() < 5


def test_giving_up_tells_what_failed_so_far(driver, black_hole):
    port = free_port()
    it = driver(f"host=127.0.0.1,127.0.0.1 port={port},{black_hole} user=x", attempt_ms=60000).send("open 300")
    said = it.expect("failed")
    assert f"port {port}: Connection refused" in said and f"port {black_hole}: no answer" in said


def test_blocking_face_gives_every_host_its_turn(driver, postgres, black_hole):
    it = driver(f"host=127.0.0.1,127.0.0.1 port={black_hole},{postgres.port} user=postgres", attempt_ms=60000)
    it.send("open 4000").expect("opened")
    it.send("close").expect("session-closed")


def test_unresolvable_name(driver):
    said = driver("host=nowhere.invalid user=x").send("connect").expect("disconnected")
    assert "nowhere.invalid port 5432: cannot resolve the name" in said and "retryable=1" in said


def scram(postgres, password):
    postgres.psql("set password_encryption = 'scram-sha-256'")
    postgres.psql(f"create role guarded login password '{password}'")
    postgres.hba("host all guarded 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust")


def test_password(own_postgres, driver):
    scram(own_postgres, "correct")
    said = driver(own_postgres.dsn(user="guarded", password="hushhush")).send("connect").expect("disconnected")
    assert 'password authentication failed for user "guarded" (check user and password)' in said
    assert "retryable=0" in said and "hushhush" not in said
    said = driver(own_postgres.dsn(user="guarded")).send("connect").expect("disconnected")
    assert "no password supplied (give a password" in said
    driver(own_postgres.dsn(user="guarded", password="correct")).send("connect").expect("connected")
    driver(own_postgres.dsn(user="guarded"), PGPASSWORD="correct").send("connect").expect("connected")


def test_missing_database_and_role(driver, postgres):
    said = driver(postgres.dsn("missing")).send("connect").expect("disconnected")
    assert 'database "missing" does not exist (create the database, or name another one)' in said and "retryable=0" in said
    said = driver(postgres.dsn(user="nobody")).send("connect").expect("disconnected")
    assert 'role "nobody" does not exist (create the role' in said


@pytest.mark.parametrize("conninfo, said, hidden", [
    ("host=a passwrd=x", 'invalid connection option "', "x"),
    ("password=two hush1", "unusable", "hush1"),
    ("postgresql://user:hush2@[::1/db", "unusable", "hush2"),
    ("host=a,b hostaddr=1.2.3.4", "2 host names but 1 hostaddr", None),
    ("host=a,b,c port=1,2", "2 ports for 3 hosts", None),
    ("host=a target_session_attrs=standby", "Heirflow needs the primary", None),
])
def test_unusable_connection_strings(driver, conninfo, said, hidden):
    it = driver(conninfo)
    it.process.stdin.close()
    line = it.expect("unusable")
    assert said in line and (not hidden or hidden not in line.replace("passwrd=x", ""))
    assert it.process.wait(10) == 2


@pytest.fixture
def standby(own_postgres, folder):
    """Of own_postgres."""
    standby = servers.Postgres.__new__(servers.Postgres)
    standby.folder, standby.port = folder / "standby", free_port()
    standby.data, standby.log_path = standby.folder / "data", standby.folder / "log"
    standby.folder.mkdir(mode=0o755)
    servers.private_folder(standby.data, "postgres")
    subprocess.run(servers.as_user("postgres", [servers.Postgres.program("pg_basebackup"), "-D", str(standby.data), "-c", "fast",
                                                "--no-sync", "-R", "-d", own_postgres.dsn()]), check=True, cwd="/")
    standby.start()
    yield standby
    standby.remove()


def test_standby_is_skipped(own_postgres, standby, driver, service):
    said = driver(standby.dsn()).send("connect").expect("disconnected")
    assert "a standby in recovery, not the primary" in said and "retryable=1" in said
    ports = f"{standby.port},{own_postgres.port}"
    for it in (driver(f"host=127.0.0.1,127.0.0.1 port={ports} user=postgres"),
               driver("service=here", **service(host="127.0.0.1,127.0.0.1", port=ports, user="postgres"))):
        it.send("connect").expect("connected")
        assert it.ask("select pg_is_in_recovery()") == "f"


def test_transaction_pooler_is_refused(driver, postgres, pgbouncer):
    it = driver(f"host=127.0.0.1 port={pgbouncer('transaction').port} dbname=postgres user=postgres").send("connect")
    said = it.expect("disconnected")
    assert "transaction pooler in between" in said and "use a session pool or connect directly" in said and "retryable=0" in said
    # nothing of ours was left behind in the pool's session
    assert postgres.psql("select count(*) from pg_stat_activity where query ilike 'set search_path%'") == [(0,)]


def test_session_pooler_is_accepted(driver, postgres, pgbouncer):
    it = driver(f"host=127.0.0.1 port={pgbouncer('session').port} dbname=postgres user=postgres").send("connect")
    it.expect("connected")
    assert it.ask("select 1") == "1"
