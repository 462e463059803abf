"""Fencing at the database: the gate, the sessions, log-ins in flight, and what an administrator gets wrong."""
import contextlib
import signal
import socket
import struct
import threading

import psycopg2
import pytest

import processes
from processes import wait_for

BOTH = ("ada", "bob")


@pytest.fixture
def pair(fenced, member):
    def make(node):
        made = member(node, database=fenced, register=False)
        made.self["fence_role"] = f"scheduler_{node}"
        made.register()
        return made
    return [make(node) for node in BOTH]


def fence(heir, timeout_ms=5000, connection=None):
    with (connection or heir.connection).cursor() as cursor:
        cursor.execute("select heirflow.fence(%s, %s, %s, %s, %s)",
                       (heir.group, heir.member_id, heir.incarnation, heir.view["term"], timeout_ms))
        return cursor.fetchone()[0]


def hand_over(ada, bob):
    ada.abdicate()
    bob.beat()
    assert bob.accede()["acceded"]


def alive(connection):
    try:
        connection.cursor().execute("select 1")
        return True
    except (psycopg2.OperationalError, psycopg2.errors.AdminShutdown):
        return False


def test_the_gate_goes_with_the_throne(fenced, pair):
    ada, bob = pair
    assert [fenced.may_enter(node) for node in BOTH] == [False, False]
    assert ada.accede()["fence"] and fence(ada)["fenced"]
    assert [fenced.may_enter(node) for node in BOTH] == [True, False]
    old = fenced.login("ada")
    hand_over(ada, bob)
    assert alive(old), "sessions end after the commit"
    assert fence(bob) == {"fenced": True, "ended": 1, "leaks": None}
    assert not alive(old)
    assert [fenced.may_enter(node) for node in BOTH] == [False, True]


def test_a_lost_accession_moves_nothing(fenced, pair):
    ada, bob = pair
    ada.accede()
    ada.abdicate()
    bob.beat()
    bob.connection.autocommit = False
    assert bob.accede()["acceded"]
    bob.connection.rollback()
    assert [fenced.may_enter(node) for node in BOTH] == [True, False]


def test_a_log_in_in_flight_does_not_slip_through(fenced, pair):
    """post_auth_delay sleeps between the look at the gate and the entry among the sessions."""
    ada, bob = pair
    ada.accede()
    outcome = []

    def slip():
        try:
            outcome.append(fenced.login("ada", options="-cpost_auth_delay=2"))
        except psycopg2.OperationalError as error:
            outcome.append(error)
    thread = threading.Thread(target=slip)
    thread.start()
    unnamed = ("select count(*) from pg_locks l where locktype = 'virtualxid' "
               "and not exists (select from pg_stat_activity a where a.pid = l.pid and a.usesysid is not null)")
    wait_for(lambda: fenced.admin(unnamed)[0][0] == 1, what="a log-in in flight")
    hand_over(ada, bob)
    assert fenced.admin("select count(*) from pg_stat_activity where usename = 'scheduler_ada'")[0][0] == 0
    assert fence(bob, timeout_ms=20000) == {"fenced": True, "ended": 1, "leaks": None}
    thread.join()
    assert isinstance(outcome[0], psycopg2.OperationalError) or not alive(outcome[0])


def test_whoever_stalls_before_the_gate_is_not_waited_for(fenced, pair):
    """Anybody can knock and then not answer for authentication_timeout: such a log-in has yet to look at the gate."""
    ada, bob = pair
    ada.accede()
    fenced.admin("alter role scheduler_ada password 'secret'")
    fenced.server.hba("host app +tables all password", "host all all all trust")   # so its memberships are looked up early
    start = struct.pack("!i", 196608) + b"user\0scheduler_ada\0database\0app\0\0"
    with socket.create_connection(("127.0.0.1", fenced.server.port)) as stalling:
        stalling.sendall(struct.pack("!i", len(start) + 4) + start)
        assert stalling.recv(100)[0:1] == b"R", "it is asked for its password"
        hand_over(ada, bob)
        assert fence(bob, timeout_ms=3000)["fenced"]
        stalling.sendall(b"p" + struct.pack("!i", 11) + b"secret\0")
        assert b"permission denied for database" in stalling.makefile("rb").read()


