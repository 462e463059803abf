"""Two adjacent versions in one group: the schema is upgraded under them, and they succeed each other in both orders."""
import threading

import psycopg2
import pytest
from processes import wait_for
from world import BACK, DATABASE, LOSS

LEASE_MS = 2000
PATIENT_MS = 5000  # where every renewal has to succeed on a busy machine


@pytest.fixture
def member(wrapper, witness, database):
    """member("ada", program) starts a wrapper of that version and waits until it stands in the line."""
    def start(node, program, lease_ms=LEASE_MS, **more):
        made = wrapper(node, database=database, command=witness.command(), lease_ms=lease_ms, start=False, **more)
        made.program = program
        made.start().wait_for_event("standby", 30)
        return made
    return start


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


def test_the_schema_is_upgraded_under_running_wrappers(member, witness, database, migrate, heirflow, next_heirflow, load):
    ada, bert = member("ada", heirflow, PATIENT_MS), member("bert", heirflow, PATIENT_MS)
    runs_on(witness, "ada")
    migrate(next_heirflow, database.dsn)
    assert database.value("select next_count('tests')") == 2
    assert database.value("select max(version) from schema_version") > database.value(
        "select (self->>'schema_version')::integer from roster limit 1"), "the wrappers know the new schema"
    beat = database.value("select beat from throne")
    wait_for(lambda: database.value("select beat from throne") > beat + 5, 30, "renewals on the new schema")
    assert terms(database) == 1 and len(witness.runs()) == 1 and witness.overlaps() == []
    ada.kill()
    runs_on(witness, "bert")
    assert "database-refused" not in ada.events() + bert.events()


def test_an_upgrade_that_has_to_wait_holds_up_no_renewal(member, witness, database, migrate, heirflow, next_heirflow):
    """Behind a reader that keeps its locks, as pg_dump does, a queued ALTER would stop everybody else."""
    ada = member("ada", heirflow)
    runs_on(witness, "ada")
    reader = database.connect()
    reader.autocommit = False
    reader.cursor().execute("select from heirflow.roster, heirflow.throne, heirflow.news, heirflow.terms")
    upgrade = threading.Thread(target=migrate, args=(next_heirflow, database.dsn))
    upgrade.start()
    beat = database.value("select beat from throne")
    wait_for(lambda: database.value("select beat from throne") > beat + 12, 30, "renewals for two leases")
    assert upgrade.is_alive(), "the reader was not in its way"
    reader.close()
    upgrade.join()
    assert "fenced" not in ada.events() and terms(database) == 1


@pytest.mark.parametrize("order", ["older first", "newer first"])
@pytest.mark.parametrize("end", ["kill", "terminate", "power_off"])
def test_versions_inherit_from_each_other(member, witness, database, migrate, heirflow, next_heirflow, order, end):
    migrate(next_heirflow, database.dsn)
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


def test_one_node_after_the_other(member, witness, database, command, migrate, heirflow, next_heirflow, load):
    """A rolling upgrade as the manual has it: the schema first, then each wrapper is stopped and started anew."""
    members = [member(node, heirflow, PATIENT_MS) for node in ("ada", "bert", "cleo")]
    runs_on(witness, "ada")
    migrate(next_heirflow, database.dsn)
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


def test_a_program_older_than_the_last_but_one_schema_says_so(database, migrate, heirflow, next_heirflow, wrapper):
    migrate(next_heirflow, database.dsn)
    newest = database.value("select max(version) from schema_version")
    database.query("insert into schema_version (version, name) values (%s, 'one more') returning 1", newest + 1)
    old = wrapper("ada", database=database)
    old.program = heirflow
    wait_for(lambda: "upgrade heirflow on this node" in old.log(), 30, "the refusal")


# -- faults of the network between two versions and their database ----------------------------------------------------

def upgrade(world, migrate, program):
    with world.lab.switch.inside():
        migrate(program, world.databases[0].dsn(DATABASE))


@pytest.fixture
def mixed(world, migrate, next_heirflow):
    """Hosts of both versions; ada's, the older one, is the heir."""
    world.postgres()
    upgrade(world, migrate, next_heirflow)
    world.wrapper("ada")
    world.wrapper("bert", program=next_heirflow)
    world.until_runs("ada")
    return world


def judge(world):
    world.judge()
    assert "database-refused" not in world.logs(), world.logs()


def test_the_schema_is_upgraded_while_the_heir_is_cut_off(world, migrate, next_heirflow):
    world.postgres()
    world.group("ada", "bert")
    world.claim("upgrade while the heir's host is cut off", LOSS)
    world.lab.isolate(["ada"])
    upgrade(world, migrate, next_heirflow)
    world.until_runs("bert")
    world.lab.heal()
    world.until_rejoined("ada")
    judge(world)


def test_the_heirs_of_both_versions_are_cut_off(mixed):
    mixed.claim("heirs' hosts cut off, one after the other", LOSS)
    mixed.lab.isolate(["ada"])
    mixed.until_runs("bert")
    mixed.lab.heal()
    mixed.until_rejoined("ada")
    mixed.lab.isolate(["bert"], "in")
    mixed.until_runs("ada")
    mixed.lab.heal()
    mixed.until_rejoined("bert")
    judge(mixed)


def test_the_database_is_cut_off_from_both_versions(mixed):
    mixed.claim("database's host cut off from all", BACK)
    mixed.lab.isolate(["pg"])
    mixed.until_none()
    mixed.lab.heal()
    mixed.back()
    mixed.until_any()
    judge(mixed)


def test_both_versions_lose_packets(mixed, next_heirflow):
    mixed.wrapper("cleo", program=next_heirflow)
    mixed.claim("every host loses 30 % of its packets each way")
    mixed.lab.lose(mixed.lab.hosts)
    mixed.steady(4)
    mixed.lab.heal()
    mixed.until_any()
    judge(mixed)
