"""The simulated database (database.c) and the SQL functions give the same replies to the same random calls.

One generator makes the calls. Each goes to the simulation (calls.c) and to PostgreSQL, whose functions read the time and
the server's identity from a table here, so that time passes, clocks step, servers restart and failovers lose commits when
the generator says so. Some calls come in pairs, the second while the first one's transaction is still open: then it waits,
or sees nothing of the first. Numbers stand for seats, incarnations and members alike.

One sequence by hand, told call by call, as a failure prints it too:
HEIRFLOW_DIFFERENTIAL=SEED /usr/bin/python3 -m pytest -s tests/sim/test_differential.py
"""
import json
import os
import pathlib
import random
import select
import shutil
import subprocess
import uuid

import conftest
import psycopg2.extras
import pytest

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
SEATS = (1, 2, 3, 4)
CALLS = 60
DAY = 86_400_000  # who has been silent for longer is purged
LEASES = (900, 1000, 3000, 6000)
REGISTER, HEARTBEAT, ACCEDE, ABDICATE, LEAVE = range(1, 6)
NAMES = ("", "register", "heartbeat", "accede", "abdicate", "leave")
COMPARED = ("granted refused identity heir heir_incarnation term beat home lease_ms accession_lease_ms wait_ms paused "
            "last_seat known member_id incarnation rank eldest named held_back retired asked").split()

