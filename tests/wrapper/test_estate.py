"""What the next heir inherits: copied, stored, put in place; and whatever is wrong with it stops no succession."""
import contextlib
import os
import pathlib
import pwd
import signal

import processes
import pytest

from conftest import wait_for

MUCH = 8 << 20

# Keeps a state as schedulers do: reads it at its start, adds its term, writes it anew; and once more when it ends.
SCHEDULER = """
import os, signal, sys, time
def write(text):
    with open('new', 'w') as file:
        file.write(text)
    os.replace('new', 'state')
state = (open('state').read() + ' ' if os.path.exists('state') else '') + os.environ['HEIRFLOW_NODE']
def stop(*_):
    write(state + '.')
    sys.exit()
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR1, lambda *_: os._exit(1))
if sys.argv[1:] != ['reader']:
    write(state)
print('started with', state, flush=True)
while True:
    time.sleep(0.02)
"""


@pytest.fixture
def node(wrapper, database, folder):
    """node("ada"): a wrapper whose scheduler has a state, .state, in a directory of its own as on a host of its own."""
    def make(name, scheduler=(), command=("/usr/bin/python3", "-c", SCHEDULER), **more):
        home = folder / name
        home.mkdir()
        home.chmod(0o777)
        settings = {"directory": str(home), "estate": ["state"], "estate_interval_ms": 200, **dict(scheduler)}
        made = wrapper(name, database=database, command=list(command), scheduler=settings, **({"lease_ms": 4000} | more))
        made.state = home / "state"
        if more.get("start", True):
            made.wait_for_event("standby")
        return made
    return make


def news(database, event):
    return database.query("select node, reason, data from news where event = %s order by sequence", event)


def failures(database):
    return [(node, reason) for node, reason, _ in news(database, "estate-failed")]


def starts(wrapper):
    """What its schedulers began with."""
    return [line.removeprefix("started with ") for line in wrapper.log().splitlines() if line.startswith("started with ")]


def wait_for_start(wrapper, count=1):
    wait_for(lambda: len(starts(wrapper)) >= count, 30, wrapper.log)
    return starts(wrapper)[-1]


def stored(database):
    return [row[0] for row in database.query("select convert_from(content, 'utf8') from estate order by term, copy")]


def stored_sizes(database):
    return [row[0] for row in database.query("select length(content) from estate order by term, copy")]


def copied(wrapper, database, content):
    wait_for(lambda: content in stored(database), 30, lambda: f"the copy of {content!r}\n{wrapper.log()}")


# -- from one heir to the next ----------------------------------------------------------------------------------------

def test_a_hand_over_leaves_the_last_word(node, database):
    ada, bert = node("ada", {"estate_interval_ms": 600000}), node("bert")
    assert wait_for_start(ada) == "ada"
    ada.state.chmod(0o640)
    ada.terminate()
    assert wait_for_start(bert) == "ada. bert"
    assert ada.wait() == 0
    assert bert.state.stat().st_mode & 0o777 == 0o644, "the scheduler's last write made a new file"
    (row,) = news(database, "estate-inherited")
    assert row[0] == "bert" and row[2]["from"] == "ada" and row[2]["files"] == 1 and row[2]["age_ms"] < 30000
    assert not failures(database)
    assert not [path.name for path in bert.state.parent.glob(".state.heirflow-new*")]


@pytest.mark.parametrize("end", ["kill", "power_off"])
def test_a_crash_leaves_the_last_copy(node, database, end):
    ada, bert = node("ada"), node("bert")
    wait_for_start(ada)
    copied(ada, database, "ada")
    ada.state.write_text("ada, at work")
    ada.state.chmod(0o604)
    copied(ada, database, "ada, at work")
    wait_for(lambda: database.value("select max(mode) from estate") == 0o604 or database.value(
        "select mode from estate order by term desc, copy desc limit 1") == 0o604, 30, "the copy with its mode")
    getattr(ada, end)()
    assert wait_for_start(bert) == "ada, at work bert"


