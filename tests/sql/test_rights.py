"""Three roles, each with what it needs; nobody but the owner touches a table."""
import pathlib
import uuid

import psycopg2
import pytest
from processes import wait_for

MEMBER = {"register", "heartbeat", "accede", "abdicate", "leave", "relay_claim", "relay_published", "fence", "forget",
          "store_estate", "fetch_estate", "hooks_next"}
OPERATOR = {"request_switchover", "set_paused", "set_retired", "set_lease", "remove_member"}
VIEWER = {"news_after", "news_last", "group_names", "status", "history", "audit", "server_identity", "fence_check", "assert_heir",
          "member_details", "groups", "estate"}


@pytest.fixture
def login(database):
    """login(role): a connection of a fresh user that is in that role only."""
    made = []

    def connect(role=None):
        name = f"user_{uuid.uuid4().hex[:12]}"
        database.query(f"create role {name} login{f' in role {role}' if role else ''}; select 1")
        made.append((name, psycopg2.connect(database.server.dsn(database.name, user=name))))
        made[-1][1].autocommit = True
        made[-1][1].cursor().execute("set search_path = heirflow, pg_temp")
        return made[-1][1]
    yield connect
    for name, connection in made:
        pid = connection.info.backend_pid
        connection.close()  # its server process removes the user's temporary tables, and only then goes
        wait_for(lambda: not database.query("select from pg_stat_activity where pid = %s", pid), 30, f"the end of {name}")
        database.query(f"drop role {name}; select 1")


@pytest.mark.parametrize("role, allowed", [("heirflow_member", MEMBER | VIEWER), ("heirflow_operator", OPERATOR | VIEWER),
                                           ("heirflow_viewer", VIEWER), (None, set())])
def test_functions(login, database, role, allowed):
    name = login(role).info.user
    rows = database.query("select distinct p.proname, has_function_privilege(%s, p.oid, 'execute') from pg_proc p "
                          "join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'heirflow'", name)
    assert {function for function, may in rows if may} == allowed
    assert len(rows) > len(MEMBER | OPERATOR | VIEWER), "internal functions were looked at too"


@pytest.mark.parametrize("role", ["heirflow_member", "heirflow_operator", "heirflow_viewer", None])
def test_tables(login, database, role):
    connection = login(role)
    rows = database.query("select c.relname, p.privilege from pg_class c join pg_namespace n on n.oid = c.relnamespace, "
                          "unnest(array['select', 'insert', 'update', 'delete', 'truncate']) p (privilege) "
                          "where n.nspname = 'heirflow' and c.relkind = 'r' and has_table_privilege(%s, c.oid, p.privilege)",
                          connection.info.user)
    assert rows == ([("schema_version", "select")] if role else [])
    with connection.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute("select nextval('heirflow.member_id')")


def attempts(database):
    """What each role could try, from the catalogue: (what, statement), and the functions by name."""
    functions = database.server.psql("""
        select p.proname, format('select %I.%I(%s)', s.nspname, p.proname, (
            select string_agg('null::' || format_type(type, null), ', ' order by place)
              from unnest(p.proargtypes::oid[]) with ordinality u (type, place)))
          from pg_proc p join pg_namespace s on s.oid = p.pronamespace where s.nspname = 'heirflow'""", database=database.name)
    relations = database.query("select c.relname, c.relkind::text from pg_class c join pg_namespace s "
                               "on s.oid = c.relnamespace where s.nspname = 'heirflow' and c.relkind in ('r', 'S', 'v', 'm')")
    others = [("create", f"create {what}") for what in (
        "table heirflow.own (a integer)", "schema own", "function heirflow.own() returns integer language sql as 'select 1'",
        "role own", "extension pg_stat_statements", "temporary table own (a integer) tablespace pg_global")]
    others += [("server", sql) for sql in (
        "select * from pg_authid", "select pg_read_file('/etc/passwd')", "copy (select 1) to program 'true'",
        "copy (select 1) to '/tmp/own'", "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'postgres'", "checkpoint",
        "set session authorization postgres", "set role postgres", "alter schema heirflow rename to own",
        "drop schema heirflow cascade",
        "grant heirflow_operator to current_user", "alter function heirflow.status(text) owner to current_user",
        "create or replace function heirflow.server_identity() returns text language sql as $$ select 'mine' $$")]
    tables = []
    for name, kind in relations:
        if kind == "S":
            tables += [(name, f"select nextval('heirflow.{name}')"), (name, f"select setval('heirflow.{name}', 1)"),
                       (name, f"select * from heirflow.{name}")]
            continue
        column = database.value("select attname from pg_attribute where attrelid = ('heirflow.' || %s)::regclass "
                                "and attnum = 1", name)
        tables += [(name, sql) for sql in (
            f"select * from heirflow.{name}", f"select {column} from heirflow.{name}",
            f"insert into heirflow.{name} default values",
            f"update heirflow.{name} set {column} = null", f"delete from heirflow.{name}", f"truncate heirflow.{name}",
            f"lock heirflow.{name} in access share mode", f"alter table heirflow.{name} disable trigger all",
            f"drop table heirflow.{name} cascade", f"create trigger own before insert on heirflow.{name} "
            "for each row execute function suppress_redundant_updates_trigger()")]
    return functions, tables + others