# In place of clock_timestamp() and server_identity(), and what a failover does to one group.
CONTROLS = """
create schema heirflow;
set search_path = heirflow, pg_temp;
create table schema_version (version integer primary key, name text);
create table test_control (now bigint not null, identity text not null);
insert into test_control values (0, '');
create function test_clock() returns timestamptz language sql volatile
    as $$ select to_timestamp(0) + now * interval '1 millisecond' from heirflow.test_control $$;
"""
IDENTITY = """
create or replace function server_identity() returns text language sql volatile
    as $$ select 'server-' || identity from heirflow.test_control $$;
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
    def __init__(self, connect, edit=None):
        """Three connections: one for whatever comes alone, and two for pairs. edit: (right, wrong) text of the SQL."""
        self.control, self.first, self.second = connect(), connect(), connect(async_=True)
        self.first.autocommit = False
        self.cursor = self.control.cursor()
        self.cursor.execute(CONTROLS)
        texts = [path.read_text() for path in sorted((SOURCE / "sql").glob("[0-9]*.sql"))]
        if edit:
            assert sum(text.count(edit[0]) for text in texts) == 1, "the mutation no longer fits the code"
        for text in texts:
            self.cursor.execute((text.replace(*edit) if edit else text).replace("clock_timestamp()", "test_clock()"))
            self.cursor.execute("set search_path = heirflow, pg_temp")
        self.cursor.execute(IDENTITY + "".join(f"create table saved_{name} (like {name});" for name in (
            "throne", "roster", "retirement", "terms", "news", "news_counter", "relay")))
        self.group = None

    def close(self):
        for connection in (self.control, self.first, self.second):
            connection.close()

    @staticmethod
    def start(cursor, function, values):
        cursor.execute(f"select {function}({', '.join(['%s'] * len(values))})", values)

    def select(self, function, *values):
        self.start(self.cursor, function, values)
        return self.cursor.fetchone()[0]

    def set_ids(self, last):
        self.cursor.execute("select setval('member_id', %s, %s)", [max(last, 1), last > 0])

    def tell(self, what, *numbers):
        if what == "begin":
            self.group = f"group-{uuid.uuid4()}"
            self.saved_member = 0
            self.set_ids(0)
            self.cursor.execute("update test_control set now = %s, identity = '1'", [numbers[0]])
        elif what in ("time", "identity"):
            setting = "now" if what == "time" else "identity"
            self.cursor.execute(f"update test_control set {setting} = %s", [numbers[0]])
        elif what == "save":
            self.select("test_copy", self.group, "", "saved_")
            self.cursor.execute("select case when is_called then last_value else 0 end from member_id")
            self.saved_member = self.cursor.fetchone()[0]
        elif what == "restore":
            self.select("test_copy", self.group, "saved_", "")
            self.set_ids(self.saved_member)
        elif what == "ids":
            self.set_ids(numbers[0])
        elif what == "switchover":
            return self.select("request_switchover", self.group, f"node-{numbers[0]}" if numbers[0] else None)["accepted"]
        elif what == "pause":
            return self.select("set_paused", self.group, bool(numbers[0]))
        elif what == "retire":
            return self.select("set_retired", self.group, f"node-{numbers[0]}", bool(numbers[1]))["accepted"]
        elif what == "lease":
            return self.select("set_lease", self.group, numbers[0])
        return None

    def statement(self, kind, c):
        seat, node = as_uuid(1000 + c["seat"]), f"node-{c['seat']}"
        says = psycopg2.extras.Json({"node": node, "lease_ms": c["lease"], "eligible": c["eligible"],
                                     "highest_term": c["highest"]})
        incarnation, group = as_uuid(c["incarnation"]), self.group
        if kind == REGISTER:
            return "register", [group, seat, c["generation"], incarnation, node, c["lease"], says]
        if kind == HEARTBEAT:
            term = c["term"] if c["renew"] else None
            return "heartbeat", [group, seat, c["member"], incarnation, term, says, "[]"]
        if kind == ACCEDE:
            return "accede", [group, seat, c["member"], incarnation, f"server-{c['server']}", c["heir"] or None,
                              as_uuid(c["heir_incarnation"]), c["seen_term"], c["seen_beat"], c["highest"], c["yields"]]
        if kind == ABDICATE:
            return "abdicate", [group, c["member"], incarnation, c["term"], "test"]
        return "leave", [group, seat, incarnation, "test"]

    @staticmethod
    def read(kind, reply):
        granted = {REGISTER: "refused" not in reply, HEARTBEAT: reply.get("renewed"), ACCEDE: reply.get("acceded"),
                   ABDICATE: True, LEAVE: reply.get("left")}[kind]
        if kind in (ABDICATE, LEAVE):
            return {"granted": granted, "refused": "", "heir_incarnation": 0, "incarnation": 0}
        return {**reply, "granted": granted, "refused": reply.get("refused", ""), "heir": reply["heir"] or 0,
                "asked": reply["request"] or "", "heir_incarnation": as_number(reply["heir_incarnation"]),
                "incarnation": as_number(reply.get("incarnation")), "member_id": reply["member_id"] or 0,
                "last_seat": bool(reply["last_seat"])}

    def call(self, kind, c):
        function, values = self.statement(kind, c)
        return self.read(kind, self.select(function, *values))

    def answered(self, connection):
        """True once the second session has its reply, False if it waits for a lock."""
        while connection.poll() != psycopg2.extensions.POLL_OK:
            if not select.select([connection], [], [], 0.001)[0]:
                self.cursor.execute("select cardinality(pg_blocking_pids(%s)) > 0", [connection.get_backend_pid()])
                if self.cursor.fetchone()[0]:
                    return False
        return True

    def call_both(self, first, second, undo, meanwhile):
        """The second call before the first one's commit, or roll-back. Both replies, and whether the second waited."""
        replies = []
        with self.first.cursor() as one, self.second.cursor() as two:
            self.start(one, *self.statement(*first))
            replies.append(self.read(first[0], one.fetchone()[0]))
            self.start(two, *self.statement(*second))
            waited = not self.answered(self.second)
            if waited:
                meanwhile()
            (self.first.rollback if undo else self.first.commit)()
            psycopg2.extras.wait_select(self.second)
            replies.append(self.read(second[0], two.fetchone()[0]))
        return *replies, waited