def test_there_and_back(node, database):
    """Each reads what the other left, and nobody what it has left itself."""
    ada, bert = node("ada"), node("bert")
    wait_for_start(ada)
    ada.terminate()
    wait_for_start(bert)
    assert ada.wait() == 0
    ada.start()
    ada.wait_for_event("standby", count=2)
    bert.terminate()
    assert wait_for_start(ada, 2) == "ada. bert. ada"
    assert bert.wait() == 0
    ada.terminate()
    assert ada.wait() == 0
    ada.state.write_text("mine, and later")
    ada.start()
    assert wait_for_start(ada, 3) == "mine, and later ada"
    assert [row[0] for row in news(database, "estate-inherited")] == ["bert", "ada"]
    assert not failures(database)


def test_a_missing_file_is_inherited_even_of_our_own_term(node, database):
    ada = node("ada")
    wait_for_start(ada)
    ada.terminate()
    assert ada.wait() == 0
    ada.state.unlink()
    ada.start()
    assert wait_for_start(ada, 2) == "ada. ada"


def test_marks_of_another_database_do_not_count(node, database):
    ada, bert = node("ada"), node("bert", start=False)
    wait_for_start(ada)
    ada.terminate()
    assert ada.wait() == 0
    bert.state.write_text("of another world")
    (bert.state.parent / ".state.heirflow-term").write_text("11111111-2222-3333-4444-555555555555 4000000\n")
    bert.start()
    assert wait_for_start(bert) == "ada. bert"


@pytest.mark.parametrize("crash", [signal.SIGKILL, signal.SIGUSR1])
def test_restarts_in_place_inherit_nothing_and_crashes_leave_nothing(node, database, crash):
    ada = node("ada", {"estate_interval_ms": 600000, "restart": {"limit": 1, "window_ms": 600000, "backoff_ms": 1}})
    bert = node("bert")
    for count in (1, 2):
        wait_for_start(ada, count)
        os.kill(ada.scheduler(), crash)
    assert wait_for_start(bert) == "bert", "the crash's remains are no copy"
    assert starts(ada) == ["ada", "ada ada"]
    assert not news(database, "estate-inherited") and not failures(database)


def test_a_fenced_scheduler_leaves_nothing(node, database):
    ada = node("ada", {"estate_interval_ms": 600000}, lease_ms=1000)
    wait_for_start(ada)
    database.query("alter function heartbeat(text, uuid, bigint, uuid, bigint, jsonb, jsonb) rename to hidden; select 1")
    ada.wait_for_event("fenced")
    database.query("alter function hidden(text, uuid, bigint, uuid, bigint, jsonb, jsonb) rename to heartbeat; select 1")
    wait_for_start(ada, 2)
    assert stored(database) == []


def test_several_files_are_one_copy(node, database):
    both = {"estate": ["state", "journal"]}
    ada, bert = node("ada", both), node("bert", both)
    wait_for_start(ada)
    (ada.state.parent / "journal").write_bytes(bytes(range(256)) * 300)
    wait_for(lambda: database.value("select count(*) from (select from estate group by term, copy having count(*) = 2) c"), 30,
             ada.log)
    ada.terminate()
    assert wait_for_start(bert) == "ada. bert"
    assert (bert.state.parent / "journal").read_bytes() == bytes(range(256)) * 300
    assert database.value("select max(n) from (select count(*) n from estate group by path) c") <= 3


def test_what_the_last_heir_did_not_have_is_out_of_the_way(node, database):
    """Else a state would meet the journal of an older one."""
    both = {"estate": ["state", "journal"]}
    ada, bert = node("ada", both), node("bert", both, start=False)
    stale = bert.state.parent / "journal"
    stale.write_text("of long ago")
    bert.start()
    bert.wait_for_event("standby")
    wait_for_start(ada)
    ada.terminate()
    assert wait_for_start(bert) == "ada. bert"
    assert not stale.exists() and (bert.state.parent / ".journal.heirflow-old").read_text() == "of long ago"
    assert not failures(database) and news(database, "estate-inherited")[0][2]["files"] == 1


def hide(database, *functions):
    for function in functions:
        database.query(f"alter function {function} rename to hidden_{function.partition('(')[0]}; select 1")


