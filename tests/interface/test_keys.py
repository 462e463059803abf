"""What the keys do: to real wrappers, through the database, and for a user who may only look."""
import json
import re
import stat
import time

import pytest

from conftest import Group, wait_for


def select(pane, node):
    """Selects the node's line, which is then shown reversed."""
    def selected():
        reversed_lines = [line for line in pane.colours().split("\n") if re.search(r"\x1b\[[0-9;]*7m", line)]
        return any(node in re.sub(r"\x1b\[[0-9;]*m", "", line).split() for line in reversed_lines)
    table = pane.text().split("News")[0].split("\n")
    titles = next(number for number, line in enumerate(table) if "NODE" in line)
    rank = next(number for number, line in enumerate(table) if number > titles and node in line.split()) - titles
    pane.keys("Home", *["Down"] * (rank - 1))
    wait_for(selected, 10, f"{node} to be selected", interval=0.05)


def order(pane, key, question):
    pane.keys(key)
    pane.wait(question, "y yes   n no")
    pane.keys("y")


@pytest.fixture
def nodes(wrapper, witness, database):
    """Real wrappers, standing in the line in the order of their names here."""
    def start(*names):
        made = []
        for name in names:
            made.append(wrapper(name, database=database, command=witness.command()))
            made[-1].wait_for_event("standby")
        wait_for(lambda: witness.running_on() == names[0], 20, "the eldest to run")
        return made
    return start


def test_switchover_to_the_selected(view, database, nodes, witness):
    nodes("ada", "bob", "eve")
    pane = view(database, width=100)
    pane.wait("ada heir for", "next in line")
    select(pane, "eve")
    order(pane, "w", "Switch over from ada to eve?")
    pane.wait("eve is the heir, term", "s after it was asked for", "♛ eve heir for", timeout=30)
    wait_for(lambda: witness.running_on() == "eve", 10)
    assert not witness.overlaps()


def test_stop_and_start_of_the_heir(view, database, nodes, witness):
    nodes("ada", "bob")
    pane = view(database, width=100)
    pane.wait("ada heir for", "next in line")
    select(pane, "ada")
    order(pane, "x", "It is the heir: its scheduler ends, and bob runs it next.")
    pane.wait("bob is the heir, term", "♛ bob heir for", timeout=30)
    wait_for(lambda: witness.running_on() == "bob", 10)
    select(pane, "ada")
    pane.keys("x")
    pane.wait("ada is retired already")
    order(pane, "s", "joins the line of succession again, at its end")
    pane.wait("ada is in the line again", "next in line")
    pane.keys("s")
    pane.wait("ada is in the line already")
    assert not witness.overlaps()


def test_pause_and_resume(view, database, group):
    group.accede("ada")
    pane = view(database)
    pane.wait("ada heir for")
    pane.keys("p")
    pane.wait("ada goes on, and nobody takes over")
    pane.keys("n")
    pane.wait("nothing done", without=["y yes"])
    assert database.value("select not paused from throne")
    order(pane, "p", "Pause the group?")
    pane.wait("PAUSED", "paused: nobody takes over until")
    assert database.value("select paused from throne")
    pane.keys("w")
    pane.wait("the group is paused: resume it first")
    order(pane, "p", "Resume the group?")
    pane.wait("resumed", without=["PAUSED"])


def test_pausing_a_group_without_a_live_heir_says_so(view, database, group):
    pane = view(database)
    pane.wait("next in line")
    pane.keys("p")
    pane.wait("no live heir, and nobody takes over")


def test_only_the_dead_are_removed(view, database, group):
    group.accede("ada")
    pane = view(database)
    pane.wait("ada heir for")
    select(pane, "eve")
    pane.keys("d")
    pane.wait("eve is alive")
    database.query("update roster set seen_at = seen_at - interval '2 hours' where node = 'eve'; select 1")
    pane.wait("not seen for a lease")
    select(pane, "eve")
    order(pane, "d", "Remove eve from the list?")
    pane.wait("eve is removed from the list", "removed, member")
    wait_for(lambda: not any("eve" in line and "standby" in line for line in pane.lines()), 5)
    assert not group.beat("eve")["known"]  # its wrapper, if it lives after all, registers at the end of the line


