"""Clients that mean harm, or have no time. Whatever they do, the heir renews its lease and others get their answers."""
import os
import random
import resource
import socket
import threading

import pytest

from processes import wait_for

BEARER = b"Authorization: Bearer letmein-letmein-0123456789\r\n"
HEAD = b"GET /heir HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module", autouse=True)
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def heir(node, database):
    """With a lease that bears the crowd's own use of the processors."""
    made = node("ada", database=database, lease_ms=2000)
    wait_for(lambda: made.get("/heir").status == 200, 20, lambda: "an heir\n" + made.log())
    return made


@pytest.fixture
def goes_on(heir, database):
    """goes_on(): the heir has renewed its lease twenty times more, and it is still the first term."""
    term = database.value("select term from throne")
    connection = database.connect()

    def beat():
        with connection.cursor() as cursor:
            cursor.execute("select beat from heirflow.throne")
            return cursor.fetchone()[0]

    def check():
        before = beat()
        wait_for(lambda: beat() >= before + 20, 30, "twenty renewals")
        assert database.query("select term, member_id is not null from throne") == [(term, True)], heir.log()
        assert "fencing" not in heir.events() and heir.events().count("acceded") <= 1
    yield check
    connection.close()


def connect(node, data=b""):
    connection = socket.create_connection(("127.0.0.1", node.port), timeout=10)
    if data:
        connection.sendall(data)
    return connection


def hung_up(connection):
    connection.setblocking(False)
    try:
        return connection.recv(65536) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


class Crowd:
    """So many clients at once that each do the same, over and over, and come back when they are hung up on."""

    def __init__(self, node, count, act):
        self.node, self.act = node, act
        self.connections = [None] * count
        self.came = self.rounds = 0
        self.enough = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def come(self, i):
        self.came += 1
        self.connections[i] = socket.socket()
        self.connections[i].setblocking(False)
        self.connections[i].connect_ex(("127.0.0.1", self.node.port))

    def visit(self, i):
        try:
            if self.connections[i] is None:
                self.come(i)
            else:
                self.act(self.connections[i])
        except BlockingIOError:
            pass
        except OSError:
            self.connections[i].close()
            self.connections[i] = None

    def run(self):
        while not self.enough.wait(0.02):  # the processors are for others too
            for i in range(len(self.connections)):
                self.visit(i)
            self.rounds += 1

    def __enter__(self):
        self.thread.start()
        wait_for(lambda: self.rounds >= 2, 30, "the crowd")
        return self

    def __exit__(self, *_):
        alive = self.thread.is_alive()
        self.enough.set()
        self.thread.join()
        for connection in filter(None, self.connections):
            connection.close()
        assert alive and self.came >= len(self.connections)


def stay_idle(connection):
    if not connection.recv(4096):
        raise OSError("hung up on")


def send_a_byte(connection):
    connection.send(b"x")
    stay_idle(connection)


def send_garbage(connection):
    connection.send(random.randbytes(200))
    stay_idle(connection)


def ask_without_reading(connection):
    connection.send(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")


@pytest.mark.parametrize("act", [stay_idle, send_a_byte, send_garbage, ask_without_reading])
def test_a_thousand_clients(heir, goes_on, act):
    with Crowd(heir, 1000, act):
        goes_on()
    wait_for(lambda: answers(heir), 10, "an answer when they have gone")
    assert len(os.listdir(f"/proc/{heir.pid}/fd")) < 700


def answers(node):
    try:
        return node.get("/heir", timeout=2).status == 200
    except OSError:
        return False


def test_others_get_through_a_crowd(heir):
    """Somebody who comes back now and then finds room between those who only stand around."""
    with Crowd(heir, 400, stay_idle):
        for _ in range(3):
            wait_for(lambda: answers(heir), 15, "an answer", interval=0.1)


def test_a_request_that_never_ends(heir, goes_on):
    """A header line at a time: each of them is activity."""
    slow = connect(heir, HEAD)
    count = 0

    def drip():
        nonlocal count
        count += 1
        try:
            slow.sendall(b"X-Slow-%d: 1\r\n" % count)
        except OSError:
            return True
        return hung_up(slow)
    wait_for(drip, 25, "an end of patience", interval=0.5)
    goes_on()


@pytest.mark.parametrize("request_", [
    b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    HEAD + b"X: " + b"a" * 40000 + b"\r\n\r\n",
    HEAD + b"".join(b"X-%d: 1\r\n" % i for i in range(5000)) + b"\r\n",
    HEAD + b"Content-Length: 100000000000\r\n\r\n",
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 99999999999999999999999999\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    b"POST /pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n" + b"a" * 100000,
    b"POST /pause HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"a" * 4096 + b"\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    b"\0" * 5000,
    b"\r\n" * 20000,
    b"GET\r\n\r\n",
    b"GET /heir HTTP/9.9\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
], ids=lambda data: repr(data[:20]))
def test_requests_that_are_none(heir, goes_on, request_):
    connection = connect(heir)
    try:
        connection.sendall(request_)
        connection.settimeout(1)  # some are no more than the beginning of a request
        answer = connection.recv(65536)
        assert answer == b"" or not answer.startswith(b"HTTP/1.1 200"), answer[:100]
    except (ConnectionError, TimeoutError):
        pass
    connection.close()
    assert heir.get("/heir").status == 200
    assert heir.running()


def test_chunks_without_end_with_the_token(guarded, database):
    connection = connect(guarded, b"POST /switchover HTTP/1.1\r\nHost: localhost\r\n" + BEARER +
                         b"Transfer-Encoding: chunked\r\n\r\n")
    connection.settimeout(20)
    with pytest.raises(ConnectionError):
        while True:
            connection.sendall(b"400\r\n" + b"a" * 1024 + b"\r\n")
    assert guarded.get("/heir").status == 200
    assert database.value("select request from throne") is None


def test_garbage_of_every_kind(heir, goes_on):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    source = random.Random(seed)
    words = [b"GET", b"POST", b" ", b"/", b"/status", b"/events", b"HTTP/1.1", b"\r\n", b"\n", b"Host:", b"localhost", b"%00", b"?",
             b"Content-Length: 5", b"Transfer-Encoding: chunked", b"\0", b"\xff\xfe", b"Authorization: Bearer ", b"\r\n\r\n", b":",
             b"Expect: 100-continue", b"Connection: keep-alive", b"Range: bytes=0-", b"Cookie: a=b; c", b"Upgrade: websocket"]
    for _ in range(300):
        try:
            with connect(heir, b"".join(source.choices(words, k=source.randrange(1, 30)))) as connection:
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(0.05)
                connection.recv(65536)
        except OSError:
            pass
    assert heir.get("/heir").status == 200
    goes_on()
