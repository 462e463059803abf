"""A roster made by the calls that wrappers make."""
import json
import uuid


class Group:
    def __init__(self, database, name="tests"):
        self.database, self.name, self.members = database, name, {}

    def call(self, sql, *values):
        return self.database.value(sql, *values)

    def register(self, node):
        seat, incarnation = str(uuid.uuid4()), str(uuid.uuid4())
        reply = self.call("select register(%s, %s, 1, %s, %s, 3600000, %s)", self.name, seat, incarnation, node,
                          json.dumps({"eligible": True, "node": node, "version": "0.1.0", "heartbeat_ms": 1000}))
        self.members[node] = {"seat": seat, "incarnation": incarnation, "id": reply["member_id"], "term": None}

    def beat(self, node, news=(), **about):
        member = self.members[node]
        return self.call("select heartbeat(%s, %s, %s, %s, %s, %s, %s)", self.name, member["seat"], member["id"],
                         member["incarnation"], member["term"],
                         json.dumps({"eligible": True, "node": node, "version": "0.1.0", **about}), json.dumps(list(news)))

    def accede(self, node):
        member, seen = self.members[node], self.beat(node)
        reply = self.call("select accede(%s, %s, %s, %s, %s, %s, %s, %s, %s, 0, true)", self.name, member["seat"],
                          member["id"], member["incarnation"], seen["identity"], seen["heir"], seen["heir_incarnation"],
                          seen["term"], seen["beat"])
        assert reply["acceded"], reply
        member["term"] = reply["term"]
        return reply["term"]

    def abdicate(self, node, reason="switchover"):
        member = self.members[node]
        self.call("select abdicate(%s, %s, %s, %s, %s)", self.name, member["id"], member["incarnation"], member["term"],
                  reason)
        member["term"] = None

    def news(self, after=0, limit=1000):
        return [row[2] for row in self.database.query("select * from news_after(%s, %s, %s)", self.name, after, limit)]