def test_details_and_its_events(view, database, group):
    group.accede("ada")
    group.beat("bob", news=[{"event": "scheduler-exited", "id": f"00000000-0000-0000-0000-{number:012}",
                             "data": {"number": number}} for number in range(60)], special="\x1b[31mwish")
    pane = view(database, height=50)
    pane.wait("ada heir for")
    select(pane, "bob")
    pane.keys("Enter")
    text = pane.wait("─ bob ─", "because", "next in line", "special", "?[31mwish", "Its last events", "number 59")
    assert "number 9," not in text
    pane.keys("End")
    pane.wait("number 10")
    assert "number 9 " not in pane.text()  # the last 50
    group.abdicate("ada")
    group.accede("bob")
    pane.keys("Home")
    pane.wait("role             heir", "─ bob ─", without=["next in line"])  # it follows what happens
    pane.keys("Escape")
    pane.wait("News", without=["Its last events", "Esc back"])


def test_another_group(view, database, group):
    other = Group(database, "other-group")
    other.register("zoe")
    other.accede("zoe")
    group.accede("ada")
    pane = view(database)
    pane.wait("ada heir for", "tests")
    pane.keys("g")
    pane.wait("Groups of this database", "other-group", "heir zoe, term", "heir ada, term")
    pane.keys("Up", "Enter")
    pane.wait(" other-group ", "♛ zoe heir for", without=["ada", "Groups of"])
    other.abdicate("zoe")
    pane.wait("no heir", "abdicated")


def test_a_filter(view, database, group):
    group.accede("ada")
    pane = view(database)
    pane.wait("acceded", "registered")
    pane.keys("/")
    pane.wait("Show only news that contain")
    pane.tmux("send-keys", "-l", "ACCx")
    pane.keys("BSpace", "Enter")
    pane.wait('News with "ACC"', "acceded", without=["registered"])
    pane.keys("Escape")
    pane.wait("registered", without=["News with"])


def test_history_beyond_what_was_read_first(view, database, group):
    group.accede("ada")
    database.query("select tell('tests', 'scheduler-started', 'ada', 'ada', 1, null, jsonb_build_object('number', n)) "
                   "from generate_series(1, 1500) n")
    pane = view(database)
    pane.wait("number 1500")
    pane.keys("Tab")

    def at_the_oldest():
        pane.keys("Home")
        return "member 1" in pane.text() and "registered" in pane.text()
    wait_for(at_the_oldest, 20, "the first event", interval=0.1)
    assert "not received" not in pane.text()


@pytest.fixture
def user(database, postgres):
    """user(role): a connection string of somebody with that role only."""
    made = []

    def make(role):
        name = f"looker_{database.name}_{len(made)}"
        postgres.psql(f"create role {name} login in role {role}")
        made.append(name)
        return postgres.dsn(database.name, user=name)
    yield make
    for name in made:
        postgres.psql(f"drop owned by {name}", database=database.name)
        postgres.psql(f"drop role {name}")


def test_a_viewer_may_look(view, database, group, user):
    group.accede("ada")
    pane = view(user("heirflow_viewer"), width=140, height=40)
    pane.wait("ada heir for", "(x stop)", "(w switch)", "(p pause)", "(d remove)", "Enter details", "g groups",
              without=["(Enter details)"])
    pane.keys("p")
    pane.wait("may only look", "heirflow_operator", without=["y yes"])
    pane.keys("?")
    pane.wait("pause the group: no takeovers; or resume it (not for you)", "Not for you: needs the role heirflow_operator")
    pane.keys("q")
    select(pane, "bob")
    pane.keys("Enter")
    pane.wait("Its last events")
    assert database.value("select not paused from throne")


def test_an_operator_may_act(view, database, group, user):
    group.accede("ada")
    pane = view(user("heirflow_operator"))
    pane.wait("ada heir for", "p pause", without=["(p pause)"])
    order(pane, "p", "Pause the group?")
    pane.wait("PAUSED")


def test_a_schema_older_than_the_program(view, database, group):
    database.query("drop function groups(); select 1")
    pane = view(database, width=140)
    pane.wait("next in line", "(g groups)")
    pane.keys("g")
    pane.wait("run `heirflow migrate`")