def unhide(database, *functions):
    for function in functions:
        database.query(f"alter function hidden_{function} rename to {function.partition('(')[0]}; select 1")


def test_what_could_not_be_inherited_or_stored_is_not_replaced_by_an_older_copy(node, database):
    functions = "store_estate(text, bigint, uuid, bigint, text, bigint, json)", "fetch_estate(text, jsonb)"
    bert = node("bert")
    wait_for_start(bert)
    ada = node("ada")
    bert.terminate()
    assert wait_for_start(ada) == "bert. ada"
    assert bert.wait() == 0
    copied(ada, database, "bert. ada")
    hide(database, *functions)
    ada.terminate()
    assert ada.wait() == 0
    bert.start()
    assert wait_for_start(bert, 2) == "bert. bert"
    bert.terminate()
    assert bert.wait() == 0
    unhide(database, *functions)
    bert.start()
    assert wait_for_start(bert, 3) == "bert. bert. bert", "the copy is of an older term than the file"


def test_a_path_named_twice_is_one_file(node, database):
    twice = {"estate": ["state", "state"]}
    ada, bert = node("ada", twice), node("bert", twice)
    wait_for_start(ada)
    ada.terminate()
    assert wait_for_start(bert) == "ada. bert"
    assert not failures(database)


def test_large_files_are_copied_less_often(node, database):
    restless = "import os, time\nwhile True:\n    open('new', 'wb').write(os.urandom(300000)); os.replace('new', 'state'); time.sleep(1)\n"
    ada = node("ada", {"estate_interval_ms": 100}, command=["/usr/bin/python3", "-c", restless])
    wait_for(lambda: len(stored_sizes(database)) > 1, 60, ada.log)
    pause_ms = database.value("select (extract(epoch from max(taken_at) - min(taken_at)) * 1000)::integer from estate")
    assert pause_ms >= 2900, "100 kB a second"


def test_the_limit_is_for_all_files_together(node, database):
    idle = ("/usr/bin/python3", "-c", "import time; time.sleep(1000)")
    ada = node("ada", {"estate": ["state", "journal"]}, command=idle, start=False)
    for path in ada.state, ada.state.parent / "journal":
        with open(path, "wb") as file:
            file.truncate(9 << 20)
    ada.start()
    wait_for(lambda: failures(database), 30, ada.log)
    assert "journal: too large" in failures(database)[0][1]


def test_without_an_estate_nothing_is_stored(node, database):
    ada, bert = node("ada", {"estate": []}), node("bert", {"estate": []})
    wait_for_start(ada)
    ada.terminate()
    assert wait_for_start(bert) == "bert"
    assert stored(database) == [] and not news(database, "estate-inherited")


def test_a_file_that_is_missing_is_said_once_and_is_no_fault(node, database):
    ada = node("ada", command=["sleep", "infinity"], scheduler={"estate_interval_ms": 100})
    ada.wait_for_event("estate-missing")
    ada.state.write_text("at last")
    copied(ada, database, "at last")
    assert ada.events().count("estate-missing") == 1 and not failures(database)


# -- what may be wrong ------------------------------------------------------------------------------------------------

def spoil(kind, path):
    if kind == "too large":
        with open(path, "wb") as file:
            file.truncate((16 << 20) + 1)
    elif kind == "is a symbolic link":
        path.symlink_to("/etc/hostname")
    elif kind == "is no regular file":
        os.mkfifo(path)


@pytest.mark.parametrize("kind", ["too large", "is a symbolic link", "is no regular file"])
def test_what_cannot_be_copied(node, database, kind):
    reader = ("/usr/bin/python3", "-c", "import time; print('started with nothing', flush=True); time.sleep(1000)")
    ada, bert = node("ada", command=reader, start=False), node("bert", command=reader, start=False)
    spoil(kind, ada.state)
    ada.start(), ada.wait_for_event("standby")
    bert.start(), bert.wait_for_event("standby")
    wait_for_start(ada)
    wait_for(lambda: failures(database), 30, ada.log)
    ada.terminate()
    wait_for_start(bert)
    assert ada.wait() == 0
    assert stored(database) == [] and not bert.state.exists()
    (node_name, reason), = failures(database)
    assert node_name == "ada" and reason.startswith("nothing was stored: state: ") and kind in reason


