"""heirflow migrate: from nothing, again, side by side, and against databases that will not have it."""
import subprocess

import pytest

from conftest import SOURCE
from wrapper import clean_environment


@pytest.fixture
def login(postgres):
    """login("name", "attributes") makes a role that exists for this test only; returns it."""
    made = []

    def make(name, attributes="login"):
        role = f"{name}_{len(made)}_{id(made)}"
        postgres.psql(f"create role {role} {attributes}")
        made.append(role)
        return role
    yield make
    for role in made:
        for row in postgres.psql("select datname from pg_database where datallowconn and datname not like 'template%'"):
            postgres.psql(f"drop owned by {role} cascade", database=row[0])
        postgres.psql(f"drop role {role}")


def migrations():
    """(version, name) of each file of sql/."""
    return [(int(path.stem[:4]), path.stem) for path in sorted((SOURCE / "sql").glob("[0-9]*.sql"))]


def versions(database):
    return database.query("select version, name from schema_version order by version")


def test_creates_the_schema_and_does_nothing_the_second_time(command, empty_database):
    first = command("migrate", database=empty_database, expect=0)
    assert "applied 0001_succession" in first.stdout
    again = command("migrate", database=empty_database, expect=0)
    assert "already" in again.stdout and "applied" not in again.stdout
    assert [tuple(row) for row in versions(empty_database)] == migrations()


def test_upgrades_the_schema_of_the_first_release(command, empty_database):
    with empty_database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("create schema heirflow; set search_path = heirflow; create table schema_version (version integer "
                       "primary key, name text not null, applied_at timestamptz not null default now(), applied_by text "
                       "not null default session_user); insert into schema_version values (1, '0001_succession'); "
                       + (SOURCE / "sql/0001_succession.sql").read_text())
        cursor.execute("insert into throne (group_name, lease_ms) values ('kept', 6000)")
    upgrade = command("migrate", database=empty_database, expect=0)
    assert "applied 0002_audit" in upgrade.stdout and "applied 0001" not in upgrade.stdout
    assert [tuple(row) for row in versions(empty_database)] == migrations()
    assert "no term yet" in command("audit", "--group", "kept", database=empty_database, expect=0).stdout