def test_start_runs_the_command(view, database, group, settings, folder):
    """Its words are filled in one by one, nothing reaches a shell, and what it says cannot harm the terminal."""
    database.query("update roster set address = '10.1.2.3' where node = 'eve'; select 1")
    database.query("update roster set seen_at = seen_at - interval '2 hours' where node = 'eve'; select 1")
    script = folder / "starter"
    script.write_text("#!/bin/sh\nprintf '<%s>' \"$@\"; echo\nprintf '\\033[2J\\033]0;stolen\\007rude\\n' >&2\n"
                      "tty; (: </dev/tty) 2>/dev/null && echo has-terminal\nexit 3\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    path = settings(database, interface={"start_command": [str(script), "{address}", "a b", "$(id)", "x@{group}", "{node}"]})
    pane = view(configuration=path, height=30)
    pane.wait("not seen for a lease")
    select(pane, "eve")
    order(pane, "s", "Its wrapper is not running, so this is run")
    text = pane.wait("<10.1.2.3><a b><$(id)><x@tests><eve>", "?[2J?]0;stolen?rude", "not a tty", "(failed, exit status 3)")
    assert "has-terminal" not in text
    pane.keys("Escape")
    pane.wait("News", without=["exit status 3"])
    pane.keys("o")
    pane.wait("exit status 3")


def test_start_of_a_node_whose_name_is_a_trap(view, database, group, settings):
    group.register("-oProxyCommand=id")
    database.query("update roster set seen_at = seen_at - interval '2 hours', address = null where node like '-o%'; select 1")
    pane = view(database, width=120)
    pane.wait("not seen for a lease")
    select(pane, "-oProxyCommand=id")
    pane.keys("s")
    pane.wait("remote shell might", without=["y yes"])


def test_a_start_command_that_is_not_there(view, database, settings, group):
    path = settings(database, interface={"start_command": ["/no/such/program", "{node}"]})
    pane = view(configuration=path)
    pane.wait("next in line", "help")
    pane.keys("s")
    pane.wait("Start a node that is not in the list")
    pane.type("node7")
    pane.wait("/no/such/program node7")
    pane.keys("y")
    pane.wait("cannot run /no/such/program: no such file")


def test_a_lock_held_elsewhere_holds_up_nothing(view, database, group):
    group.accede("ada")
    connection = database.connect()
    cursor = connection.cursor()
    cursor.execute("begin; select 1 from heirflow.throne for update")
    pane = view(database)
    pane.wait("ada heir for")
    order(pane, "p", "Pause the group?")
    pane.wait("asking the database")
    select(pane, "eve")
    pane.keys("Enter")
    pane.wait("● Postgres", "─ eve ─")
    pane.keys("Escape")
    pane.wait("not done", "lock timeout", timeout=15)
    connection.rollback()
    connection.close()


def test_themes_and_help(view, database, group):
    group.accede("ada")
    pane = view(database)
    pane.wait("ada heir for")
    assert re.search("\x1b\\[[0-9;]*32", pane.colours())
    pane.keys("t")
    pane.wait("colours for a light background")
    pane.keys("t")
    pane.wait("colours without colours")
    assert not re.search("\x1b\\[[0-9;]*3[0-7]m", pane.colours())
    pane.keys("?")
    pane.wait("─ Keys ─", "stop the selected member")


def test_a_refresh_reconnects_at_once(view, own_database):
    own_database.server.stop("immediate")
    pane = view(own_database)
    pane.wait("✗ Postgres not reached")
    own_database.server.start()
    pane.keys("r")
    pane.wait("● Postgres", timeout=10)


def test_a_thousand_members_scroll(view, database, group):
    group.accede("ada")
    database.query("insert into roster (group_name, seat, generation, incarnation, node, registered_at, seen_at, eligible, self) "
                   "select 'tests', md5(n::text)::uuid, 1, md5('i' || n)::uuid, 'node' || n, now(), now() + interval '20 minutes', "
                   "true, '{}' from generate_series(1, 1000) n; select 1")
    pane = view(database)
    pane.wait("ada heir for", "1003 members")
    pane.keys("End")
    pane.wait("1003  node1000", "above")
    began = time.monotonic()
    for _ in range(10):
        pane.keys(*["Up"] * 50)
    pane.wait(" 503  node500", "above and")
    print(f"500 lines in {time.monotonic() - began:.2f} s")
    pane.keys("Home")
    pane.wait("♛    1  ada", without=["above"])


def test_a_recording_is_seen_again(view, database, group, rabbitmq, folder, interface, exchange):
    path = folder / "session.jsonl"
    group.accede("ada")
    pane = view(database, rabbitmq, options=f"--record {path}")
    pane.wait("ada heir for", "● RabbitMQ")
    group.abdicate("ada")
    pane.wait("no heir")
    group.accede("bob")
    pane.wait("♛ bob heir for", "abdicated", "vacant")
    before = [line for line in pane.lines() if re.match(r"^. \d\d:\d\d:\d\d", line)]
    pane.keys("q")
    wait_for(lambda: pane.child() is None, 10, "the end of the interface")
    lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    gone = next(number for number, line in enumerate(lines) if "status" in line and not line["status"]["heir"])
    for line in lines[gone:]:
        line["now_ms"] += 60000
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = view("host=127.0.0.1 port=1 dbname=nowhere", options=f"--replay {path}")
    again.wait("recording", "♛ ada heir for", "(x stop)")
    again.keys("Space")
    again.wait("held")
    again.keys("Space", *"++++++")
    again.wait("end of recording", "♛ bob heir for")
    assert [line for line in again.lines() if re.match(r"^. \d\d:\d\d:\d\d", line)] == before
    again.keys("p")
    again.wait("pause: this is a recording")


def test_what_is_no_recording_is_said(view, folder):
    (folder / "other").write_text("{}\n")
    pane = view(options=f"--replay {folder / 'other'}", width=300)
    pane.wait("is no recording of this program")


def test_orders_to_a_database_that_is_frozen_or_gone(view, own_database):
    group = Group(own_database)
    group.register("ada")
    group.accede("ada")
    pane = view(own_database, width=120)
    pane.wait("ada heir for")
    own_database.server.freeze()
    order(pane, "p", "Pause the group?")
    pane.wait("not done: cannot connect", timeout=20)
    own_database.server.thaw()
    pane.wait("● Postgres", without=["as it was"], timeout=20)
    order(pane, "p", "Pause the group?")
    pane.wait("PAUSED")
    own_database.server.freeze()  # the connection for orders is open now
    order(pane, "p", "Resume the group?")
    pane.wait("it may be done or not, see the news", timeout=20)
    own_database.server.thaw()


def test_who_can_be_removed_from_the_list(group, database):
    group.accede("ada")
    remove = lambda node: group.call("select remove_member('tests', %s)", group.members[node]["id"])
    silence = "update roster set seen_at = seen_at - interval '2 hours' where node = %s; select 1"
    assert "alive" in remove("eve")["refused"]
    assert group.call("select remove_member('tests', 123456)")["refused"] == "there is no such member any more"
    assert "refused" in group.call("select remove_member('nowhere', 1)")
    for node in ("ada", "eve"):
        database.query(silence, node)
    assert "heir" in remove("ada")["refused"]  # dead or not: only a takeover ends its term
    assert remove("eve") == {"accepted": True}
    assert [row["node"] for row in group.call("select status('tests')")["members"]] == ["ada", "bob"]
    last = group.news()[-1]
    assert (last["type"], last["subject"], last["data"]["reason"]) == ("heirflow.left", "eve", "removed")
    assert "refused" in remove("eve")


def test_a_recording_follows_to_another_group(view, database, group, folder):
    path = folder / "session.jsonl"
    other = Group(database, "other-group")
    other.register("zoe")
    other.accede("zoe")
    group.accede("ada")
    pane = view(database, options=f"--record {path}")
    pane.wait("ada heir for")
    pane.keys("g")
    pane.wait("heir zoe, term")
    pane.keys("Up", "Enter")
    pane.wait(" other-group ", "♛ zoe heir for", "acceded")
    pane.keys("q")
    wait_for(lambda: pane.child() is None, 10, "the end of the interface")
    again = view(options=f"--replay {path}")
    again.wait("end of recording", "other-group", "♛ zoe heir for", without=["ada"])
    refused = view(database, options=f"--record {path}", width=300)
    refused.wait("cannot write the recording", "File exists")
