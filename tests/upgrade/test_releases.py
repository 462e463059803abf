"""The schema of every release, with a group that has lived in it (schema-VERSION.sql), upgraded to what comes next.

`tests/upgrade/keep` writes the file of the version in meson.build anew. That is right until the version is tagged; from then
on its file stays as it is, and so do its migrations: what is to change comes in a migration with a new number.
"""
import json
import os
import pathlib
import re
import subprocess

import pytest
import servers
from processes import wait_for

HERE = pathlib.Path(__file__).parent
RELEASES = [path.name for path in sorted(HERE.glob("schema-*.sql"))]
GROUP, LEASE_MS, NEXT_LEASE_MS = "tests", 1500, 2000
TABLES = """select c.relname, array_agg(quote_ident(a.attname) order by a.attnum) from pg_class c
              join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             where c.relnamespace = 'heirflow'::regnamespace and c.relkind = 'r' group by c.relname"""
FUNCTIONS = """select p.oid::regprocedure::text, pg_get_function_result(p.oid), p.proacl::text from pg_proc p
                where p.pronamespace = 'heirflow'::regnamespace"""

# keeps one line a term in a file that the next heir inherits
SCHEDULER = ["sh", "-c", 'echo "$HEIRFLOW_NODE" >>state; exec sleep infinity']


def dump(database, *options):
    """As text that any connection can execute, and that is the same for the same schema."""
    text = subprocess.run([servers.Postgres.program("pg_dump"), *options, "--schema=heirflow", "--no-owner", "--inserts",
                           database.dsn], check=True, capture_output=True, text=True).stdout
    return "".join(line for line in text.splitlines(True) if not re.match(r"\\|-- Dumped (from|by) ", line))


def contents(database, columns):
    """{table: rows, as text} of these columns; what tells which migrations were applied aside."""
    return {table: database.query(f"select kept::text from (select {', '.join(names)} from {table}) kept order by 1")
            for table, names in columns.items() if table != "schema_version"}


@pytest.fixture
def member(wrapper, folder):
    """member("ada"): a node whose scheduler leaves something to inherit, and whose hook notes what it was told."""
    def make(node, database, **more):
        home = folder / node
        home.mkdir()
        home.chmod(0o777)
        made = wrapper(node, database=database, command=SCHEDULER, lease_ms=LEASE_MS, start=False, retention_days=0,
                       scheduler={"directory": str(home), "estate": ["state"], "estate_interval_ms": 100, "stop_timeout_ms": 300},
                       hooks={"on_group_event": ["sh", "-c", 'echo "$HEIRFLOW_SEQUENCE" >>"$0"', str(home / "told")]}, **more)
        made.home = home
        return made
    return make


@pytest.fixture(params=RELEASES)
def released(request, empty_database, migrated_template):
    """A database as that release left it (migrated_template: the roles are there)."""
    with empty_database.connect() as connection, connection.cursor() as cursor:
        cursor.execute((HERE / request.param).read_text())
    return empty_database


# -- what a release leaves, by this very program ----------------------------------------------------------------------

@pytest.mark.keep
def test_keep_the_schema_of_this_version(member, database, command, heirflow):
    members = {}
    for node in ("ada", "bert", "cleo", "dora"):
        members[node] = member(node, database).start()
        members[node].wait_for_event("standby")

    def tell(*arguments):
        command(*arguments, "--group", GROUP, database=database, expect=0)
    wait_for(lambda: database.query("select 1 from estate"), 30, "ada's estate")
    tell("switchover", "--to", "bert")
    tell("retire", "--node", "cleo")
    members["dora"].terminate()
    members["dora"].wait()
    tell("lease", str(NEXT_LEASE_MS))
    database.query("insert into fence values ('other', 'heirflow_member') returning 1")
    wait_for(lambda: database.value("select node = 'bert' from estate order by term desc limit 1"), 30, "bert's estate")
    wait_for(lambda: database.value("select sequence = (select last from news_counter) from hooks"), 30, "the hook")
    version = command("version").stdout.split()[1]
    (HERE / f"schema-{version}.sql").write_text(
        f"-- What Heirflow {version} leaves in a database. Written by tests/upgrade/keep; frozen once {version} is tagged.\n" + dump(database))


