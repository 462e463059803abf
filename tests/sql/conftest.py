"""member("ada"): one registrant, as its wrapper would call the functions; sees what the last reply showed."""
import uuid

import psycopg2.extras
import pytest


class Member:
    def __init__(self, database, node, group="g", lease_ms=6000, seat=None, connection=None):
        self.connection = connection or database.connect()
        self.connection.cursor().execute("set search_path = heirflow, pg_temp")
        self.node, self.group, self.lease_ms, self.seat = node, group, lease_ms, seat or str(uuid.uuid4())
        self.generation, self.incarnation, self.member_id, self.view = 0, None, None, {}
        self.self = {"node": node, "lease_ms": lease_ms, "heartbeat_ms": lease_ms // 6, "eligible": True, "version": "1"}

    def call(self, function, *values):
        with self.connection.cursor() as cursor:
            values = [psycopg2.extras.Json(value) if isinstance(value, (dict, list)) else value for value in values]
            cursor.execute(f"select {function}({', '.join(['%s'] * len(values))})", values)
            reply = cursor.fetchone()[0]
        if isinstance(reply, dict) and "identity" in reply:
            self.view = reply
        return reply

    def register(self, generation=None, incarnation=None):
        self.generation = self.generation + 1 if generation is None else generation
        self.incarnation = incarnation or str(uuid.uuid4())
        reply = self.call("register", self.group, self.seat, self.generation, self.incarnation, self.node, self.lease_ms,
                          self.self)
        if "refused" not in reply:
            self.member_id, self.incarnation = reply["member_id"], reply["incarnation"]
        return reply

    def beat(self, term=None, news=(), **words):
        self.self |= words
        return self.call("heartbeat", self.group, self.seat, self.member_id, self.incarnation, term, self.self, list(news))

    def accede(self, yields=False, highest=0, **seen):
        view = self.view | seen
        return self.call("accede", self.group, self.seat, self.member_id, self.incarnation, view["identity"], view["heir"],
                         view["heir_incarnation"], view["term"], view["beat"], highest, yields)

    def abdicate(self, term=None, reason="test"):
        return self.call("abdicate", self.group, self.member_id, self.incarnation,
                         self.view["term"] if term is None else term, reason)

    def leave(self):
        return self.call("leave", self.group, self.seat, self.incarnation, "test")


@pytest.fixture
def member(request):
    def make(node, register=True, database=None, **more):
        made = Member(database or request.getfixturevalue("database"), node, **more)
        if register:
            made.register()
        return made
    return make


@pytest.fixture
def line(member):
    """Three members in the order of their age; the eldest is the heir of its first term."""
    ada, bob, cleo = member("ada"), member("bob"), member("cleo")
    assert ada.accede()["acceded"]
    bob.beat(), cleo.beat()
    return ada, bob, cleo


@pytest.fixture
def ago(database):
    """ago("bob", 7000): bob was last seen so many milliseconds earlier than it was."""
    def shift(node, milliseconds):
        database.query("update roster set seen_at = seen_at - %s * interval '1 millisecond' where node = %s returning 1",
                       milliseconds, node)
    return shift


@pytest.fixture
def events(database):
    """[(event, node, reason), ...] in order, after checking that sequences have no gap."""
    def read(group="g"):
        rows = database.query("select sequence, event, node, reason from news where group_name = %s order by sequence", group)
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        assert database.value("select coalesce(max(last), 0) from news_counter where group_name = %s", group) == len(rows)
        return [row[1:] for row in rows]
    return read
