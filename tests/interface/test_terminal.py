"""The real program in a real terminal against real servers."""
import json
import fcntl
import os
import pathlib
import pty
import random
import re
import signal
import struct
import subprocess
import termios
import time

import pytest

from conftest import wait_for  # noqa: F401
import servers
from processes import alive


def events(pane):
    """The news on the screen, as (node, event), top down."""
    found = re.findall(r"\d\d:\d\d:\d\d  (\S+) +([a-z-]+)", pane.text().split("News", 1)[-1])
    return [(node, word) for node, word in found]


def has_line(pane, sign, *parts):
    return any(line.startswith(sign) and all(part in line for part in parts) for line in pane.lines())


def test_a_succession_is_seen(view, database, group, rabbitmq, exchange):
    group.accede("ada")
    pane = view(database, rabbitmq)
    pane.wait("ada heir for", "● Postgres", "● RabbitMQ", "next in line", "acceded")
    group.abdicate("ada")
    pane.wait("no heir", timeout=2)
    group.beat("ada")
    group.accede("bob")
    pane.wait("♛ bob heir for", timeout=2)
    wait_for(lambda: has_line(pane, "♛", "bob", "heir"), 2)
    wait_for(lambda: has_line(pane, "›", "ada", "next in line"), 2)
    wait_for(lambda: has_line(pane, "♛", "bob", "acceded"), 2)


def test_news_come_from_the_exchange_without_postgres(view, rabbitmq, exchange):
    out = exchange(rabbitmq)
    pane = view("host=127.0.0.1 port=1 dbname=x user=x", rabbitmq)
    pane.wait("✗ Postgres not reached", "127.0.0.1 port 1", "● RabbitMQ")
    out.publish(from_wire(1, "registered", "ada"))
    out.publish(from_wire(2, "acceded", "bob"))
    pane.wait("registered", "acceded")
    assert events(pane) == [("ada", "registered"), ("bob", "acceded")]


def from_wire(sequence, word="acceded", node="ada", **data):
    from conftest import event
    return event(sequence, word, node, **data)


def test_each_viewer_has_all_the_news_once(view, rabbitmq, exchange):
    """Without PostgreSQL, from which a viewer would make up for news that another one took."""
    out = exchange(rabbitmq)
    panes = [view("host=127.0.0.1 port=1 dbname=x user=x", rabbitmq) for _ in range(2)]
    for pane in panes:
        pane.wait("● RabbitMQ")
    told = [from_wire(number, "registered", f"node{number}") for number in range(1, 11)]
    for body in told + told:
        out.publish(body, "tests.registered")
    for pane in panes:
        pane.wait("node10")
        wait_for(lambda: events(pane) == [(f"node{number}", "registered") for number in range(1, 11)], 10, "each once")


def test_a_lost_message_is_read_from_postgres(view, database, group, rabbitmq, exchange):
    out = exchange(rabbitmq)
    pane = view(database, rabbitmq)
    pane.wait("● RabbitMQ", "registered")
    group.accede("ada")
    group.abdicate("ada")
    group.accede("bob")
    out.publish(group.news()[-1])
    wait_for(lambda: events(pane)[3:] == [("ada", "acceded"), ("ada", "abdicated"), ("bob", "acceded")], 10, "all in order")


def test_the_broker_goes_and_comes_back(view, database, group, own_rabbitmq, exchange):
    group.accede("ada")
    pane = view(database, own_rabbitmq)
    pane.wait("● RabbitMQ", "ada heir for")
    own_rabbitmq.kill()
    pane.wait("✗ RabbitMQ lost", "● Postgres")
    group.abdicate("ada")
    group.accede("bob")
    pane.wait("♛ bob heir for", "abdicated", timeout=3)
    own_rabbitmq.start()
    pane.wait("● RabbitMQ", without=["✗"], timeout=40)
    out = exchange(own_rabbitmq)
    group.abdicate("bob")
    out.publish(group.news()[-1], "tests.abdicated")
    pane.wait("no heir")
    wait_for(lambda: [word for _, word in events(pane)] == ["registered"] * 3 + ["acceded", "abdicated"] * 2, 10, "each once")


def test_a_frozen_broker_is_noticed(view, database, group, own_rabbitmq):
    pane = view(database, own_rabbitmq)
    pane.wait("● RabbitMQ", "● Postgres")
    own_rabbitmq.freeze()
    pane.wait("✗ RabbitMQ lost", "● Postgres", timeout=30)
    own_rabbitmq.thaw()
    pane.wait("● RabbitMQ", timeout=40)


