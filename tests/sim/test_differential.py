"""The simulated database (database.c) and the SQL functions give the same replies to the same random calls.

One generator makes the calls. Each goes to the simulation (calls.c) and to PostgreSQL, whose functions read the time and
the server's identity from settings of the session here, so that time passes, clocks step, servers restart and failovers
lose commits when the generator says so. Numbers stand for seats, incarnations and members alike.

One sequence by hand, told call by call, as a failure prints it too:
HEIRFLOW_DIFFERENTIAL=SEED /usr/bin/python3 -m pytest -s tests/sim/test_differential.py
"""
import json
import os
import pathlib
import random
import shutil
import subprocess
import uuid

import psycopg2.extras
import pytest

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
SEATS = (1, 2, 3, 4)
CALLS = 60
DAY = 86_400_000  # who has been silent for longer is purged
LEASES = (900, 1000, 3000, 6000)
REGISTER, HEARTBEAT, ACCEDE, ABDICATE, LEAVE = range(1, 6)
COMPARED = ("granted refused identity heir heir_incarnation term beat home lease_ms accession_lease_ms wait_ms paused "
            "last_seat known member_id incarnation rank eldest named held_back retired asked").split()

# In place of clock_timestamp() and server_identity(), and what a failover does to one group.
CONTROLS = """
create schema heirflow;
set search_path = heirflow, pg_temp;
create table schema_version (version integer primary key, name text);
create function test_clock() returns timestamptz language sql volatile
    as $$ select to_timestamp(0) + current_setting('test.now')::bigint * interval '1 millisecond' $$;
"""
IDENTITY = """
create or replace function server_identity() returns text language sql volatile
    as $$ select 'server-' || current_setting('test.identity') $$;
create function test_copy(p_group text, p_from text, p_to text) returns void language plpgsql as $$
declare
    v_table text;
begin
    foreach v_table in array array['throne', 'roster', 'retirement', 'terms', 'news', 'news_counter', 'relay'] loop
        execute format('delete from %s%s where group_name = $1', p_to, v_table) using p_group;
        execute format('insert into %s%s select * from %s%s where group_name = $1', p_to, v_table, p_from, v_table)
            using p_group;
    end loop;
end $$;
"""


def as_uuid(number):
    return str(uuid.UUID(int=number)) if number else None


def as_number(text):
    return uuid.UUID(text).int if text else 0


class Simulated:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, what, *numbers):
        print(what, *map(int, numbers), file=self.process.stdin, flush=True)
        text = self.process.stdout.readline()
        assert text, "the simulated database has ended"
        return json.loads(text) if text != "\n" else None

    def call(self, kind, c):
        reply = self.tell("call", kind, c["seat"], c["member"], c["incarnation"], c["generation"], c["lease"], c["highest"],
                          c["eligible"], c["renew"], c["term"], c["member"], c["incarnation"], c["server"], c["heir"],
                          c["heir_incarnation"], c["seen_term"], c["seen_beat"], c["yields"])
        return {**reply, "heir_incarnation": int(reply.get("heir_incarnation") or 0),
                "incarnation": int(reply.get("incarnation") or 0)}


