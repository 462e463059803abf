"""Two adjacent versions in one group: the schema is upgraded under them, and they succeed each other in both orders."""
import subprocess
import threading

import psycopg2
import pytest
import wrapper as wrappers
from processes import wait_for

LEASE_MS = 2000


@pytest.fixture
def member(wrapper, witness, database):
    """member("ada", program) starts a wrapper of that version and waits until it stands in the line."""
    def start(node, program, **more):
        made = wrapper(node, database=database, command=witness.command(), lease_ms=LEASE_MS, start=False, **more)
        made.program = program
        made.start().wait_for_event("standby", 30)
        return made
    return start


def migrate(program, database):
    done = subprocess.run([program, "migrate"], capture_output=True, text=True, timeout=60,
                          env=wrappers.clean_environment(HEIRFLOW_POSTGRES=database.dsn))
    assert done.returncode == 0, done.stderr


def runs_on(witness, node):
    wait_for(lambda: witness.running_on() == node, 30, f"the scheduler running on {node}")


def terms(database):
    return database.value("select count(*) from terms")


@pytest.fixture
def load(database):
    """Readers that keep looking, one of them in transactions that stay open for a while."""
    ended, faults = threading.Event(), []

    def look(pause):
        with database.connect() as connection, connection.cursor() as cursor:
            while not ended.is_set():
                try:
                    cursor.execute("select count(*) from heirflow.roster, heirflow.news")
                    ended.wait(pause)
                    connection.commit()
                except psycopg2.Error as error:
                    faults.append(error)
                    return
    threads = [threading.Thread(target=look, args=(pause,)) for pause in (0.001, 0.001, 0.3)]
    for thread in threads:
        thread.start()
    yield
    ended.set()
    for thread in threads:
        thread.join()
    assert faults == []


def test_the_schema_is_upgraded_under_running_wrappers(member, witness, database, heirflow, next_heirflow, load):
    ada, bert = member("ada", heirflow), member("bert", heirflow)
    runs_on(witness, "ada")
    migrate(next_heirflow, database)
    assert database.value("select next_count('tests')") == 2
    assert database.value("select max(version) from schema_version") > database.value(
        "select (self->>'schema_version')::integer from roster limit 1"), "the wrappers know the new schema"
    beat = database.value("select beat from throne")
    wait_for(lambda: database.value("select beat from throne") > beat + 5, 30, "renewals on the new schema")
    assert terms(database) == 1 and len(witness.runs()) == 1 and witness.overlaps() == []
    ada.kill()
    runs_on(witness, "bert")
    assert "database-refused" not in ada.events() + bert.events()


@pytest.mark.parametrize("order", ["older first", "newer first"])
@pytest.mark.parametrize("end", ["kill", "terminate", "power_off"])
def test_versions_inherit_from_each_other(member, witness, database, heirflow, next_heirflow, order, end):
    migrate(next_heirflow, database)
    programs = [heirflow, next_heirflow] if order == "older first" else [next_heirflow, heirflow]
    ada, bert = member("ada", programs[0]), member("bert", programs[1])
    runs_on(witness, "ada")
    getattr(ada, end)()
    runs_on(witness, "bert")
    cleo = member("cleo", programs[0])
    bert.terminate()
    runs_on(witness, "cleo")
    assert witness.overlaps() == [] and witness.nodes() == ["ada", "bert", "cleo"]
    assert "database-refused" not in bert.events() + cleo.events()


def test_one_node_after_the_other(member, wrapper, witness, database, command, heirflow, next_heirflow, load):
    """A rolling upgrade as the manual has it: the schema first, then each wrapper is stopped and started anew."""
    members = [member(node, heirflow) for node in ("ada", "bert", "cleo")]
    runs_on(witness, "ada")
    migrate(next_heirflow, database)
    for old in members:
        old.terminate()
        old.wait()
        old.program = next_heirflow
        old.start()
        wait_for(lambda: database.query("select 1 from roster where node = %s and present and eligible", old.node), 30,
                 f"{old.node} back in the line")
    wait_for(lambda: witness.running_on(), 30, "a scheduler")
    assert witness.overlaps() == []
    assert set(row[0] for row in database.query("select reason from terms where ended_at is not null")) == {"leaving"}
    command("audit", "--group", "tests", database=database, expect=0)


def test_a_program_older_than_the_last_but_one_schema_says_so(member, database, heirflow, next_heirflow, wrapper):
    migrate(next_heirflow, database)
    newest = database.value("select max(version) from schema_version")
    database.query("insert into schema_version (version, name) values (%s, 'one more') returning 1", newest + 1)
    old = wrapper("ada", database=database)
    old.program = heirflow
    wait_for(lambda: "upgrade heirflow on this node" in old.log(), 30, "the refusal")
