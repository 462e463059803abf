"""Names: several addresses, a resolver that is down, one that hangs, and one that answers late."""
import socket
import subprocess

import psycopg2
import pytest
from processes import wait_for


@pytest.fixture
def names(folder):
    """names("test-x", "10.0.0.1 10.0.0.2") sets what a name resolves to; "hang" while it shall not; None for a resolver
    that is down."""
    def set_name(name, text):
        new = folder / "new"
        if text is None:
            return (folder / name).unlink()
        new.write_text(text)
        new.rename(folder / name)
    return set_name


@pytest.fixture
def named(driver, folder):
    def start(conninfo, attempt_ms=3000):
        return driver(conninfo, attempt_ms, HEIRFLOW_TEST_NAMES=str(folder))
    return start


def black_hole(address, port):
    listener = socket.socket()
    listener.bind((address, port))
    listener.listen(50)
    return listener


def test_every_address_of_a_name_is_tried(names, named, postgres):
    names("test-db", "127.0.0.2 127.0.0.1")
    it = named(f"host=test-db port={postgres.port} user=postgres").send("connect")
    it.expect("connected")
    names("test-none", "127.0.0.2 127.0.0.3")
    said = named(f"host=test-none port={postgres.port}").send("connect").expect("disconnected")
    assert f"test-none (127.0.0.2) port {postgres.port}: Connection refused" in said and "test-none (127.0.0.3)" in said


def test_the_address_that_worked_comes_first(names, named, postgres, seconds):
    with black_hole("127.0.0.2", postgres.port):
        names("test-db", "127.0.0.2 127.0.0.1")
        it = named(f"host=test-db port={postgres.port} user=postgres", 4000).send("connect")
        it.expect("connected")
        assert seconds() > 4
        before = seconds()
        it.send("drop", "connect").expect("connected")
        assert seconds() - before < 3


def test_a_resolver_that_is_down(names, named, postgres):
    names("test-db", "127.0.0.1")
    it = named(f"host=test-db port={postgres.port} user=postgres").send("connect")
    it.expect("connected")
    names("test-db", None)
    it.send("drop", "connect").expect("connected")
    said = named(f"host=test-db port={postgres.port}").send("connect").expect("disconnected")
    assert "test-db" in said and "cannot resolve the name" in said


def test_a_resolver_that_hangs(names, named, postgres, seconds):
    names("test-db", "hang")
    it = named(f"host=test-db,127.0.0.1 port={postgres.port} user=postgres", 500).send("connect")
    it.expect("connected")
    alone = named(f"host=test-db port={postgres.port} user=postgres", 300).send("connect")
    assert "test-db port" in (said := alone.expect("disconnected")) and "name look-up gives no answer" in said
    alone.send("connect").expect("disconnected")
    names("test-db", "127.0.0.1")

    def connects():
        alone.send("connect")
        return alone.next() == "connected"
    wait_for(connects)


def test_a_resolver_that_hangs_over_a_name_of_a_service(names, driver, postgres, folder):
    names("test-db", "hang")
    (folder / "services").write_text(f"[here]\nhost=test-db,127.0.0.1\nport={postgres.port}\nuser=postgres\n")
    it = driver("service=here", 500, HEIRFLOW_TEST_NAMES=str(folder), PGSERVICEFILE=str(folder / "services")).send("connect")
    it.expect("connected")


def test_a_hanging_resolver_holds_up_nothing(names, named, postgres, seconds):
    names("test-db", "hang")
    it = named(f"host=test-db,test-db port={postgres.port} user=postgres", 60000).send("connect", "destroy")
    it.expect("closed")
    before = seconds()
    it.finish()
    assert seconds() - before < 5, "a thread in a look-up is not waited for"


def test_last_known_addresses_serve_while_the_resolver_hangs(names, named, postgres):
    names("test-db", "127.0.0.1")
    it = named(f"host=test-db port={postgres.port} user=postgres", 500).send("connect")
    it.expect("connected")
    names("test-db", "hang")
    it.send("drop", "connect").expect("connected")


def test_a_late_answer_changes_the_list_being_tried(names, own_postgres, named):
    port = own_postgres.port
    names("test-db", "127.0.0.2 127.0.0.3 127.0.0.1")
    it = named(f"host=test-db port={port} user=postgres", 2000)
    it.send("connect").expect("connected")
    names("test-db", "127.0.0.2 127.0.0.3")
    it.send("drop", "connect").expect("disconnected")  # from now on the good one is not first in the list
    names("test-db", "127.0.0.2 127.0.0.3 127.0.0.1")
    it.send("connect").expect("connected")
    own_postgres.freeze()
    names("test-db", "hang")
    dropped = open_to(it.process.pid, port)
    it.send("drop", "connect")
    wait_for(lambda: open_to(it.process.pid, port) - dropped, what="the last address to be tried")
    names("test-db", "127.0.0.9")
    own_postgres.thaw()
    it.expect("connected")


def open_to(pid, port):
    """Our ends of connections to that port of 127.0.0.1, as anybody in the process's network has them."""
    with open(f"/proc/{pid}/net/tcp") as file:
        return {line.split()[1] for line in file if line.split()[2:4] == [f"0100007F:{port:04X}", "01"]}


def test_encrypted(own_postgres, driver):
    key, certificate = own_postgres.data / "server.key", own_postgres.data / "server.crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-keyout", key, "-out",
                    certificate, "-days", "2"], check=True, capture_output=True)
    for path in (key, certificate):
        path.chmod(0o600)
        subprocess.run(["chown", "--reference", own_postgres.data, path], check=True)
    own_postgres.stop()
    own_postgres.settings = own_postgres.settings | {"ssl": "on"}
    own_postgres.start()
    it = driver(own_postgres.dsn(sslmode="require")).send("connect")
    it.expect("connected")
    assert it.ask("select ssl from pg_stat_ssl where pid = pg_backend_pid()") == "t"
    assert it.send("value 20000 5000000").expect("reply").endswith("length=5000000")
    it.finish()
    # libpq closes its socket and opens another one in the middle of the log-in
    own_postgres.hba("hostssl all all 127.0.0.1/32 reject", "hostnossl all all 127.0.0.1/32 trust")
    wait_for(lambda: not connects_encrypted(own_postgres))
    it = driver(own_postgres.dsn(sslmode="prefer")).send("connect")
    it.expect("connected")
    assert it.ask("select ssl from pg_stat_ssl where pid = pg_backend_pid()") == "f"


def connects_encrypted(server):
    try:
        server.connect(sslmode="require").close()
        return True
    except psycopg2.OperationalError:
        return False
