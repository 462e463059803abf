"""Fixtures of every suite: real servers on free ports, real programs, and nothing left behind.

Each pytest worker has a PostgreSQL server of its own with a database per test; one RabbitMQ serves all workers.
`tests/run` sets HEIRFLOW_BUILD; alone: HEIRFLOW_BUILD=/path/to/build /usr/bin/python3 -m pytest tests/SUITE
"""
import fcntl
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import psycopg2
import pytest

SOURCE = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(SOURCE / "tests" / "support"), str(SOURCE / "provision")]
import fencing  # noqa: E402
import processes  # noqa: E402
import servers  # noqa: E402
import shared_rabbitmq as shared_brokers  # noqa: E402
import witness as witnesses  # noqa: E402
import wrapper as wrappers  # noqa: E402
from processes import wait_for  # noqa: E402,F401  (tests import it from here)

numbers = itertools.count(1)
lasting = set()  # pids that outlive a test


def interrupt(number, frame):
    raise KeyboardInterrupt(signal.Signals(number).name)


def pytest_configure(config):
    processes.become_subreaper()
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and all they start, ignore it
    if not hasattr(config, "workerinput"):
        config.heirflow_folder = pathlib.Path(tempfile.mkdtemp(prefix="heirflow-tests-"))
        config.heirflow_folder.chmod(0o755)
        os.environ["HEIRFLOW_TESTS_FOLDER"] = str(config.heirflow_folder)
        os.environ["HEIRFLOW_TESTS_OWNER"] = str(os.getpid())


def pytest_unconfigure(config):
    folder = getattr(config, "heirflow_folder", None)
    if folder:
        processes.end(lambda: processes.descendants(os.getpid()), 30)
        processes.reap_all()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def run_folder():
    """Where all workers of this run meet."""
    return pathlib.Path(os.environ["HEIRFLOW_TESTS_FOLDER"])


@pytest.fixture(scope="session")
def worker_folder(run_folder):
    path = run_folder / f"worker-{os.getpid()}"
    path.mkdir()
    return path


@pytest.fixture
def folder(worker_folder):
    """A folder of the test's own that every user may enter (pytest's tmp_path is closed to postgres)."""
    path = worker_folder / f"test-{next(numbers)}"
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def outlives_tests():
    """outlives_tests(*pids): these are ended by whoever started them, not with the test."""
    return lambda *pids: lasting.update(pids)


@pytest.fixture(autouse=True)
def no_survivors():
    """Ends whatever the test started, adopted orphans included."""
    yield
    mine = os.getpid()

    def strangers():
        table = processes.parents()
        kept = set()
        for pid in lasting:
            kept |= {pid, *processes.descendants(pid, table)}
        return [pid for pid in processes.descendants(mine, table) if pid not in kept]
    processes.end(strangers, 20)


# -- programs ---------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def build():
    """The meson build folder under test."""
    if os.environ.get("HEIRFLOW_BUILD"):
        return pathlib.Path(os.environ["HEIRFLOW_BUILD"])
    found = sorted(SOURCE.glob("build*/heirflow/heirflow"), key=lambda path: path.stat().st_mtime)
    assert found, "no build: set HEIRFLOW_BUILD to a meson build folder, or use tests/run"
    return found[-1].parent.parent


@pytest.fixture(scope="session")
def heirflow(build):
    """Path of the program."""
    return str(build / "heirflow" / "heirflow")


@pytest.fixture
def command(heirflow):
    """command("status", "--json", database=database, expect=0) runs one command and returns the CompletedProcess."""
    def run(*arguments, database=None, expect=None, timeout=30, input=None, **environment):
        if database is not None:
            environment["HEIRFLOW_POSTGRES"] = getattr(database, "dsn", database)
        result = subprocess.run([heirflow, *arguments], env=wrappers.clean_environment(**environment), timeout=timeout,
                                capture_output=True, text=True, input=input or "")
        if expect is not None:
            assert result.returncode == expect, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result
    return run