def test_the_database_goes_and_comes_back(view, own_database, rabbitmq, exchange):
    from conftest import Group
    group = Group(own_database)
    for node in ("ada", "bob"):
        group.register(node)
    group.accede("ada")
    out = exchange(rabbitmq)
    pane = view(own_database, rabbitmq)
    pane.wait("ada heir for", "● Postgres", "● RabbitMQ")
    own_database.server.stop("immediate")
    pane.wait("✗ Postgres lost", "as it was", "ada heir for", "● RabbitMQ")
    out.publish(from_wire(4, "scheduler-unhealthy", "ada"))
    pane.wait("scheduler-unhealthy")
    own_database.server.start()
    pane.wait("● Postgres", without=["as it was", "✗"], timeout=30)
    group.abdicate("ada")
    pane.wait("no heir", "abdicated")


def test_a_frozen_database_leaves_the_keys_working(view, own_database, rabbitmq):
    pane = view(own_database, rabbitmq)
    pane.wait("● Postgres")
    own_database.server.freeze()
    pane.wait("as it was", timeout=15)
    pane.keys("Up")
    pane.keys("q")
    wait_for(lambda: pane.pane("alternate_on") == "0", 3, "the shell's screen")
    own_database.server.thaw()


def test_garbage_and_hostile_messages(view, database, group, rabbitmq, exchange):
    out = exchange(rabbitmq)
    pane = view(database, rabbitmq)
    pane.wait("● RabbitMQ", "registered")
    group.accede("ada")
    good = group.news()[-1]
    for body in ("", "{", "null", "[]", "42", '"x"', "\x00", "\xff" * 10, "[" * 200000, "x" * 1000000, json.dumps({"a": "b" * 1000000}),
                 {**good, "id": 7}, {**good, "id": ""}, {**good, "specversion": "2.0"}, {**good, "data": None},
                 {**good, "data": {"sequence": "1"}}, {**good, "data": {"sequence": -1}}, {**good, "time": "yesterday"},
                 {**good, "type": "other.acceded"}, {**good, "source": 5}):
        out.publish(body)
    rude = from_wire(2 ** 51, "acceded", "\x1b[2J\x1b]0;stolen\x07\u202eevil\r\n\x9b31m", reason="\x1b[31m" + "long " * 1000)
    out.publish(rude)
    out.publish(good)
    pane.wait("unreadable messages", "ada heir for", "acceded")
    wait_for(lambda: has_line(pane, "♛", "acceded", "ada"), 10)
    pane.wait("?[2J")
    assert "stolen" != pane.pane("pane_title") and "\u202e" not in pane.text()
    group.abdicate("ada")
    pane.wait("abdicated", "no heir")
    assert pane.lines()[0].startswith(" tests"), pane.text()


def test_a_resize_storm(view, database, group, rabbitmq):
    group.accede("ada")
    pane = view(database, rabbitmq)
    pane.wait("ada heir for")
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    storm = random.Random(seed)
    for _ in range(60):
        pane.resize(storm.randint(10, 160), storm.randint(3, 50))
    for width, height in ((40, 10), (120, 30), (80, 24)):
        pane.resize(width, height)
        pane.wait("ada heir for", "News")
        wait_for(lambda: len(pane.lines()[0].rstrip()) == width - 1, 5, "the title line at full width")
    assert alive(pane.child())


def test_news_scroll(view, database, group):
    group.accede("ada")
    for number in range(60):
        group.beat("ada", news=[{"event": "scheduler-started", "id": f"00000000-0000-0000-0000-{number:012}",
                                 "data": {"number": number}}])
    pane = view(database)
    pane.wait("number 59")
    pane.keys("Tab", "Up")
    pane.wait("1 newer below", without=["number 59"])
    pane.keys("Down")
    pane.wait("number 59", without=["newer below"])
    pane.keys("PageUp")
    pane.wait("newer below", without=["number 59"])
    kept = events(pane), [line for line in pane.lines() if "number" in line]
    newer = int(re.search("([0-9]+) newer", pane.text()).group(1))
    group.beat("ada", news=[{"event": "scheduler-exited", "id": "00000000-0000-0000-0000-000000000999", "data": {}}])
    pane.wait(f"{newer + 1} newer below")
    assert (events(pane), [line for line in pane.lines() if "number" in line]) == kept
    pane.keys("Home")
    pane.wait("registered", "newer below")
    pane.keys("End")
    pane.wait("scheduler-exited", without=["newer below"])


def blocks(pane):
    """Whether the terminal, as the shell and whatever it starts know it, still waits."""
    flags = re.search("flags:\t(\\d+)", pathlib.Path(f"/proc/{pane.pane('pane_pid')}/fdinfo/0").read_text()).group(1)
    return not int(flags, 8) & os.O_NONBLOCK