class Real:
    def __init__(self, connection):
        self.cursor = connection.cursor()
        self.cursor.execute("set synchronous_commit = off")  # the functions set it as they need it
        self.cursor.execute(CONTROLS)
        for path in sorted((SOURCE / "sql").glob("[0-9]*.sql")):
            self.cursor.execute(path.read_text().replace("clock_timestamp()", "test_clock()"))
            self.cursor.execute("set search_path = heirflow, pg_temp")
        self.cursor.execute(IDENTITY + "".join(f"create table saved_{name} (like {name});" for name in (
            "throne", "roster", "retirement", "terms", "news", "news_counter", "relay")))
        self.group = None

    def select(self, function, *values):
        self.cursor.execute(f"select {function}({', '.join(['%s'] * len(values))})", values)
        return self.cursor.fetchone()[0]

    def tell(self, what, *numbers):
        if what == "begin":
            self.group = f"group-{uuid.uuid4()}"
            self.saved_member = 0
            self.cursor.execute("select setval('member_id', 1, false), set_config('test.now', %s, false), "
                                "set_config('test.identity', '1', false)", [str(numbers[0])])
        elif what in ("time", "identity"):
            setting = "test.now" if what == "time" else "test.identity"
            self.cursor.execute("select set_config(%s, %s, false)", [setting, str(numbers[0])])
        elif what == "save":
            self.select("test_copy", self.group, "", "saved_")
            self.cursor.execute("select case when is_called then last_value else 0 end from member_id")
            self.saved_member = self.cursor.fetchone()[0]
        elif what == "restore":
            self.select("test_copy", self.group, "saved_", "")
            self.cursor.execute("select setval('member_id', %s, %s)", [max(self.saved_member, 1), self.saved_member > 0])
        elif what == "switchover":
            return self.select("request_switchover", self.group, f"node-{numbers[0]}" if numbers[0] else None)["accepted"]
        elif what == "pause":
            return self.select("set_paused", self.group, bool(numbers[0]))
        elif what == "retire":
            return self.select("set_retired", self.group, f"node-{numbers[0]}", bool(numbers[1]))["accepted"]
        elif what == "lease":
            return self.select("set_lease", self.group, numbers[0])
        return None

    def call(self, kind, c):
        seat, node = as_uuid(1000 + c["seat"]), f"node-{c['seat']}"
        says = psycopg2.extras.Json({"node": node, "lease_ms": c["lease"], "eligible": c["eligible"],
                                     "highest_term": c["highest"]})
        incarnation, group = as_uuid(c["incarnation"]), self.group
        if kind == REGISTER:
            reply = self.select("register", group, seat, c["generation"], incarnation, node, c["lease"], says)
            reply["granted"] = "refused" not in reply
        elif kind == HEARTBEAT:
            term = c["term"] if c["renew"] else None
            reply = self.select("heartbeat", group, seat, c["member"], incarnation, term, says, "[]")
            reply["granted"] = reply["renewed"]
        elif kind == ACCEDE:
            reply = self.select("accede", group, seat, c["member"], incarnation, f"server-{c['server']}", c["heir"] or None,
                                as_uuid(c["heir_incarnation"]), c["seen_term"], c["seen_beat"], c["highest"], c["yields"])
            reply["granted"] = reply["acceded"]
        elif kind == ABDICATE:
            self.select("abdicate", group, c["member"], incarnation, c["term"], "test")
            return {"granted": True, "refused": "", "heir_incarnation": 0, "incarnation": 0}
        else:
            left = self.select("leave", group, seat, incarnation, "test")["left"]
            return {"granted": left, "refused": "", "heir_incarnation": 0, "incarnation": 0}
        return {**reply, "refused": reply.get("refused", ""), "heir": reply["heir"] or 0, "asked": reply["request"] or "",
                "heir_incarnation": as_number(reply["heir_incarnation"]), "incarnation": as_number(reply.get("incarnation")),
                "member_id": reply["member_id"] or 0, "last_seat": bool(reply["last_seat"])}


class Seat:
    """What one wrapper would know, as far as the calls need it."""

    def __init__(self, number):
        self.number, self.generation, self.incarnation, self.member, self.highest = number, 0, 0, 0, 0
        self.eligible = True
        self.view = {"identity": "server-1", "heir": 0, "heir_incarnation": 0, "term": 0, "beat": 0}
        self.old = []  # (member, incarnation, term) that it had or saw