@pytest.fixture
def wrapper(heirflow, folder):
    """wrapper("ada", database=database, command=[...], group=..., lease_ms=1000, start=True, **configuration)."""
    def make(node="ada", database=None, command=None, rabbitmq=None, group="tests", lease_ms=1000, start=True,
             environment=None, **configuration):
        base = {"group": group, "lease_ms": lease_ms, "scheduler": {"command": command or ["sleep", "infinity"]}}
        if database is not None:
            base["postgres"] = getattr(database, "dsn", database)
        if rabbitmq is not None:
            base["rabbitmq"] = {"url": rabbitmq.url, "exchange": getattr(rabbitmq, "exchange", "heirflow.news")}
        made = wrappers.Wrapper(heirflow, folder / f"node-{node}-{next(numbers)}", node,
                                wrappers.merge(base, configuration), environment)
        return made.start() if start else made
    return make


@pytest.fixture
def witness(build, folder):
    """A folder of witnesses; witness.command() is the scheduler to configure. See tests/support/witness.py."""
    return witnesses.Witness(build / "tests" / "witness", folder / "witness")


# -- PostgreSQL -------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def postgres_template(run_folder):
    """A cluster that initdb has just made, shared by all workers."""
    path = run_folder / "template"
    with open(run_folder / "template.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            servers.Postgres.initialise(path)
    return path


def start_postgres(path, template, **settings):
    server = servers.Postgres(path, template, **settings)
    server.start()
    return server


@pytest.fixture(scope="session")
def postgres(worker_folder, postgres_template):
    """This worker's PostgreSQL server. Tests may use it, not break it: see own_postgres."""
    server = start_postgres(worker_folder / "postgres", postgres_template)
    lasting.add(server.process.pid)
    yield server
    server.remove()


@pytest.fixture
def own_postgres(folder, postgres_template):
    """A PostgreSQL server to stop, kill or freeze."""
    server = start_postgres(folder / "postgres", postgres_template)
    yield server
    server.remove()


@pytest.fixture
def worn_postgres(own_postgres):
    """A server that warns with every transaction that writes: its transaction ids run out, and nothing can be frozen."""
    server, reset = own_postgres, own_postgres.program("pg_resetwal")
    if pathlib.Path(reset).parent != pathlib.Path(server.program("postgres")).parent:
        pytest.skip("NOT TESTED: there is no pg_resetwal of this version")
    server.settings = server.settings | {"wal_level": "logical"}
    server.restart()
    server.psql("select pg_create_logical_replication_slot('holds_up_every_vacuum', 'pgoutput')")
    oldest = server.psql("select min(datfrozenxid::text::bigint) from pg_database")[0][0]
    server.stop()
    latest = oldest + 2 ** 31 - 1 - 8_000_000  # warnings begin 40 million before the end, 11 million up to version 13
    segment = server.data / "pg_xact" / f"{latest >> 20:04X}"
    segment.write_bytes(bytes(1 << 18))
    shutil.chown(segment, server.data.owner(), server.data.group())
    subprocess.run(servers.as_user("postgres", [reset, f"--next-transaction-id={latest}", f"--pgdata={server.data}"]),
                   check=True, stdout=subprocess.DEVNULL, cwd="/")
    server.start()
    server.psql("vacuum pg_largeobject")  # up to version 13 only a vacuum finds out how near the end is
    return server


class Database:
    def __init__(self, server, name):
        self.server, self.name, self.dsn = server, name, server.dsn(name)

    def connect(self, **more):
        return self.server.connect(self.name, **more)

    def query(self, sql, *values):
        """Rows of one statement, with the schema heirflow on the search path."""
        return self.server.psql("set search_path = heirflow, public; " + sql, *values, database=self.name)

    def value(self, sql, *values):
        return self.query(sql, *values)[0][0]


def migrate(program, database):
    subprocess.run([program, "migrate"], check=True, stdout=subprocess.DEVNULL,
                   env=wrappers.clean_environment(HEIRFLOW_POSTGRES=database.dsn))


def new_database(server, template="template1"):
    name = f"test_{os.getpid()}_{next(numbers)}"
    server.psql(f"create database {name} template {template}")
    return Database(server, name)


def drop_database(server, name):
    """PostgreSQL 12 has no "with (force)"; nor does it wait until those it has ended are gone."""
    server.psql(f"alter database {name} allow_connections false")

    def dropped():
        server.psql("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", name)
        try:
            server.psql(f"drop database {name}")
            return True
        except psycopg2.errors.ObjectInUse:
            return False
    wait_for(dropped, 30, f"the end of database {name}")


@pytest.fixture(scope="session")
def migrated_template(postgres, heirflow):
    made = new_database(postgres)
    migrate(heirflow, made)
    return made.name


@pytest.fixture
def database(postgres, migrated_template):
    """A fresh database with the schema, on this worker's server. Has .dsn, .query(sql), .value(sql), .connect()."""
    made = new_database(postgres, migrated_template)
    yield made
    drop_database(postgres, made.name)


@pytest.fixture
def empty_database(postgres):
    """A fresh database without the schema."""
    made = new_database(postgres)
    yield made
    drop_database(postgres, made.name)


@pytest.fixture
def own_database(own_postgres, heirflow):
    """A fresh database with the schema on a server of the test's own: own_database.server."""
    made = new_database(own_postgres)
    migrate(heirflow, made)
    return made


@pytest.fixture
def worn_database(worn_postgres, heirflow):
    made = new_database(worn_postgres)
    migrate(heirflow, made)
    return made


class FencedDatabase(Database):
    """Heirflow's database, owned by a plain role, beside a scheduler's database that is gated."""

    def login(self, node, **more):
        """As the scheduler of that node."""
        return self.server.connect(fencing.DATABASE, user=f"scheduler_{node}", **more)

    def may_enter(self, node):
        try:
            self.login(node).close()
            return True
        except psycopg2.OperationalError as error:
            assert "permission denied for database" in str(error)
            return False

    def admin(self, sql):
        return self.server.psql(sql)


@pytest.fixture
def fenced(own_postgres, heirflow):
    """Prepared by config/fencing.sql, with roles scheduler_ada and scheduler_bob."""
    for role in ("heirflow_member", "heirflow_operator", "heirflow_viewer"):
        own_postgres.psql(f"create role {role} nologin")
    own_postgres.psql("create role owner login")
    own_postgres.psql("create database home owner owner")
    made = FencedDatabase(own_postgres, "home")
    made.dsn = own_postgres.dsn("home", user="owner")
    migrate(heirflow, made)
    fencing.prepare(own_postgres, "owner", "ada", "bob")
    return made


class Pgbouncer:
    def __init__(self, folder, postgres, mode):
        self.port = processes.free_port()
        folder.chmod(0o755)
        (folder / "users").write_text('"postgres" ""\n')
        (folder / "ini").write_text(f"[databases]\n* = host=127.0.0.1 port={postgres.port} user=postgres\n[pgbouncer]\n"
                                    f"listen_addr=127.0.0.1\nlisten_port={self.port}\nunix_socket_dir=\nauth_type=any\n"
                                    f"auth_file={folder}/users\npool_mode={mode}\n")
        self.process = subprocess.Popen(servers.as_user("postgres", ["/usr/sbin/pgbouncer", "-q", str(folder / "ini")]),
                                        cwd="/", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: servers.port_open(self.port), what="pgbouncer")


@pytest.fixture
def pgbouncer(folder, postgres):
    """pgbouncer("transaction") or ("session"): a pooler in front of the worker's server; .port. Ends with the test."""
    if not pathlib.Path("/usr/sbin/pgbouncer").exists():
        pytest.skip("pgbouncer is not installed")
    return lambda mode: Pgbouncer(folder, postgres, mode)


# -- RabbitMQ ---------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def shared_rabbitmq(run_folder):
    shared = run_folder / "rabbitmq"
    with open(run_folder / "rabbitmq.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shared.mkdir(mode=0o755, exist_ok=True)
        broker, holder = shared_brokers.attend(shared, int(os.environ["HEIRFLOW_TESTS_OWNER"]))
    lasting.add(holder)
    return broker


@pytest.fixture
def rabbitmq(shared_rabbitmq):
    """The broker all tests share, with an exchange name of this test's own: .url, .exchange, .rabbitmqctl(...)."""
    shared_rabbitmq.exchange = f"test.{os.getpid()}.{next(numbers)}"
    return shared_rabbitmq


@pytest.fixture(scope="session")
def breakable_rabbitmq(worker_folder):
    broker = servers.RabbitMQ(worker_folder / "own-rabbitmq")
    yield broker
    broker.remove()


@pytest.fixture
def own_rabbitmq(breakable_rabbitmq):
    """A broker to stop, kill or freeze: this worker's own, mended before each test (starting one takes 6 s)."""
    broker = breakable_rabbitmq
    broker.exchange = f"test.{os.getpid()}.{next(numbers)}"
    broker.thaw()
    broker.start()
    lasting.update({broker.process.pid, broker.epmd.pid})
    yield broker
    broker.thaw()
    if broker.process:
        lasting.add(broker.process.pid)
