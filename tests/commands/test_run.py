"""heirflow run at its start: whatever keeps it from the roster is said with the remedy, and tried again."""
import uuid

import pytest

from conftest import wait_for


@pytest.fixture
def refused(wrapper):
    """What `run` says of a database that does not serve it; it goes on trying."""
    def run(database):
        member = wrapper(database=database)
        member.wait_for_event("database-refused")
        assert member.running()
        return member
    return run


def test_no_schema(refused, empty_database):
    assert "run `heirflow migrate`" in refused(empty_database).log()


def test_a_newer_schema(refused, database):
    database.query("insert into schema_version (version, name) values (1000, '1000_future')")
    member = refused(database)
    assert "version 1000" in member.log() and "upgrade heirflow on this node" in member.log()
    assert database.value("select count(*) from roster") == 0


def test_the_next_schema_is_fine(wrapper, database):
    database.query("insert into schema_version (version, name) select max(version) + 1, 'next' from schema_version")
    wrapper(database=database).wait_for_event("standby")


def test_a_user_without_rights_joins_once_it_has_them(refused, postgres, database):
    role = f"poor_{uuid.uuid4().hex}"
    postgres.psql(f"create role {role} login")
    try:
        member = refused(postgres.dsn(database.name, user=role))
        assert "heirflow migrate" in member.log() or "grant heirflow_member" in member.log()
        postgres.psql(f"grant heirflow_member to {role}")
        member.wait_for_event("standby")
        member.terminate()
        assert member.wait() == 0
    finally:
        postgres.psql(f"drop role {role}")


def test_a_database_that_is_down_is_waited_for(wrapper, own_database):
    own_database.server.stop()
    member = wrapper(database=own_database)
    wait_for(lambda: "database-away" in member.events())
    own_database.server.start()
    member.wait_for_event("standby")


def test_a_wrong_password_is_told_and_tried_again(wrapper, own_postgres, own_database):
    own_postgres.psql("create role guarded login password 'right' in role heirflow_member")
    own_postgres.hba("host all guarded all scram-sha-256", "host all all 127.0.0.1/32 trust")
    member = wrapper(database=own_postgres.dsn(own_database.name, user="guarded", password="wrong-one"))
    wait_for(lambda: "password authentication failed" in member.log())
    own_postgres.psql("alter role guarded password 'wrong-one'")
    member.wait_for_event("standby")
    assert "wrong-one" not in member.log()


def test_a_read_only_standby_is_told(wrapper, own_postgres):
    own_postgres.stop()
    (own_postgres.data / "standby.signal").touch()
    own_postgres.start()
    member = wrapper(database=own_postgres.dsn())
    wait_for(lambda: "standby in recovery" in member.log())
    assert member.process.poll() is None


def test_the_primary_among_the_hosts_of_a_service(wrapper, database, own_postgres, folder):
    own_postgres.psql(f"create database {database.name}")
    own_postgres.stop()
    (own_postgres.data / "standby.signal").touch()
    own_postgres.start()
    (folder / "services").write_text(f"[here]\nhost=127.0.0.1,127.0.0.1\nport={own_postgres.port},{database.server.port}\n"
                                     f"user=postgres\ndbname={database.name}\n")
    member = wrapper(database="service=here", environment={"PGSERVICEFILE": str(folder / "services")})
    member.wait_for_event("scheduler-started")
    assert database.value("select count(*) from roster") == 1


def test_two_wrappers_of_one_group_with_one_run_directory(wrapper, command, database):
    first = wrapper(database=database)
    first.wait_for_event("standby")
    second = command("run", "--config", str(first.config_path), "--node", "other", HEIRFLOW_CONFIG="/dev/null")
    assert second.returncode == 1, second  # the first one may leave
    assert str(first.pid) in second.stderr and str(first.folder / "run") in second.stderr
    other_group = command("status", database=database, HEIRFLOW_GROUP="tests", expect=0)
    assert "other" not in other_group.stdout


def test_a_run_directory_that_cannot_be_made_may_be_there_later(command, database, folder):
    missing = folder / "not-mounted-yet" / "run"
    refused = command("run", "--", "sleep", "1", database=database, expect=1, HEIRFLOW_CONFIG="/dev/null",
                      HEIRFLOW_RUN_DIRECTORY=str(missing))
    assert f"run directory {missing} cannot be created: No such file" in refused.stderr


def test_closed_standard_streams(wrapper, database):
    member = wrapper(database=database, start=False)
    member.prefix = ["bash", "-c", 'exec "$@" <&- >&-', "-"]
    member.start().wait_for_event("scheduler-started")
    member.terminate()
    assert member.wait() == 0, member.log()