def only_lives(call):
    """A standby's heartbeat: the one call that does not lock the throne."""
    kind, c = call
    return kind == HEARTBEAT and not c["renew"]


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
        self.story, self.planned = [], None
        self.now, self.server, self.servers, self.incarnations = 10**12, 1, 1, 0
        self.lease = self.random.choice(LEASES)
        self.seats = [Seat(number) for number in SEATS]

    def tell(self, what, *numbers):
        if self.planned is not None:
            return
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
        if self.planned is not None:
            self.planned.append((seat, kind, c))
            return None
        self.note("", kind, c)
        real = self.real.call(kind, c)
        self.compare(kind, c, self.simulated.call(kind, c), real)
        self.learn(seat, kind, c, real)
        return real

    def note(self, before, kind, c):
        self.story.append(f"{before}{NAMES[kind]} " + " ".join(f"{key}={value}" for key, value in c.items()))

    def compare(self, kind, c, simulated, real):
        outcome = (NAMES[kind], real["refused"] or ("granted" if real["granted"] else "not granted"))
        self.seen[outcome] = self.seen.get(outcome, 0) + 1
        self.same_term(simulated, real, c)
        for field in COMPARED:
            assert simulated.get(field) == real.get(field), self.report(simulated, real)

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

    def plan(self, seat):
        """What this seat would call next, without calling it."""
        self.planned = []
        self.random.choice((self.register, self.heartbeat, self.heartbeat, self.accede, self.accede, self.abdicate,
                            self.leave))(seat)
        planned, self.planned = self.planned[-1], None
        return planned

    def together(self, seat):
        """Two sessions at once: the second calls while the first one's transaction is open."""
        (a, *first), (b, *second) = self.plan(seat), self.plan(self.random.choice(self.seats))
        if a is b or (only_lives(first) and second[0] == REGISTER):   # may or may not purge whom it does not see
            return
        undo = first[0] != REGISTER and self.random.random() < 0.25
        self.note("without commit, " if undo else "without commit as yet, ", *first)
        self.note("meanwhile, ", *second)
        later = self.now + self.random.choice((0, 0, self.lease // 3 + 1, 3 * self.lease))
        one, two, waited = self.real.call_both(first, second, undo, lambda: self.real.tell("time", later))
        if waited:
            self.one_after_the_other(first, one, second, two, undo, later)
        else:
            self.unseen(first, one, second, two, undo)
        if not undo:
            self.learn(a, *first, one)
        self.learn(b, *second, two)

    def on_simulated(self, call, real, then_undo=False):
        if then_undo:
            self.simulated.tell("mark")
        self.compare(*call, self.simulated.call(*call), real)
        if then_undo:
            self.simulated.tell("back")

    def one_after_the_other(self, first, one, second, two, undo, later):
        self.seen["waited"] = self.seen.get("waited", 0) + 1
        self.on_simulated(first, one, undo)
        self.now = later
        self.story.append(f"(it waited until {later})")
        self.simulated.tell("time", later)
        self.on_simulated(second, two)

    def unseen(self, first, one, second, two, undo):
        """Neither saw the other. What only says that a member lives changes nothing for the other, so it comes last."""
        self.seen["unseen"] = self.seen.get("unseen", 0) + 1
        if only_lives(first):
            self.on_simulated(first, one, True)
            self.on_simulated(second, two)
            again = None if undo else first
        else:
            self.on_simulated(second, two, True)
            self.on_simulated(first, one, undo)
            again = second
        if again:
            self.simulated.call(*again)

    def operate(self, seat):
        """Often of the heir, to whom what is asked is shown."""
        heir = self.heir(seat) or seat
        for _ in range(self.random.randint(1, 3)):
            subject = self.random.choice((heir, seat)).number
            self.tell(*self.random.choice((
                ("switchover", 0), ("switchover", self.random.choice(SEATS)), ("pause", 1), ("pause", 0), ("pause", 0),
                ("retire", subject, 1), ("retire", subject, 0), ("retire", subject, 0),
                ("lease", self.random.choice(LEASES)))))
        self.call(HEARTBEAT, heir)

    def disturb(self, seat):
        what = self.random.choice(("restart", "restart", "save", "save", "restore", "ids"))
        if what == "ids":   # handed out twice
            self.tell("ids", self.random.randint(0, 2))
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
                   self.operate: 6, self.disturb: 2, self.together: 8}
        for seat in self.seats[:3]:
            self.register(seat)
        while len(self.story) < CALLS:
            if self.random.random() < 0.4:
                self.pass_time()
            self.random.choices(list(weights), list(weights.values()))[0](self.random.choice(self.seats))
        for seat in self.seats:
            self.call(HEARTBEAT, seat)


class Script(Sequence):
    """What chance hardly ever brings about."""

    def begin(self, *seats):
        """The first of them is the heir."""
        self.tell("begin", self.now)
        for seat in seats:
            self.call(REGISTER, seat, incarnation=10 + seat.number, generation=1)
        self.call(HEARTBEAT, seats[0])
        self.call(ACCEDE, seats[0])


class RetiredHeirIsAskedAgain(Script):
    """Pausing withdraws what it is asked, resuming asks again."""

    def play(self):
        a = self.seats[0]
        self.begin(a)
        self.tell("retire", 1, 1)
        for paused, asked in ((1, ""), (0, "retire")):
            self.tell("pause", paused)
            assert self.call(HEARTBEAT, a, renew=True)["asked"] == asked


class NamesakeIsRetired(Script):
    """The heir's number was handed out twice; whom it then belongs to is not the heir."""

    def play(self):
        a, b = self.seats[:2]
        self.begin(a)
        self.tell("ids", 0)
        self.call(REGISTER, b, incarnation=22, generation=1)
        assert a.member == b.member
        self.tell("retire", 2, 1)
        assert self.call(HEARTBEAT, a, renew=True)["asked"] == ""


class YoungestIsToFollow(Script):
    """Until another switchover is asked for, or the heir retires."""

    def play(self):
        a, b, c = self.seats[:3]
        for last, named in ((("switchover", 3), c), (("switchover", 0), b), (("retire", 1, 1), b)):
            self.begin(a, b, c)
            self.tell("switchover", 3)
            self.tell(*last)
            self.call(ABDICATE, a)
            for seat in (b, c):
                assert self.call(HEARTBEAT, seat)["named"] == (seat is named)


SCRIPTS = {script.__name__: script for script in (RetiredHeirIsAskedAgain, NamesakeIsRetired, YoungestIsToFollow)}


@pytest.fixture(scope="module")
def make_real(postgres):
    """make_real(edit=None): the SQL functions in a database of their own."""
    made = []

    def make(edit=None):
        name = f"differential_{os.getpid()}_{len(made)}"
        postgres.psql(f"create database {name}")

        def connect(**more):   # the functions set synchronous_commit as they need it
            connection = psycopg2.connect(postgres.dsn(name), **more, options="-c search_path=heirflow,pg_temp -c timezone=UTC "
                                          "-c synchronous_commit=off")
            if more:
                psycopg2.extras.wait_select(connection)
            else:
                connection.autocommit = True
            return connection
        made.append((name, Real(connect, edit)))
        return made[-1][1]
    yield make
    for name, real in made:
        real.close()
        conftest.drop_database(postgres, name)


@pytest.fixture(scope="module")
def real(make_real):
    return make_real()


def play(program, real, seeds, aloud=False):
    simulated, seen = Simulated(program), {}
    for seed in seeds:
        SCRIPTS.get(seed, Sequence)(seed, simulated, real, seen, aloud).play()
    return seen


BLOCKS = [[*SCRIPTS], *(range(first, first + 100) for first in (1, 101, 201))]
BY_HAND = os.environ.get("HEIRFLOW_DIFFERENTIAL")
if BY_HAND:
    BLOCKS = [[BY_HAND if BY_HAND in SCRIPTS else int(BY_HAND)]]


@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"from-{seeds[0]}")
def test_the_same_replies(build, real, seeds):
    seen = play(build / "tests/sim/calls", real, seeds, BY_HAND)
    if len(seeds) == 100:
        for outcome in OUTCOMES:
            assert seen.get(outcome, 0) >= 3, f"{outcome} hardly ever happened: {seen}"