@pytest.mark.parametrize("role, allowed", [("heirflow_member", MEMBER | VIEWER), ("heirflow_operator", OPERATOR | VIEWER),
                                           ("heirflow_viewer", VIEWER), (None, set())])
def test_nobody_does_what_is_not_theirs(login, database, role, allowed):
    """Everything that is in the schema is tried, so that what is new cannot be forgotten."""
    functions, others = attempts(database)
    connection = login(role)
    connection.autocommit = False

    def refused(statement):
        with connection.cursor() as cursor:
            try:
                cursor.execute("set search_path = heirflow, pg_temp")
                cursor.execute(statement)
                return False
            except psycopg2.errors.InsufficientPrivilege:
                return True
            except psycopg2.Error:   # it got in
                return False
            finally:
                connection.rollback()
    assert {name for name, statement in functions if not refused(statement)} == allowed
    readable = {"schema_version"} if role else set()
    done = {(what, statement) for what, statement in others if not refused(statement)}
    assert {what for what, statement in done} == readable, done
    assert all(statement.startswith(("select ", "lock ")) for _, statement in done)
    assert len(functions) > 30 and len(others) > 60, "the catalogue was read"


def test_a_member_can_do_its_work(login, member, events):
    ada = member("ada", connection=login("heirflow_member"))
    assert ada.accede()["acceded"] and ada.beat(ada.view["term"], news=[{"event": "x", "id": str(uuid.uuid4())}])["renewed"]
    assert ada.call("relay_claim", "g", ada.member_id, 5000)["granted"]
    assert ada.call("relay_published", "g", ada.member_id, 1)
    assert ada.call("status", "g")["heir"]["node"] == "ada"
    assert ada.abdicate()["held"] and ada.leave()["left"]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        ada.call("set_paused", "g", True)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        ada.call("vacate", "g", "abdicated", "", "ada")


def test_an_operator_and_a_viewer_can_do_theirs(login, member, line):
    ada, bob, cleo = line
    operator = member("op", register=False, connection=login("heirflow_operator"))
    assert operator.call("request_switchover", "g", "bob")["accepted"] and operator.call("set_lease", "g", 5000)
    assert operator.call("set_retired", "g", "bob", True)["changed"] and operator.call("set_paused", "g", True)
    viewer = member("view", register=False, connection=login("heirflow_viewer"))
    assert viewer.call("status", "g")["paused"] and viewer.call("history", "g", 5) and viewer.call("audit", "g")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        viewer.call("set_paused", "g", False)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        viewer.call("heartbeat", "g", ada.seat, ada.member_id, ada.incarnation, None, {}, [])


def test_temporary_tables_and_functions_of_the_caller_do_not_count(login, member):
    connection = login("heirflow_member")
    ada = member("ada", connection=connection)
    with connection.cursor() as cursor:
        cursor.execute("set search_path = pg_temp, heirflow; create temp table throne (group_name text, member_id bigint, "
                       "incarnation uuid, term bigint, beat bigint); create temp table roster (group_name text); "
                       "create function pg_temp.server_identity() returns text language sql as $$ select 'mine' $$")
    assert ada.accede()["acceded"] and "mine" not in ada.view["identity"]


def test_an_owner_that_is_no_superuser(migrated_template, empty_database):
    """Without CREATEROLE, on a server whose roles exist: everything works, the timeline included."""
    owner = f"owner_{uuid.uuid4().hex[:12]}"
    empty_database.query(f"create role {owner} login; grant create on database {empty_database.name} to {owner}; select 1")
    try:
        connection = psycopg2.connect(empty_database.server.dsn(empty_database.name, user=owner))
        connection.autocommit = True
        text = (pathlib.Path(__file__).parents[2] / "sql" / "0001_succession.sql").read_text()
        with connection.cursor() as cursor:
            cursor.execute("begin; create schema heirflow; set local search_path = heirflow; create table schema_version "
                           "(version integer primary key); " + text + "; commit")
            cursor.execute("select heirflow.register('g', %s, 1, %s, 'ada', 6000, '{}')", (str(uuid.uuid4()),) * 2)
            assert cursor.fetchone()[0]["identity"].count("/") == 3
            cursor.execute("select has_schema_privilege('heirflow_member', 'heirflow', 'usage')")
        connection.close()
    finally:
        empty_database.query(f"drop owned by {owner}; drop role {owner}; select 1")
