"""Renewals and accessions wait for the disk and for the synchronous standby, whatever the role's defaults say."""
import threading
import uuid

import psycopg2
import pytest
from processes import wait_for


@pytest.fixture
def waits(own_database, member):
    """waits(call): does the call hang at its commit for a synchronous standby that is not there?"""
    own_database.server.psql("alter system set synchronous_standby_names = 'nobody_there'")
    own_database.server.reload()
    observer = own_database.connect()
    with observer.cursor() as cursor:
        cursor.execute("set synchronous_commit = local")

        def ask(sql, *values):
            cursor.execute(sql, values)
            return cursor.fetchone()[0]
        wait_for(lambda: ask("show synchronous_standby_names") == "nobody_there")

        def judge(it, call):
            pid = it.connection.info.backend_pid
            done = []

            def run():
                try:
                    call()
                    done.append(True)
                except psycopg2.Error as error:
                    done.append(error)
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            verdict = wait_for(lambda: done or ask("select wait_event = 'SyncRep' from pg_stat_activity where pid = %s", pid))
            if verdict is True:
                ask("select pg_terminate_backend(%s)", pid)
            thread.join(20)
            assert verdict is True or done == [True], done
            return verdict is True
        yield judge


@pytest.fixture
def careless(own_database, member):
    """A member whose sessions do not care for the standby."""
    def make(node, setting="off", **more):
        connection = own_database.connect()
        connection.cursor().execute(f"set synchronous_commit = {setting}")
        return member(node, register=False, database=own_database, connection=connection, **more)
    return make


@pytest.mark.parametrize("setting", ["off", "local", "remote_write", "on"])
def test_registration_and_accession_and_renewal_wait(own_database, member, careless, waits, setting):
    it = careless("ada", setting)
    assert waits(it, it.register)
    it = careless("ada", setting, seat=it.seat)
    row = own_database.query("select member_id, incarnation::text from roster")[0]
    it.member_id, it.incarnation = row
    assert not waits(it, it.beat), "a standby's heartbeat waits for nobody"
    assert waits(it, it.accede), "committed, although nobody was told"
    term = own_database.value("select term from throne")
    for call in (lambda other: other.beat(term), lambda other: other.beat(news=[{"event": "x", "id": str(uuid.uuid4())}]),
                 lambda other: other.abdicate(term)):
        other = careless("ada", setting, seat=it.seat)
        other.member_id, other.incarnation = row
        assert waits(other, lambda: call(other))


def test_a_stronger_setting_stays(own_database, careless):
    it = careless("ada", "remote_apply")
    it.connection.autocommit = False
    it.register()
    with it.connection.cursor() as cursor:
        cursor.execute("show synchronous_commit")
        assert cursor.fetchone()[0] == "remote_apply"
    it.connection.commit()


def test_the_setting_ends_with_the_transaction(own_database, careless):
    it = careless("ada", "local")
    it.register()
    with it.connection.cursor() as cursor:
        cursor.execute("show synchronous_commit")
        assert cursor.fetchone()[0] == "local"
