"""A wrapper with HTTP on a free port, and a small client."""
import http.client
import json
import re

import pytest

import processes
from processes import wait_for

TOKEN = "letmein-letmein-0123456789"


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


class Node:
    """A wrapper and its HTTP address."""

    def __init__(self, wrapper, port):
        self.wrapper, self.port = wrapper, port

    def __getattr__(self, name):
        return getattr(self.wrapper, name)

    def request(self, method, path, body=None, timeout=20, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def metric(self, name):
        """Value of a metric, by its name or by name{label="..."}; None if it is not there."""
        wanted, _, more = name.partition("{")
        for line in self.get("/metrics").text.splitlines():
            found = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
            if found and found[1] == wanted and more.rstrip("}") in found[2]:
                return float(found[3])
        return None


@pytest.fixture
def node(wrapper):
    """node("ada", database=database, token=TOKEN, ...) starts a wrapper that listens."""
    def start(name="ada", token=None, listen=None, **more):
        port = processes.free_port()
        settings = {"listen": listen or f"127.0.0.1:{port}"} | ({"token": token} if token else {})
        made = Node(wrapper(name, http=settings, **more), port)
        made.wait_for_event("http-listening")
        return made
    return start


@pytest.fixture
def heir(node, database):
    """One node that leads."""
    made = node("ada", database=database)
    wait_for(lambda: made.get("/heir").status == 200, 20, lambda: "an heir\n" + made.log())
    return made


@pytest.fixture
def guarded(node, database):
    """One node that leads and takes changes from who knows TOKEN."""
    made = node("ada", database=database, token=TOKEN)
    wait_for(lambda: made.get("/heir").status == 200, 20, lambda: "an heir\n" + made.log())
    return made


class Events:
    """A page's connection: next() is the next message."""

    def __init__(self, node):
        self.connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
        self.connection.request("GET", "/events")
        self.response = self.connection.getresponse()
        self.status, self.headers = self.response.status, self.response.headers

    def next(self):
        while line := self.response.readline():
            if line.startswith(b"data: "):
                return json.loads(line[6:])
        return None

    def close(self):
        self.connection.close()


@pytest.fixture
def events():
    """events(node) opens one."""
    opened = []

    def connect(node):
        opened.append(Events(node))
        return opened[-1]
    yield connect
    for each in opened:
        each.close()