def test_log_ins_that_come_later_do_not_prolong_it(fenced, pair):
    ada, bob = pair
    ada.accede(), hand_over(ada, bob)
    stop = threading.Event()
    log_ins = []

    def knock():
        while not stop.is_set():
            fenced.server.connect("home", options="-cpost_auth_delay=1").close()
            log_ins.append(1)
    threads = [threading.Thread(target=knock) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            seen = len(log_ins)
            assert fence(bob, timeout_ms=20000)["fenced"]
            wait_for(lambda: len(log_ins) > seen, what="another log-in")
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_the_heirs_own_leftovers_end_too(fenced, pair):
    ada, _ = pair
    ada.accede(), fence(ada)
    left_over = fenced.login("ada")
    ada.abdicate(), ada.register(), ada.beat()
    assert ada.accede(yields=True)["fence"] and fence(ada)["ended"] == 1
    assert not alive(left_over) and fenced.may_enter("ada")


def test_a_member_without_a_role_shuts_the_others_out(fenced, pair, member):
    ada, bob = pair
    cleo = member("cleo", database=fenced)
    ada.accede(), ada.abdicate(), cleo.beat()
    assert cleo.accede(yields=True)["fence"] and fence(cleo)["fenced"]
    assert [fenced.may_enter(node) for node in BOTH] == [False, False]


def test_a_group_without_roles_has_nothing_to_fence(database, member):
    assert member("ada").accede()["fence"] is False


def test_roles_are_remembered_when_their_member_is_not(fenced, pair):
    ada, bob = pair
    ada.accede(), hand_over(ada, bob)
    with_grantor = "granted by owner" if fenced.server.version >= 16 else ""
    fenced.admin(f"grant heirflow_gate to scheduler_ada {with_grantor}")   # as if its last accession had been restored
    fenced.query("delete from roster where node = 'ada' returning 1")
    bob.abdicate(), bob.register(), bob.beat()
    assert bob.accede(yields=True)["fence"]
    assert not fenced.may_enter("ada")


def test_renamed_and_dropped_roles(fenced, pair):
    ada, bob = pair
    ada.accede()
    fenced.admin("alter role scheduler_ada rename to scheduler_renamed")
    hand_over(ada, bob)
    assert not fenced.may_enter("renamed")
    fenced.admin("drop role scheduler_renamed")
    bob.abdicate(), bob.register(), bob.beat()
    assert bob.accede(yields=True)["acceded"] and fence(bob)["fenced"]


def test_an_administrator_at_the_same_memberships_is_waited_for(fenced, pair):
    ada, bob = pair
    ada.accede(), ada.abdicate(), bob.beat()
    other = fenced.server.connect("home")
    other.autocommit = False
    other.cursor().execute("revoke heirflow_gate from scheduler_ada")
    replies = []
    thread = threading.Thread(target=lambda: replies.append(bob.accede()))
    thread.start()
    wait_for(lambda: fenced.admin("select count(*) from pg_locks where not granted")[0][0] == 1, what="the accession to wait")
    other.commit()
    thread.join()
    assert replies[0].get("acceded"), replies
    assert [fenced.may_enter(node) for node in BOTH] == [False, True]


def test_a_term_that_is_over_fences_nobody(fenced, pair):
    ada, bob = pair
    ada.accede(), hand_over(ada, bob), fence(bob)
    session = fenced.login("bob")
    assert fence(ada) == {"fenced": False, "reason": "the term is over"}
    assert alive(session)


@contextlib.contextmanager
def frozen(session):
    processes.send(session.info.backend_pid, signal.SIGSTOP)
    try:
        yield
    finally:
        processes.send(session.info.backend_pid, signal.SIGCONT)


def test_a_term_that_ends_while_it_fences_spares_its_successor(fenced, pair):
    """A call whose client has gone goes on in the server."""
    ada, bob = pair
    ada.accede(), fence(ada)
    replies = []
    with frozen(fenced.login("ada")):
        late = threading.Thread(target=lambda: replies.append(fence(ada, 20000, fenced.connect())))
        late.start()
        wait_for(lambda: fenced.admin("select count(*) from pg_stat_activity where wait_event = 'PgSleep'")[0][0] == 1,
                 what="the call to wait for a session")
        hand_over(ada, bob)
        session = fenced.login("bob")
        late.join()
    assert replies == [{"fenced": False, "reason": "the term is over"}]
    assert alive(session)


def test_a_session_that_does_not_end_is_told(fenced, pair):
    ada, bob = pair
    ada.accede(), fence(ada)
    old = fenced.login("ada")
    with frozen(old):
        hand_over(ada, bob)
        reply = fence(bob, timeout_ms=200)
    assert reply["fenced"] is False and "sessions that do not end: 1" in reply["reason"]
    assert fence(bob)["fenced"] and not alive(old)


UNABLE = [
    ("drop role scheduler_ada", "there is no role scheduler_ada"),
    ("revoke heirflow_fenced from scheduler_ada", "scheduler_ada is no member of heirflow_fenced"),
    ("alter role scheduler_ada superuser", "scheduler_ada is a superuser"),
    ("revoke admin option for heirflow_gate from owner", "owner lacks the admin option on heirflow_gate"),
    ("revoke pg_signal_backend from owner", "owner lacks pg_signal_backend"),
]


def test_heirflow_does_not_end_its_own_sessions(fenced, member):
    """A node that uses the one role for wrapper and scheduler."""
    fenced.admin("grant heirflow_member to scheduler_ada")
    ada = member("ada", database=fenced, register=False)
    ada.connection.cursor().execute("set session authorization scheduler_ada")
    ada.self["fence_role"] = "scheduler_ada"
    ada.register()
    reply = ada.accede()
    assert not reply["acceded"] and reply["unable"] and "Heirflow itself logs in as scheduler_ada" in reply["refused"]


@pytest.mark.parametrize("mistake, fault", UNABLE)
def test_who_cannot_be_fenced_does_not_accede(fenced, pair, mistake, fault):
    ada, _ = pair
    fenced.admin(mistake)
    reply = ada.accede()
    assert not reply["acceded"] and reply["unable"] and fault in reply["refused"]
    assert fault in checked(fenced)[0]


LEAKS = [
    ("grant connect on database app to public", "scheduler_ada may connect to app as anybody may"),
    ("grant connect on database app to scheduler_ada", "scheduler_ada may connect to app as scheduler_ada"),
    ("grant connect on database app to tables", "scheduler_ada may connect to app as tables"),
    ("alter database app owner to scheduler_ada", "scheduler_ada owns database app"),
    ("grant heirflow_gate to scheduler_ada with admin option", "scheduler_ada may pass the gate on"),
    ("grant heirflow_gate to tables", "scheduler_ada may pass the gate as tables"),
    ("grant owner to scheduler_ada", "scheduler_ada may pass the gate as owner"),
    ("grant scheduler_bob to scheduler_ada", "scheduler_ada may pass the gate as scheduler_bob"),
    ("create role boss superuser; grant boss to tables", "scheduler_ada may become boss, a superuser"),
    ("alter role tables noinherit; alter database app owner to owner; grant owner to tables", "scheduler_ada owns database app"),
]
MISTAKES = [
    ("revoke connect on database app from heirflow_gate", "heirflow_gate may connect to no database"),
    ("alter role scheduler_ada nologin", "scheduler_ada cannot log in"),
    ("create schema own authorization scheduler_ada", "scheduler_ada owns objects"),
]


def checked(fenced, role="scheduler_ada"):
    return [row[0] for row in fenced.query("select fence_check('g', %s)", role)]


@pytest.mark.parametrize("mistake, fault", LEAKS)
def test_ways_past_the_gate_are_named(fenced, pair, mistake, fault):
    ada, _ = pair
    assert checked(fenced) == []
    fenced.admin(mistake)
    assert fault in checked(fenced)
    assert ada.accede()["acceded"] and fault in fence(ada)["leaks"]


@pytest.mark.parametrize("mistake, fault", MISTAKES)
def test_other_mistakes_are_named(fenced, pair, mistake, fault):
    fenced.admin(mistake)
    assert any(fault in line for line in checked(fenced))


# -- what PostgreSQL 16 changed; each of these tests tells what holds before and after

def test_who_may_create_roles_could_take_the_gate_before_16(fenced):
    fenced.admin("alter role scheduler_ada createrole")
    with contextlib.closing(fenced.server.connect("postgres", user="scheduler_ada")) as session:
        if fenced.server.version < 16:
            session.cursor().execute("grant heirflow_gate to scheduler_ada")
            assert checked(fenced) == ["scheduler_ada may create roles"]
        else:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                session.cursor().execute("grant heirflow_gate to scheduler_ada")
            assert checked(fenced) == []


def test_who_may_become_one_who_creates_roles(fenced):
    fenced.admin("create role clerk createrole noinherit; grant clerk to tables")
    assert checked(fenced) == (["scheduler_ada may become clerk, who may create roles"] if fenced.server.version < 16 else [])


def test_a_role_that_does_not_inherit_gets_in_from_16_on(fenced, pair):
    ada, _ = pair
    fenced.admin("alter role scheduler_ada noinherit")
    assert ada.accede()["acceded"]
    if fenced.server.version < 16:
        assert checked(fenced) == ["scheduler_ada does not inherit, so the gate never opens for it"]
        assert not fenced.may_enter("ada")
    else:
        assert checked(fenced) == [] and fenced.may_enter("ada")


@pytest.fixture
def from_16_on(fenced):
    if fenced.server.version < 16:
        pytest.skip("there is one membership before PostgreSQL 16, whoever grants it")


def test_a_gate_that_another_has_granted_is_named(from_16_on, fenced, pair):
    ada, bob = pair
    ada.accede()
    fenced.admin("grant heirflow_gate to scheduler_ada")
    assert checked(fenced) == ["scheduler_ada was granted heirflow_gate by postgres"]
    hand_over(ada, bob)
    assert fence(bob) == {"fenced": True, "ended": 0, "leaks": "scheduler_ada was granted heirflow_gate by postgres"}
    assert fenced.may_enter("ada"), "so it must be named"
    fenced.admin("revoke heirflow_gate from scheduler_ada")
    assert not fenced.may_enter("ada") and checked(fenced) == []


def test_an_owner_that_has_the_gate_through_another_role(from_16_on, fenced, pair):
    """Grants are in that role's name then."""
    ada, bob = pair
    fenced.admin("create role administrators; grant heirflow_gate to administrators with admin option; "
                 "revoke heirflow_gate from owner; grant administrators to owner")
    ada.accede(), fence(ada)
    assert [fenced.may_enter(node) for node in BOTH] == [True, False]
    assert checked(fenced) == []
    hand_over(ada, bob)
    assert fence(bob)["leaks"] is None
    assert [fenced.may_enter(node) for node in BOTH] == [False, True]


def test_a_superuser_takes_the_gate_whoever_has_granted_it(from_16_on, fenced, pair):
    ada, bob = pair
    ada.accede()
    fenced.admin("alter role owner superuser; grant heirflow_gate to scheduler_ada")
    hand_over(ada, bob)
    assert fence(bob)["leaks"] is None
    assert [fenced.may_enter(node) for node in BOTH] == [False, True]


def test_a_gate_passed_on_is_taken_from_all(from_16_on, fenced, pair):
    ada, bob = pair
    fenced.admin("create role friend login; grant heirflow_gate to scheduler_ada with admin option granted by owner")
    ada.accede()
    with contextlib.closing(fenced.login("ada")) as session:
        session.cursor().execute("grant heirflow_gate to friend")
    assert "scheduler_ada may pass the gate on" in checked(fenced)
    hand_over(ada, bob)
    assert [fenced.may_enter(node) for node in BOTH] == [False, True]
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        fenced.server.connect("app", user="friend")


@pytest.mark.parametrize("options, ways", [("inherit false, set false", 0), ("inherit false, set true", 1),
                                           ("inherit true, set false", 1), ("inherit false, set false, admin true", 1)])
def test_a_membership_that_is_good_for_nothing_is_no_way_past(from_16_on, fenced, options, ways):
    fenced.admin(f"create role boss superuser; grant boss to scheduler_ada with {options}")
    assert checked(fenced) == ["scheduler_ada may become boss, a superuser"] * ways


def test_a_role_of_two_members_is_named(fenced, pair, member):
    cleo = member("cleo", database=fenced, register=False)
    cleo.self["fence_role"] = "scheduler_ada"
    cleo.register()
    assert checked(fenced) == ["scheduler_ada is the fence_role of several members: ada, cleo"]


def test_a_role_of_two_groups_is_named(fenced, pair, member):
    cleo = member("ada", group="other", database=fenced, register=False)
    cleo.self["fence_role"] = "scheduler_ada"
    cleo.register()
    assert checked(fenced) == ["scheduler_ada is the fence_role of several members: ada, ada (group other)"]


def test_check_command(fenced, command):
    arguments = ["check", "--group", "g"]
    environment = {"HEIRFLOW_FENCE_ROLE": "scheduler_ada", "HEIRFLOW_RUN_DIRECTORY": "/tmp", "HEIRFLOW_NO_HEIR": "true"}
    good = command(*arguments, database=fenced, expect=0, **environment)
    assert "OK  fencing: the next heir ends the sessions of scheduler_ada" in good.stdout
    fenced.admin("grant connect on database app to public")
    bad = command(*arguments, database=fenced, expect=1, **environment)
    assert "BAD fencing: scheduler_ada may connect to app as anybody may - see docs/fencing.md" in bad.stdout


# -- assert_heir

def test_the_guard(line, member):
    ada, bob, _ = line
    term = ada.view["term"]
    viewer = member("v", register=False)
    assert viewer.call("assert_heir", "g", term) == ""
    for group, wrong in [("g", term + 1), ("g", term - 1), ("g", None), ("none", term)]:
        with pytest.raises(psycopg2.errors.InvalidAuthorizationSpecification):
            viewer.call("assert_heir", group, wrong)
    ada.abdicate()
    with pytest.raises(psycopg2.errors.InvalidAuthorizationSpecification, match="has ended, and no other has begun"):
        viewer.call("assert_heir", "g", term)
    bob.beat()
    assert bob.accede()["acceded"]
    with pytest.raises(psycopg2.errors.InvalidAuthorizationSpecification, match=f"is at term {bob.view['term']}"):
        viewer.call("assert_heir", "g", term)


def test_the_guard_ends_the_transaction_it_stands_in(line, database):
    ada, _, _ = line
    worker = database.connect()
    worker.autocommit = False
    with worker.cursor() as cursor:
        cursor.execute("create table public.work (done integer)")
        worker.commit()
        cursor.execute("insert into public.work values (1)")
        cursor.execute("select heirflow.assert_heir('g', %s)", (ada.view["term"],))
        worker.commit()
        cursor.execute("insert into public.work values (2)")
        ada.abdicate()
        with pytest.raises(psycopg2.errors.InvalidAuthorizationSpecification):
            cursor.execute("select heirflow.assert_heir('g', %s)", (ada.view["term"],))
        worker.rollback()
    assert database.query("select done from public.work") == [(1,)]


def test_the_guard_refuses_old_snapshots_and_holds_no_takeover_up(line, database):
    ada, bob, _ = line
    worker = database.connect()
    worker.autocommit = False
    with worker.cursor() as cursor:
        cursor.execute("select heirflow.assert_heir('g', %s)", (ada.view["term"],))
        ada.abdicate(), bob.beat()
        assert bob.accede()["acceded"], "while the worker's transaction is open"
        worker.rollback()
        cursor.execute("set transaction isolation level repeatable read")
        with pytest.raises(psycopg2.errors.InvalidTransactionState, match="cannot see a takeover"):
            cursor.execute("select heirflow.assert_heir('g', %s)", (bob.view["term"],))