class Sequence:
    """One random sequence, played on both; stops at the first difference."""

    def __init__(self, seed, simulated, real, seen, aloud=False):
        self.seed, self.random = seed, random.Random(seed)
        self.simulated, self.real, self.seen, self.aloud = simulated, real, seen, aloud
        self.story = []
        self.now, self.server, self.servers, self.incarnations = 10**12, 1, 1, 0
        self.lease = self.random.choice(LEASES)
        self.seats = [Seat(number) for number in SEATS]

    def tell(self, what, *numbers):
        self.story.append(f"{what} {' '.join(map(str, numbers))}")
        self.seen[what] = self.seen.get(what, 0) + 1
        simulated, real = self.simulated.tell(what, *numbers), self.real.tell(what, *numbers)
        assert simulated == real, self.report({"accepted": simulated}, {"accepted": real})

    def call(self, kind, seat, **more):
        c = {"seat": seat.number, "member": seat.member, "incarnation": seat.incarnation or 1, "generation": seat.generation,
             "lease": self.lease, "highest": seat.highest, "eligible": seat.eligible, "renew": False, "term": seat.view["term"],
             "server": int(seat.view["identity"].split("-")[1]), "heir": seat.view["heir"],
             "heir_incarnation": seat.view["heir_incarnation"], "seen_term": seat.view["term"], "seen_beat": seat.view["beat"],
             "yields": False} | more
        name = ("", "register", "heartbeat", "accede", "abdicate", "leave")[kind]
        self.story.append(f"{name} " + " ".join(f"{key}={value}" for key, value in c.items()))
        simulated, real = self.simulated.call(kind, c), self.real.call(kind, c)
        outcome = (name, real["refused"] or ("granted" if real["granted"] else "not granted"))
        self.seen[outcome] = self.seen.get(outcome, 0) + 1
        self.same_term(simulated, real, c)
        for field in COMPARED:
            assert simulated.get(field) == real.get(field), self.report(simulated, real)
        self.learn(seat, kind, c, real)
        return real

    def same_term(self, simulated, real, c):
        """On another server both draw by how much the term jumps; what counts is that it jumps past what was lost."""
        least = c["seen_term"] + 1000
        if real["granted"] and min(real.get("term", 0), simulated.get("term", 0)) >= least:
            simulated["term"] = real["term"]
            self.simulated.tell("term", real["term"])

    def report(self, simulated, real):
        different = [f"{name}: simulated {simulated.get(name)!r}, SQL {real.get(name)!r}" for name in (*COMPARED, "accepted")
                     if simulated.get(name) != real.get(name)]
        return "\n".join([f"seed {self.seed}, call {len(self.story)}", *self.story, *different,
                          f"again: HEIRFLOW_DIFFERENTIAL={self.seed} /usr/bin/python3 -m pytest -s "
                          "tests/sim/test_differential.py"])

    def learn(self, seat, kind, c, reply):
        if self.aloud:
            print(self.story[-1], "->", {field: reply[field] for field in COMPARED if reply.get(field)})
        if "term" not in reply:
            return
        seat.view = reply
        seat.highest = max(seat.highest, reply["term"])
        if kind == REGISTER and reply["granted"]:
            seat.member, seat.incarnation, seat.generation = reply["member_id"], reply["incarnation"], c["generation"]
        if reply["heir"]:
            seat.old.append((reply["heir"], reply["heir_incarnation"], reply["term"]))

    def heir(self, seat):
        """As far as this one knows."""
        return next((other for other in self.seats if other.member and other.member == seat.view["heir"]), None)

    # -- the calls

    def register(self, seat):
        age = self.random.choice((1, 1, 1, 0, 0, -1, 2))
        generation = max(seat.generation + age, 1)
        self.incarnations += 1
        self.call(REGISTER, seat, generation=generation, incarnation=10 * self.incarnations + seat.number)

    def heartbeat(self, seat):
        seat.eligible = self.random.random() < 0.85
        heir = self.heir(seat)
        if heir and self.random.random() < 0.4:
            self.call(HEARTBEAT, heir, renew=True, term=seat.view["term"])
            return
        self.call(HEARTBEAT, seat, **self.random.choice((
            {}, {}, {"renew": True}, {"renew": True}, {"renew": True, "term": max(seat.view["term"] - 1, 0)},
            {"renew": True, "term": seat.view["term"] + 1}, {"incarnation": 5}, {"renew": True, "incarnation": 5},
            {"renew": True, "member": seat.member + 1})))

    def accede(self, seat):
        if self.random.random() < 0.7:
            self.call(HEARTBEAT, seat)
        wrong = self.random.choice(({},) * 12 + ({"heir": seat.view["heir"] + 1, "heir_incarnation": 9}, {"seen_beat": 99},
                                                 {"seen_term": seat.view["term"] + 1}, {"server": 77}, {"incarnation": 5},
                                                 {"member": seat.member + 1}, {"heir_incarnation": 8}))
        if "heir_incarnation" in wrong and not (wrong.get("heir") or seat.view["heir"]):
            wrong = {}
        highest = seat.highest + self.random.choice((0, 0, 0, 3))
        self.call(ACCEDE, seat, highest=highest, yields=self.random.random() < 0.35, **wrong)

    def abdicate(self, seat):
        ours = {"member": seat.member, "term": seat.view["term"]}
        late = {}
        if seat.old:
            late = dict(zip(("member", "incarnation", "term"), self.random.choice(seat.old[-3:])))
        self.call(ABDICATE, seat, **self.random.choice((ours, ours, late, late, {"term": seat.view["term"] + 1})))

    def succeed(self, seat):
        """The heir abdicates and others come running."""
        heir = self.heir(seat)
        if heir:
            self.call(ABDICATE, heir, term=seat.view["term"])
            for other in self.random.sample(self.seats, 2):
                self.accede(other)

    def leave(self, seat):
        self.call(LEAVE, seat)

    def operate(self, seat):
        """Often of the heir, to whom what is asked is shown."""
        heir = self.heir(seat) or seat
        for _ in range(self.random.randint(1, 3)):
            subject = self.random.choice((heir, seat)).number
            self.tell(*self.random.choice((
                ("switchover", 0), ("switchover", self.random.choice(SEATS)), ("pause", 1), ("pause", 0), ("pause", 0), ("retire", subject, 1),
                ("retire", subject, 0), ("retire", subject, 0), ("lease", self.random.choice(LEASES)))))
        self.call(HEARTBEAT, heir)

    def disturb(self, seat):
        what = self.random.choice(("restart", "restart", "save", "save", "restore"))
        if what in ("save", "restore"):
            self.tell(what)
        if what in ("restart", "restore"):
            self.servers += 1
            self.server = self.servers
            self.tell("identity", self.server)

    def pass_time(self):
        lease = self.lease
        self.now += self.random.choice((0, 0, 1, 50, lease // 6, lease // 6, lease // 3, lease // 3 + 1, lease, lease + 1,
                                        3 * lease, -lease // 2))
        if self.random.random() < 0.03:
            self.now += self.random.choice((-DAY, DAY, DAY + 1))
        self.tell("time", self.now)

    def play(self):
        self.tell("begin", self.now)
        weights = {self.register: 9, self.heartbeat: 20, self.accede: 16, self.abdicate: 4, self.succeed: 3, self.leave: 2,
                   self.operate: 6, self.disturb: 2}
        for seat in self.seats[:3]:
            self.register(seat)
        while len(self.story) < CALLS:
            if self.random.random() < 0.4:
                self.pass_time()
            self.random.choices(list(weights), list(weights.values()))[0](self.random.choice(self.seats))
        for seat in self.seats:
            self.call(HEARTBEAT, seat)


@pytest.fixture(scope="module")
def real(postgres):
    name = f"differential_{os.getpid()}"
    postgres.psql(f"create database {name}")
    connection = postgres.connect(name)
    yield Real(connection)
    connection.close()
    postgres.psql(f"drop database {name} with (force)")


def play(program, real, seeds, aloud=False):
    simulated, seen = Simulated(program), {}
    for seed in seeds:
        Sequence(seed, simulated, real, seen, aloud).play()
    return seen


BLOCKS = [range(first, first + 100) for first in (1, 101, 201)]
BY_HAND = os.environ.get("HEIRFLOW_DIFFERENTIAL")
if BY_HAND:
    BLOCKS = [[int(BY_HAND)]]


@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"from-{seeds[0]}")
def test_the_same_replies(build, real, seeds):
    seen = play(build / "tests/sim/calls", real, seeds, BY_HAND)
    if not BY_HAND:
        for outcome in OUTCOMES:
            assert seen.get(outcome, 0) >= 3, f"{outcome} hardly ever happened: {seen}"


OUTCOMES = [("register", "granted"), ("register", "superseded"), ("heartbeat", "granted"), ("heartbeat", "not granted"),
            ("accede", "granted"), ("leave", "granted"), ("leave", "not granted"), "restore", "identity"] + [
    ("accede", refusal) for refusal in ("unknown", "changed", "held", "retired", "paused", "held-back", "not-eldest")]

# What a simulated database might get wrong: right text of database.c, wrong text.
MUTATIONS = {
    "an equal generation registers anew": ("me->generation != caller->generation) {", "true) {"),
    "the holder stays eligible after its term": ("member->eligible = false,", "(void)0,"),
    "a successor is named for the whole lease": (
        "throne->named_at + throne->lease_ms / 3", "throne->named_at + throne->lease_ms"),
    "incarnations do not matter to a renewal": (
        "throne->heir == caller->member_id && throne->incarnation == caller->incarnation &&\n                   throne->term",
        "throne->heir == caller->member_id &&\n                   throne->term"),
    "the first accession on another server does not jump": ("1000 + (int64_t)", "1 + 0 * (int64_t)"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_comparison_finds(real, folder, build, name):
    right, wrong = MUTATIONS[name]
    for source in [*(SOURCE / "tests/sim").glob("*.[ch]"), *(SOURCE / "heirflow").glob("succession.[ch]")]:
        shutil.copy(source, folder)
    text = (folder / "database.c").read_text()
    assert text.count(right) == 1, "the mutation no longer fits the code"
    (folder / "database.c").write_text(text.replace(right, wrong))
    subprocess.run("cc -std=gnu17 -w -I. calls.c database.c -ljansson -o calls", shell=True, cwd=folder, check=True)
    with pytest.raises(AssertionError, match="again: HEIRFLOW_DIFFERENTIAL="):
        play(folder / "calls", real, range(1, 101))