def test_ten_at_once_apply_each_migration_once(heirflow, empty_database):
    running = [subprocess.Popen([heirflow, "migrate"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env=clean_environment(HEIRFLOW_POSTGRES=empty_database.dsn)) for _ in range(10)]
    outputs = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 10, outputs
    assert sum("applied 0001_succession" in output for output in outputs) == 1
    assert len(versions(empty_database)) == len(migrations())


def test_waits_for_a_migration_under_way(heirflow, empty_database):
    other = empty_database.connect()
    with other.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(hashtextextended('heirflow migrate heirflow', 0))")
    running = subprocess.Popen([heirflow, "migrate"], stdout=subprocess.PIPE, text=True,
                               env=clean_environment(HEIRFLOW_POSTGRES=empty_database.dsn))
    assert "waiting for another migration" in running.stdout.readline()
    assert empty_database.value("select to_regnamespace('heirflow') is null")
    other.close()
    assert "applied 0001_succession" in running.communicate(timeout=30)[0]
    assert running.returncode == 0


def test_another_schema_beside_the_first(command, empty_database):
    command("migrate", database=empty_database, expect=0)
    command("migrate", database=empty_database, expect=0, HEIRFLOW_SCHEMA="user")  # a reserved word
    assert empty_database.value("select count(*) from \"user\".schema_version") == len(migrations())
    assert "no group" in command("status", database=empty_database, expect=1, HEIRFLOW_SCHEMA="user").stderr


def test_refuses_a_newer_schema(command, database):
    database.query("insert into schema_version (version, name) values (1000, '1000_future')")
    for name in ("migrate", "status", "news", "history", "audit"):
        result = command(name, database=database, expect=3)
        assert "version 1000" in result.stderr and "upgrade heirflow on this node" in result.stderr


def test_works_on_the_next_schema(command, database):
    database.query("insert into schema_version (version, name) select max(version) + 1, 'next' from schema_version")
    assert "no group" in command("status", database=database, expect=1).stderr


def test_an_older_schema_asks_for_migrate(command, database):
    database.query("delete from schema_version")
    assert "run `heirflow migrate`" in command("status", database=database, expect=3).stderr


def test_a_database_without_the_schema_asks_for_migrate(command, empty_database):
    result = command("status", database=empty_database, expect=3)
    assert "run `heirflow migrate`" in result.stderr and result.stderr.count("\n") == 1


def test_a_user_without_rights_is_told_which_are_missing(command, postgres, empty_database, database, login):
    role = login("poor")
    may_not_create = command("migrate", database=postgres.dsn(empty_database.name, user=role), expect=3)
    assert f'grant create on database "{empty_database.name}" to "{role}"' in may_not_create.stderr
    may_not_look = command("status", database=postgres.dsn(database.name, user=role), expect=3)
    assert f'grant heirflow_member to "{role}"' in may_not_look.stderr


def test_a_viewer_may_look(command, postgres, database, login):
    role = login("viewer")
    postgres.psql(f"grant heirflow_viewer to {role}")
    assert "no group" in command("status", database=postgres.dsn(database.name, user=role), expect=1).stderr


def test_a_failing_migration_leaves_nothing_behind(empty_database, command):
    """Here its first table is there already."""
    with empty_database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("create schema heirflow; create table heirflow.throne (x integer)")
    result = command("migrate", database=empty_database, expect=3)
    assert "0001_succession" in result.stderr and "throne" in result.stderr
    assert empty_database.value("select count(*) from schema_version") == 0
    assert empty_database.value("select to_regclass('heirflow.roster') is null")


def test_tries_again_while_a_table_is_locked(heirflow, empty_database):
    with empty_database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("create schema heirflow; create table heirflow.schema_version (version integer primary key, "
                       "name text not null, applied_at timestamptz not null default now(), "
                       "applied_by text not null default session_user)")
    holder = empty_database.connect()
    holder.autocommit = False
    with holder.cursor() as cursor:
        cursor.execute("lock table heirflow.schema_version in share mode")
    running = subprocess.Popen([heirflow, "migrate"], stdout=subprocess.PIPE, text=True,
                               env=clean_environment(HEIRFLOW_POSTGRES=empty_database.dsn))
    assert "a table is locked by others" in running.stdout.readline()
    holder.rollback()
    holder.close()
    assert "applied 0001_succession" in running.communicate(timeout=30)[0]
    assert running.returncode == 0


def test_roles_that_the_owner_may_not_make_are_made_later(command, own_postgres):
    for statement in ("create role owner login", "create role alice login", "create database home owner owner"):
        own_postgres.psql(statement)
    alice = own_postgres.dsn("home", user="alice")
    first = command("migrate", database=own_postgres.dsn("home", user="owner"), expect=0).stdout
    assert first.count("note: ") == 1 and "heirflow_viewer" in first and "as a superuser" in first
    command("status", database=alice, expect=3)
    assert "note: " not in command("migrate", database=own_postgres.dsn("home"), expect=0).stdout
    own_postgres.psql("grant heirflow_viewer to alice")
    assert "no group" in command("status", database=alice, expect=1).stderr
    assert "already" in command("migrate", database=alice, expect=0).stdout
    assert own_postgres.psql("select proname from pg_proc p, unnest(p.proacl) acl where acl::text like '=X%' and "
                             "pronamespace = 'heirflow'::regnamespace", database="home") == [], "for everybody"


def test_a_read_only_standby_is_named(command, own_postgres):
    own_postgres.psql("alter system set hot_standby = on")
    own_postgres.stop()
    (own_postgres.data / "standby.signal").touch()
    own_postgres.start()
    result = command("migrate", database=own_postgres.dsn("postgres"), expect=3)
    assert "standby" in result.stderr


def test_database_down_is_one_line_without_the_password(command, own_postgres):
    own_postgres.stop()
    dsn = own_postgres.dsn("postgres", password="hush-hush")
    for name in ("migrate", "status", "history", "audit", "news"):
        result = command(name, database=dsn, expect=3)
        assert result.stderr.count("\n") == 1 and "hush-hush" not in result.stderr
        assert str(own_postgres.port) in result.stderr


def test_wrong_password_is_told(command, own_postgres):
    own_postgres.psql("create role guarded login password 'right'")
    own_postgres.hba("host all guarded all scram-sha-256", "local all guarded scram-sha-256")
    result = command("status", database=own_postgres.dsn("postgres", user="guarded", password="wrong-one"), expect=3)
    assert "password authentication failed" in result.stderr and "wrong-one" not in result.stderr