def test_a_file_that_changes_all_the_time(node, database):
    restless = "i = 0\nwhile True:\n    open('state', 'w').write(str(i := i + 1) * 1000)\n"
    ada = node("ada", command=["/usr/bin/python3", "-c", restless])
    wait_for(lambda: failures(database), 30, ada.log)
    assert set(failures(database)) == {("ada", "nothing was stored: state: kept changing while it was copied")}
    for copy in stored(database):  # of a moment in which the program did not get to run
        assert copy == copy[:len(copy) // 1000] * 1000, "torn"


def inherit_from_ada(node, database, **more):
    """An heir that has left something, and the next one, not yet started."""
    ada = node("ada")
    bert = node("bert", start=False, **more)
    wait_for_start(ada)
    copied(ada, database, "ada")
    return ada, bert


def succeed(ada, bert):
    bert.start()
    bert.wait_for_event("standby")
    ada.kill()
    return wait_for_start(bert)


def test_a_link_is_not_followed(node, database, folder):
    ada, bert = inherit_from_ada(node, database, command=("/usr/bin/python3", "-c", SCHEDULER, "reader"))
    precious = folder / "precious"
    precious.write_text("precious")
    bert.state.symlink_to(precious)
    assert succeed(ada, bert) == "precious bert"
    assert precious.read_text() == "precious" and bert.state.is_symlink()
    assert "is no regular file" in failures(database)[0][1]


def test_a_directory_that_is_missing(node, database):
    paths = {"estate": ["state", "below/state"]}
    ada, bert = node("ada", paths), node("bert", paths, start=False)
    (ada.state.parent / "below").mkdir()
    (ada.state.parent / "below" / "state").write_text("below")
    wait_for_start(ada)
    copied(ada, database, "below")
    assert succeed(ada, bert) == "bert"
    assert "cannot create below/.state.heirflow-new: No such file" in failures(database)[0][1]
    assert not list(bert.state.parent.glob(".state.heirflow-new")), "half of it is not left over"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run schedulers as another user")
def test_files_are_touched_as_the_schedulers_user(node, database):
    nobody = {"user": "nobody"}
    ada, bert = node("ada", nobody), node("bert", nobody)
    assert wait_for_start(ada) == "ada"
    ada.terminate()
    assert wait_for_start(bert) == "ada. bert"
    assert bert.state.stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert ada.wait() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run schedulers as another user")
def test_what_the_schedulers_user_may_not_write(node, database):
    ada, bert = inherit_from_ada(node, database, scheduler={"user": "nobody"},
                                 command=("/usr/bin/python3", "-c", SCHEDULER, "reader"))
    bert.state.parent.chmod(0o755)
    assert succeed(ada, bert) == "bert"
    assert "Permission denied" in failures(database)[0][1]
    wait_for(lambda: len(failures(database)) > 1, 30, bert.log)
    assert "files are not marked as this node's own: cannot create ./.state" in failures(database)[1][1] or \
        "files are not marked as this node's own: cannot create .state" in failures(database)[1][1]


def stop_child(wrapper, command):
    """Freezes a child process that is at work, as a file system that hangs would; its pid."""
    def below(pid):
        try:
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()   # quick: the child is, too
        except OSError:
            return []
        return children + [one for child in children for one in below(child)]

    def caught():
        for pid in map(int, below(wrapper.pid)):
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == command:
                    os.kill(pid, signal.SIGSTOP)
                    return pid
        return None
    return wait_for(caught, 60, f"{command} of {wrapper.node} at work", interval=0.001)


def write_much(node_with_state):
    node_with_state.state.write_bytes(os.urandom(MUCH))


def test_a_file_system_that_hangs_while_it_is_read(node, database):
    """The last copy waits for no other; and is given up itself where it hangs, too."""
    ada, bert = node("ada", {"estate_interval_ms": 100}, lease_ms=6000), node("bert", lease_ms=6000)
    wait_for_start(ada)
    stop_child(ada, "estate-read")
    ada.terminate()
    assert wait_for_start(bert) == "ada. bert"
    assert ada.wait() == 0


def test_a_file_system_that_hangs_at_the_end(node, database):
    idle = ("/usr/bin/python3", "-c", "print('started with nothing', flush=True); import time; time.sleep(1000)")
    ada = node("ada", {"estate_interval_ms": 600000}, command=idle, lease_ms=6000)
    bert = node("bert", command=idle, lease_ms=6000)
    wait_for_start(ada)
    write_much(ada)   # so that it takes long enough to be caught
    ada.terminate()
    stop_child(ada, "estate-read")
    wait_for_start(bert)
    assert ada.wait() == 0
    assert failures(database)[0][1].startswith("nothing was stored: ")
    assert stored_sizes(database) == []
    assert database.value("select count(*) from terms where ended_by = 'abdicated' and reason = 'leaving'") == 1


def test_a_file_system_that_hangs_before_the_start(node, database):
    idle = ("/usr/bin/python3", "-c", "print('started with nothing', flush=True); import time; time.sleep(1000)")
    ada = node("ada", command=idle, lease_ms=6000)
    bert = node("bert", command=idle, lease_ms=6000)
    wait_for_start(ada)
    write_much(ada)
    wait_for(lambda: stored_sizes(database) == [MUCH], 60, ada.log)
    ada.kill()
    pid = stop_child(bert, "estate-write")
    wait_for_start(bert)
    wait_for(lambda: failures(database), 30, bert.log)
    assert failures(database)[0][1].startswith("nothing was inherited: ")
    wait_for(lambda: not processes.alive(pid), 30, "the child to be gone")
    assert not bert.state.exists()


@pytest.mark.parametrize("function, text", [("store_estate(text, bigint, uuid, bigint, text, bigint, json)", "nothing was stored"),
                                            ("fetch_estate(text, jsonb)", "nothing was inherited")])
def test_a_database_that_refuses(node, database, function, text):
    ada, bert = node("ada"), node("bert")
    wait_for_start(ada)
    copied(ada, database, "ada")
    database.query(f"drop function {function}; select 1")
    ada.state.write_text("never stored")
    ada.terminate()
    wait_for_start(bert)
    assert ada.wait() == 0
    wait_for(lambda: failures(database), 30, bert.log)
    assert failures(database)[0][1].startswith(f"{text}: ")


def test_a_database_that_does_not_answer_delays_no_start(node, database):
    ada, bert = inherit_from_ada(node, database)
    with database.connect() as blocker:
        blocker.autocommit = False
        blocker.cursor().execute("lock table heirflow.estate in access exclusive mode")
        assert succeed(ada, bert) == "bert"
        wait_for(lambda: failures(database), 30, bert.log)
        blocker.rollback()
    assert failures(database)[0][1].startswith("nothing was inherited: ")
    assert bert.running()


@pytest.mark.parametrize("function, arguments", [("store_estate(text, bigint, uuid, bigint, text, bigint, json)", "$1, $2, $3, $4, $5, $6, $7"),
                                                 ("fetch_estate(text, jsonb)", "$1, $2")])
def test_a_connection_that_is_lost_once_costs_nothing(node, database, function, arguments):
    """The last word is stored, or fetched, over another one."""
    settings = {"estate_interval_ms": 600000}
    ada, bert = node("ada", settings, lease_ms=12000), node("bert", settings, lease_ms=12000)
    wait_for_start(ada)
    hide(database, function)
    database.query(f"""create sequence calls;
        create function {function} returns json language plpgsql security definer set search_path from current as $body$ begin
            if nextval('calls') = 1 then
                perform pg_terminate_backend(pg_backend_pid());
            end if;
            return hidden_{function.partition("(")[0]}({arguments});
        end $body$; select 1""")
    ada.terminate()
    assert wait_for_start(bert) == "ada. bert"
    assert ada.wait() == 0
    assert not failures(database)
    assert database.value("select last_value from calls") == 2
