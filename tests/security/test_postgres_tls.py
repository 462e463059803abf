"""sslmode=verify-full: a database that proves who it is and wants the same of us; each way of failing is told clearly."""
import os
import shutil
import signal

import psycopg2
import pytest

import conftest
from certificates import Authority
from conftest import wait_for


@pytest.fixture(scope="module")
def authority(worker_folder):
    folder = worker_folder / "postgres-certificates"
    folder.mkdir(mode=0o755)
    yield Authority(folder)
    shutil.rmtree(folder)


def secure(server, authority, *names, at=None):
    """Starts it with a certificate for these names; wants one of its clients, whose name is the role's."""
    certificate, key = authority.sign("server", *names, at=at)
    for path in (certificate, key):
        shutil.copy(path, server.data)
    inside = server.data / "server.key"
    inside.chmod(0o600)
    if os.geteuid() == 0:
        shutil.chown(inside, "postgres", "postgres")
    server.settings = server.settings | {"ssl": "on", "ssl_cert_file": "server.pem", "ssl_key_file": "server.key",
                                         "ssl_ca_file": str(authority.file)}
    server.stop()
    server.hba("hostnossl all postgres 127.0.0.1/32 trust", "hostssl all ada 127.0.0.1/32 cert",
               "hostssl all plain 127.0.0.1/32 trust")
    server.start()


@pytest.fixture(scope="module")
def tls_server(worker_folder, postgres_template, authority, outlives_tests):
    server = conftest.start_postgres(worker_folder / "tls-postgres", postgres_template)
    secure(server, authority)
    server.psql("create role ada login superuser")
    server.psql("create role plain login superuser")
    outlives_tests(server.process.pid)
    yield server
    server.remove()


@pytest.fixture
def dsn(tls_server, authority):
    """dsn(...): a connection string; ada has a certificate."""
    def make(user="ada", host="localhost", certificate=None, dbname="postgres", **more):
        words = {"host": host, "port": tls_server.port, "user": user, "dbname": dbname, "sslmode": "verify-full",
                 "sslrootcert": authority.file} | more
        if user == "ada" and certificate is None:
            certificate = authority.sign("ada")
        if certificate:
            words |= {"sslcert": certificate[0], "sslkey": certificate[1]}
        return " ".join(f"{key}={value}" for key, value in words.items())
    return make


def test_a_group_works_over_tls_to_its_last_will(wrapper, witness, tls_server, dsn, heirflow):
    made = conftest.new_database(tls_server)
    made.dsn = dsn(dbname=made.name)
    conftest.migrate(heirflow, made)
    ada = wrapper("ada", database=made, command=witness.command())
    wait_for(lambda: witness.runs(), 30, ada.log)
    encrypted = ("select count(*), bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) "
                 "where usename = 'ada' and application_name ~ 'ada'")
    count, all_of_them = tls_server.psql(encrypted)[0]
    assert count >= 1 and all_of_them
    os.kill(ada.pid, signal.SIGKILL)
    wait_for(lambda: made.query("select reason from news where event = 'abdicated'") == [("wrapper died",)], 30,
             lambda: str(made.query("select event, reason from news")) + ada.log())


def test_an_address_in_the_certificate_will_do(command, dsn):
    assert "schema" in command("status", database=dsn(host="127.0.0.1")).stderr   # it got in; there is no schema


@pytest.fixture
def failure(command, folder):
    """failure(dsn): the line of `check` about the database; status and run's own text is the same."""
    def fail(conninfo):
        result = command("check", database=conninfo, HEIRFLOW_RUN_DIRECTORY=str(folder), expect=1)
        line = next(line for line in result.stdout.splitlines() if line.startswith("BAD database"))
        assert command("status", database=conninfo, expect=3).stderr.count("\n") == 1
        return line
    return fail


def test_the_wrong_name(failure, dsn, tls_server, authority):
    assert "does not match host name" in (line := failure(dsn(host="ip6-loopback", hostaddr="127.0.0.1")))
    assert "use a name that is in the server's certificate" in line


def test_the_wrong_authority(failure, dsn, folder):
    line = failure(dsn(sslrootcert=Authority(folder, "stranger").file))
    assert "certificate verify failed" in line
    assert "not signed by an authority in sslrootcert, or has expired" in line


def test_no_authority_at_all(failure, dsn, folder):
    line = failure(dsn(sslrootcert=folder / "missing.pem"))
    assert "missing.pem" in line and "does not exist" in line and "sslrootcert" in line


def test_an_expired_server(failure, dsn, own_postgres, authority):
    secure(own_postgres, authority, at="10 days ago")
    assert "or has expired" in failure(dsn(user="plain", port=own_postgres.port))


def test_no_client_certificate(failure, dsn):
    line = failure(dsn(user="ada", certificate=()))
    assert "requires a valid client certificate" in line and "sslcert and sslkey" in line


def test_the_certificate_of_somebody_else(failure, dsn, authority):
    line = failure(dsn(certificate=authority.sign("mallory")))
    assert 'certificate authentication failed for user "ada"' in line


def test_a_client_certificate_of_another_authority(failure, dsn, folder):
    line = failure(dsn(certificate=Authority(folder, "stranger").sign("ada")))
    assert "unknown ca" in line and "sslcert" in line


def test_an_expired_client_certificate(failure, dsn, authority):
    line = failure(dsn(certificate=authority.sign("ada", at="10 days ago")))
    assert "expired" in line and "sslcert" in line


def test_a_client_key_that_others_can_read(failure, dsn, authority, folder):
    certificate, key = authority.sign("ada")
    open_key = folder / "open.key"
    shutil.copy(key, open_key)
    open_key.chmod(0o644)
    assert "has group or world access" in failure(dsn(certificate=(certificate, open_key)))


def test_a_server_without_tls(failure, postgres, authority):
    line = failure(f"{postgres.dsn()} sslmode=verify-full sslrootcert={authority.file}")
    assert "server does not support SSL" in line and "ssl = on" in line


def test_a_server_that_wants_it(failure, tls_server):
    line = failure(f"host=127.0.0.1 port={tls_server.port} user=plain dbname=postgres sslmode=disable")
    assert "no pg_hba.conf entry" in line and "no encryption" in line
    with pytest.raises(psycopg2.OperationalError):
        tls_server.connect(user="plain", sslmode="disable")