OUTCOMES = [("register", "granted"), ("register", "superseded"), ("heartbeat", "granted"), ("heartbeat", "not granted"),
            ("accede", "granted"), ("leave", "granted"), ("leave", "not granted"), "restore", "identity", "ids", "waited", "unseen"] + [
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
    "nobody is purged": ("member->seen_at < self->now_ms - DAY_MS", "0"),
    "a switchover's target is forgotten": ("if (i == self->throne.target)", "if (0)"),
    "a retired heir is not asked again": ("if (!paused && is_holder(", "if (0 && is_holder("),
    "a namesake is taken for the heir": (
        "return member->exists && member->member_id == self->throne.heir && member->incarnation == self->throne.incarnation;",
        "return member->exists && member->member_id == self->throne.heir;"),
}
# What the SQL functions might get wrong where sessions meet.
SQL_MUTATIONS = {
    "accession judges without the lock": (
        "where group_name = p_group for update;\n    v_now := clock_timestamp();\n    select * into me from roster\n",
        "where group_name = p_group;\n    v_now := clock_timestamp();\n    select * into me from roster\n"),
    "renewal judges without the lock": (
        "for update;\n        v_now := clock_timestamp();\n        v_renewed", ";\n        v_now := clock_timestamp();\n        v_renewed"),
    "accession reads the clock before it has the lock": (
        "    select * into t from throne where group_name = p_group for update;\n    v_now := clock_timestamp();\n"
        "    select * into me from roster\n",
        "    v_now := clock_timestamp();\n    select * into t from throne where group_name = p_group for update;\n"
        "    select * into me from roster\n"),
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
        play(folder / "calls", real, [*SCRIPTS, *range(1, 101)])


@pytest.mark.parametrize("name", SQL_MUTATIONS)
def test_the_comparison_finds_in_the_sql(make_real, build, name):
    with pytest.raises(AssertionError, match="again: HEIRFLOW_DIFFERENTIAL="):
        play(build / "tests/sim/calls", make_real(SQL_MUTATIONS[name]), range(1, 101))