def leave(pane, how):
    """Ends the interface, then checks that the terminal is as it was."""
    how()
    pane.wait(pane.command.split()[-1][-20:], timeout=10)
    wait_for(lambda: pane.child() is None, 10, "the end of the interface")
    assert pane.pane("alternate_on") == "0"
    assert pane.pane("cursor_flag") == "1"
    pane.type("echo back; stty -a >/dev/null")
    pane.wait("back\n")
    assert pane.modes() == pane.before and blocks(pane)


def test_q_restores_the_terminal(view, database, group):
    pane = view(database)
    pane.wait("ada", "next in line")
    assert pane.pane("alternate_on") == "1" and pane.modes() != pane.before
    assert blocks(pane)
    leave(pane, lambda: pane.keys("q"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGSEGV", "SIGABRT", "SIGBUS"])
def test_signals_restore_the_terminal(view, database, group, name):
    pane = view(database)
    pane.wait("ada", "next in line")
    leave(pane, lambda: os.kill(pane.child(), getattr(signal, name)))


def test_a_terminal_that_vanishes_ends_it(view, database, group, rabbitmq):
    pane = view(database, rabbitmq)
    pane.wait("ada", "next in line")
    pid = pane.child()
    pane.close()
    wait_for(lambda: not alive(pid), 10, "the end of the interface")


def test_control_z_and_back(view, database, group):
    pane = view(database)
    pane.wait("ada", "next in line")
    pane.keys("C-z")
    wait_for(lambda: pane.pane("alternate_on") == "0", 5, "the shell's screen")
    pane.type("fg")
    pane.wait("next in line", "News")
    leave(pane, lambda: pane.keys("q"))


def test_faults_at_the_start_are_on_the_screen(view, empty_database):
    pane = view(empty_database)
    pane.wait('no schema "heirflow"', "heirflow migrate", "not reached")
    pane.keys("q")


def test_without_colour_and_without_unicode(view, database, group):
    group.accede("ada")
    coloured = view(database, term="screen-256color")
    coloured.wait("ada heir for")
    assert "\x1b[32m" in coloured.colours() or "\x1b[1m\x1b[32m" in coloured.colours() or ";32" in coloured.colours()
    plain = view(database, environment="NO_COLOR=1 LC_ALL=C")
    text = plain.wait("ada heir for", "* ")
    assert text.isascii()
    assert not re.search("\x1b\\[[0-9;]*3[0-7]", plain.colours())


def test_an_unknown_terminal_is_said(view, database):
    pane = view(database, environment="TERM=no-such-terminal")
    pane.wait('the terminal type "no-such-terminal"')


def test_idle_costs_next_to_nothing(view, database, group, rabbitmq):
    group.accede("ada")
    pane = view(database, rabbitmq)
    pane.wait("ada heir for", "● RabbitMQ")

    def ticks():
        with open(f"/proc/{pane.child()}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])
    began, before = time.monotonic(), ticks()
    wait_for(lambda: time.monotonic() - began > 5, 10)
    assert "● RabbitMQ" in pane.text()  # it answers although there is nothing to tell
    share = (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began)
    assert share < 0.01, share  # tests/bench/interface: 0.0007


def test_a_hostile_roster(view, database, group):
    """Whoever may register chooses a name; whoever may write to the schema chooses everything else."""
    group.accede("ada")
    rude = "\x1b[2J\x1b]0;stolen\x07\u202eevil\u200b\x9b31m\r\n\t|%s%n"
    group.register("eva" + rude)
    group.beat("eve", special=rude, reason=rude, scheduler={"state": rude, "pid": -1, "started_at": rude, "restarts": 1e300})
    database.query("update roster set eligible = false, address = %s where node = 'eve'; select 1", rude)
    database.query("select tell('tests', %s, %s, 'x', 1, %s, jsonb_build_object(%s, %s))", "word" + rude, rude, rude, rude, rude)
    connection = database.connect()
    connection.cursor().execute("select pg_notify('heirflow_news', %s)", (rude,))
    connection.close()
    pane = view(database, width=160, height=40)
    pane.wait("ada heir for", "eva?[2J?]0;stolen??evil?", "word?[2J")
    for keys in (("g", "Escape"), ("End", "Enter", "Escape"), ("Up", "Enter")):
        pane.keys(*keys)
    pane.wait("Its last events")
    assert pane.pane("pane_title") != "stolen"
    assert not re.search("[\u202e\u200b\x07\x9b]", pane.text())
    pane.keys("Escape")
    pane.wait("── News ─", "ada heir for")


def test_a_member_that_cools_off_says_for_how_long(view, database, wrapper):
    for node in ("ada", "bob"):
        wrapper(node, database=database, command=["false"], lease_ms=3000, scheduler={"restart": {"limit": 0, "backoff_ms": 4000}})
    pane = view(database, width=100)
    wait_for(lambda: re.search(r"standby .* cooling off \d+ s", pane.text()), 30, "a member that cools off", interval=0.03)


def test_a_failover_is_followed(view, own_database, folder):
    """The standby takes over, and the roster of before comes from it."""
    first = own_database.server
    first.hba()
    second = type(first)(folder / "second", first.data, primary_conninfo=f"host=127.0.0.1 port={first.port} user=postgres")
    second.remove()
    second.folder.mkdir(mode=0o755)
    servers.private_folder(second.data, "postgres")
    subprocess.run(servers.as_user("postgres", [first.program("pg_basebackup"), "-D", str(second.data), "-c", "fast",
                                                "-d", first.dsn()]), check=True, cwd="/")
    (second.data / "standby.signal").touch()
    from conftest import Group
    group = Group(own_database)
    group.register("ada")
    group.accede("ada")
    second.start(wait=False)
    both = f"host=127.0.0.1,127.0.0.1 port={first.port},{second.port} user=postgres dbname={own_database.name}"
    pane = view(both)
    pane.wait("ada heir for", "● Postgres")
    first.psql("select pg_switch_wal()")
    wait_for(lambda: first.psql("select 1 from pg_stat_replication where replay_lsn = sent_lsn"), 30, "the standby in step")
    first.stop("immediate")
    pane.wait("✗ Postgres lost", "as it was", "ada heir for")
    second.psql("select pg_promote()")
    pane.wait("● Postgres", "ada heir for", without=["as it was", "✗"], timeout=30)
    own_database.server = second
    own_database.dsn = second.dsn(own_database.name)
    group.abdicate("ada")
    pane.wait("no heir", "abdicated")
    pane.keys("q")
    second.remove()


@pytest.mark.parametrize("what, said", [("host", "refused"), ("password", "password authentication failed"),
                                        ("rights", "heirflow_viewer"), ("database", "does not exist")])
def test_what_a_newcomer_does_wrong_is_on_the_screen(view, own_database, what, said):
    """One line of it, no secrets, and a terminal as it was before."""
    server, name = own_database.server, own_database.name
    server.psql("create role looker login password 'right'")
    server.hba("host all looker 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust")
    password = "wr0ng-secret" if what == "password" else "right"
    dsn = server.dsn("nowhere" if what == "database" else name, user="looker", password=password)
    pane = view("host=127.0.0.1 port=1 user=looker password=wr0ng-secret dbname=x" if what == "host" else dsn, width=200)
    text = pane.wait(said)
    assert len([line for line in text.split("\n") if said in line]) == 1 and "wr0ng-secret" not in text
    leave(pane, lambda: pane.keys("q"))
    if what == "rights":
        server.psql("grant heirflow_viewer to looker")


def test_resizes_with_an_open_panel(view, database, group):
    pane = view(database)
    pane.wait("next in line")
    pane.keys("?")
    pane.wait("─ Keys ─")
    pane.keys("End")
    for width, height in ((40, 10), (20, 5), (8, 3), (3, 2), (160, 50), (40, 12), (80, 24)):
        pane.resize(width, height)
        wait_for(lambda: pane.pane("pane_width") == str(width), 5)
    pane.wait("─ Keys ─", "the next set of colours")
    pane.keys("Escape")
    pane.wait("next in line", "News", without=["Keys"])


def test_a_terminal_that_takes_nothing_holds_up_nothing(interface, settings, database, group, folder):
    """Ctrl-S, a stopped window, a connection that hangs: no processor time, and signals are still obeyed."""
    path = settings(database)
    pid, master = pty.fork()
    if pid == 0:
        os.execve(interface, [interface, "--config", str(path)], {"TERM": "xterm", "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]})
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))

    def waiting():
        return struct.unpack("i", fcntl.ioctl(master, termios.FIONREAD, b"\0\0\0\0"))[0]

    def cpu():
        return sum(int(task.read_text().split()[0]) for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
    wait_for(lambda: waiting() > 2000, 20, "the first picture")
    last = [0, time.monotonic()]

    def is_full():
        os.write(master, b"\f")  # paint it all again
        now = waiting()
        if now != last[0]:
            last[:] = [now, time.monotonic()]
        return time.monotonic() - last[1] > 1
    wait_for(is_full, 60, "the terminal to be full", interval=0.05)
    before, began = cpu(), time.monotonic()
    wait_for(lambda: time.monotonic() - began > 2, 10)
    assert (cpu() - before) / (time.monotonic() - began) < 0.1
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, 10, "the end of the interface")
    os.close(master)