# -- and what becomes of it -------------------------------------------------------------------------------------------

def test_a_new_database_and_an_upgraded_one_are_the_same(released, database, migrate, next_heirflow):
    for each in (released, database):
        migrate(next_heirflow, each.dsn)
    upgraded, new = dump(released, "--schema-only"), dump(database, "--schema-only")
    assert upgraded.splitlines() == new.splitlines(), (
        "a released migration was edited. Undo that, and put the change into a migration of its own; if the version is not "
        "tagged yet, tests/upgrade/keep writes what it leaves anew")


def test_an_upgrade_keeps_what_is_there(released, migrate, next_heirflow):
    columns, functions = dict(released.query(TABLES)), set(released.query(FUNCTIONS))
    applied, before = set(released.query("select * from schema_version")), contents(released, columns)
    assert all(before.values()), "a table of the release holds nothing to be kept"
    migrate(next_heirflow, released.dsn)
    assert contents(released, columns) == before
    assert functions <= set(released.query(FUNCTIONS)), "wrappers of the release call these functions"
    newer = set(released.query("select * from schema_version")) - applied
    assert set(released.query("select * from schema_version")) >= applied, "a migration was applied again"
    assert newer and min(version for version, *_ in newer) > max(version for version, *_ in applied)


def lock_file_of(made, seat, generation):
    """As the release's wrapper left it on this very host: see heirflow/seat.c."""
    run = made.folder / "run"
    run.mkdir(exist_ok=True)
    path = run / f"{GROUP}.lock"
    path.touch()
    place = path.stat()
    text = json.dumps({"seat": seat, "generation": generation, "device": place.st_dev, "inode": place.st_ino, "pid": 0,
                       "boot_id": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
                       "pid_namespace": os.readlink("/proc/self/ns/pid"), "pid_started": 0})
    path.write_text(text.ljust(1023) + "\n")


def test_a_member_goes_on(member, released, command, migrate, next_heirflow):
    """The heir of the release comes back with its seat: it succeeds itself, with all that it and others have left."""
    seat, generation, term = released.query("""select r.seat::text, r.generation, t.term from roster r
                                                 join throne t using (member_id) where node = 'bert'""")[0]
    last, told = released.value("select last from news_counter"), released.value("select sequence from hooks")
    history = "select term, member_id, node, began_at, ended_at, ended_by, reason from terms where ended_at is not null"
    terms = set(released.query(history))
    migrate(next_heirflow, released.dsn)
    bert, cleo = member("bert", released), member("cleo", released)
    lock_file_of(bert, seat, generation)
    for each in (bert, cleo):
        each.program = next_heirflow
        each.start()
    wait_for(lambda: "scheduler-started" in bert.events(), 30, bert.log)
    now, lease_ms = released.query("select term, lease_ms from throne")[0]
    assert now > term and lease_ms == NEXT_LEASE_MS, "the lease that was to come"
    assert released.query("select reason from terms where term = %s", term) == [("restarted",)]
    assert released.query("select seat::text, generation > %s from roster where node = 'bert'", generation) == [(seat, True)]
    assert terms <= set(released.query(history))
    assert released.query("select sequence from news order by sequence") == [
        (number,) for number in range(1, released.value("select last from news_counter") + 1)]
    wait_for(lambda: (bert.home / "state").read_text() == "ada\nbert\nbert\n", 30, "what was inherited, and a term more")
    wait_for(lambda: (bert.home / "told").exists() and int((bert.home / "told").read_text().split()[-1]) > last, 30, bert.log)
    assert int((bert.home / "told").read_text().split()[0]) == told + 1, "the hook goes on where it was"
    status = json.loads(command("status", "--json", "--group", GROUP, database=released, expect=0).stdout)
    assert {each["node"]: each["role"] for each in status["members"]}.items() >= {
        "bert": "heir", "cleo": "retired"}.items()
    command("audit", "--group", GROUP, database=released, expect=0)
    assert "database-refused" not in bert.events()
