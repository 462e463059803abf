"""What each path answers, on real wrappers and a real database."""
import ctypes
import json
import os
import select
import signal
import socket
import subprocess

import pytest

from processes import wait_for

READING = ["/", "/status", "/heir", "/standby", "/health", "/metrics"]


def test_heir_and_standby_are_each_others_opposite(node, database):
    ada = node("ada", database=database)
    wait_for(lambda: ada.get("/heir").status == 200, 20, lambda: "the heir\n" + ada.log())
    bert = node("bert", database=database)
    wait_for(lambda: bert.get("/standby").status == 200, 20, lambda: "the standby\n" + bert.log())
    assert ada.get("/standby").status == 503 and bert.get("/heir").status == 503
    assert ada.get("/heir").text == f"ada is the heir of tests, term {database.value('select term from throne')}\n"
    ada.terminate()
    wait_for(lambda: bert.get("/heir").status == 200, 20, lambda: "the next heir\n" + bert.log())
    assert bert.get("/standby").status == 503


def test_status_is_what_the_command_line_prints(heir, command, database):
    wait_for(lambda: database.value("select count(*) from news where event = 'scheduler-started'") == 1,
             what="the last of the news")
    printed = json.loads(command("status", "--group", "tests", "--json", database=database, expect=0).stdout)
    told = heir.get("/status")
    assert told.status == 200 and told.headers["Content-Type"] == "application/json"
    for status in (printed, told.json):
        status["members"][0].pop("seen_ms_ago")
    assert told.json == told.json and {**told.json, "members": None} == {**printed, "members": None}
    assert set(told.json["members"][0]) == set(printed["members"][0]) | {"seen_ms_ago"}


def test_health(heir):
    assert (heir.get("/health").status, heir.get("/health").text) == (200, "ok\n")


def test_every_answer_forbids_keeping_and_guessing(heir):
    for path in READING + ["/nowhere"]:
        headers = heir.get(path).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", READING)
def test_other_methods(heir, path):
    get, head = heir.get(path), heir.request("HEAD", path)
    assert head.status == get.status and head.body == b""
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    options = heir.request("OPTIONS", path)
    assert (options.status, options.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
    for method in ("POST", "PUT", "DELETE", "TRACE", "FROBNICATE"):
        answer = heir.request(method, path)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


def test_unknown_paths(heir):
    for path in ("/nowhere", "/status/", "//status", "/../etc/passwd", "/%2e%2e/", "/status%00"):
        assert heir.get(path).status == 404, path
    assert heir.get("/heir?whatever=1").status == 200


def test_no_name_from_outside_leads_here(heir):
    """A page whose name is pointed at 127.0.0.1 is no page of ours."""
    assert heir.get("/status", Host="evil.example").status == 421
    assert heir.get("/status", Host="localhost.evil.example:80").status == 421
    for host in ("localhost", f"localhost:{heir.port}", "127.0.0.1", "[::1]:8470"):
        assert heir.get("/status", Host=host).status == 200, host


def test_a_database_that_is_away_is_said_in_time(node, own_database):
    ada = node("ada", database=own_database)
    wait_for(lambda: ada.get("/heir").status == 200, 20, lambda: "the heir\n" + ada.log())
    assert ada.get("/status").status == 200
    own_database.server.freeze()
    wait_for(lambda: ada.get("/status", timeout=8).status == 503, 10, "no status")  # 5 s are promised
    answer = ada.get("/status", timeout=8)
    assert answer.status == 503 and "answer" in answer.text and answer.headers["Retry-After"]
    wait_for(lambda: ada.get("/health").status == 503, 10, "bad health")
    assert "the database has not answered for" in ada.get("/health").text
    wait_for(lambda: ada.get("/heir").status == 503, 10, "no heir any more")
    assert ada.metric("heirflow_is_heir") == 0
    assert ada.metric("heirflow_database_last_reply_seconds") > 0.9
    own_database.server.thaw()
    wait_for(lambda: ada.get("/health").status == 200, 20, "good health")
    wait_for(lambda: ada.get("/status").status == 200, 20, "the status")


def asks_for_status(node):
    connection = socket.create_connection(("127.0.0.1", node.port))
    connection.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection


def is_kept_waiting(connection):
    return not select.select([connection], [], [], 0.2)[0]


def test_who_waits_for_the_database_holds_up_nobody(node, own_database):
    ada = node("ada", database=own_database)
    wait_for(lambda: ada.get("/status").status == 200, 20, lambda: "the status\n" + ada.log())
    own_database.server.freeze()
    wait_for(lambda: is_kept_waiting(asks_for_status(ada)), 10, "one that waits")
    waiting = [asks_for_status(ada) for _ in range(50)]
    assert ada.get("/heir", timeout=1).status in (200, 503)
    assert is_kept_waiting(waiting[-1])
    for connection in waiting:
        connection.settimeout(8)
        assert connection.recv(100).startswith(b"HTTP/1.1 503 ")
        connection.close()
    own_database.server.thaw()


class StoppedThread:
    """Stops the main thread of a process, and no other of its threads, as a tracer can."""

    SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000

    def __init__(self, pid):
        self.pid = pid
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

    def trace(self, what):
        assert self.libc.ptrace(what, self.pid, None, None) == 0, os.strerror(ctypes.get_errno())

    def __enter__(self):
        self.trace(self.SEIZE)
        self.trace(self.INTERRUPT)
        os.waitpid(self.pid, self.WALL)

    def __exit__(self, *_):
        self.trace(self.DETACH)


def test_a_loop_that_hangs_is_not_healthy_and_no_heir(heir):
    with StoppedThread(heir.pid):
        wait_for(lambda: heir.get("/health").status == 503, 10, "bad health")
        assert "the wrapper has hung for" in heir.get("/health").text
        assert heir.get("/heir").status == 503 and heir.get("/standby").status == 503
        assert heir.metric("heirflow_is_heir") == 0
    wait_for(lambda: heir.get("/health").status == 200, 20, "good health")


def test_the_address_in_use_stops_nobody(node, wrapper, database):
    ada = node("ada", database=database)
    wait_for(lambda: ada.get("/heir").status == 200, 20, lambda: "the heir\n" + ada.log())
    bert = wrapper("bert", database=database, http={"listen": f"127.0.0.1:{ada.port}"})
    bert.wait_for_event("http-unavailable")
    bert.wait_for_event("standby")
    assert "Address already in use; give each wrapper of a host an http.listen of its own" in bert.log()
    assert ada.get("/heir").text.startswith("ada ")
    ada.terminate()
    assert ada.wait() == 0
    bert.wait_for_event("http-listening", timeout=30)
    assert ada.get("/heir").text.startswith("bert ")


def test_many_who_ask_are_few_queries(heir, database):
    asking = "select count(*) from pg_stat_activity where application_name like 'heirflow-http:%'"
    looks = lambda: database.query("select calls from pg_stat_user_functions where funcname = 'history'")[0][0]
    database.query(f"alter database {database.name} set track_functions = 'all'")
    assert heir.get("/status").status == 200
    for connection in [asks_for_status(heir) for _ in range(100)]:
        connection.settimeout(10)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        connection.close()
    assert database.value(asking) == 1
    wait_for(lambda: database.value(asking) == 0, 20, "its end, which tells the numbers")
    assert looks() < 20


def test_nobody_asks_no_connection(heir, database):
    asking = "select count(*) from pg_stat_activity where application_name like 'heirflow-http:%'"
    assert heir.get("/heir").status == 200 and heir.get("/health").status == 200
    assert database.value(asking) == 0
    heir.get("/status")
    assert database.value(asking) == 1
    wait_for(lambda: database.value(asking) == 0, 20, "the connection given back")
    assert heir.get("/status").status == 200


def test_metrics(node, database):
    ada = node("ada", database=database, scheduler={"restart": {"limit": 3, "backoff_ms": 10}})
    wait_for(lambda: ada.metric("heirflow_is_heir") == 1, 20, lambda: "the heir\n" + ada.log())
    wait_for(lambda: ada.metric("heirflow_scheduler_up") == 1, 20, "a scheduler")
    wait_for(lambda: ada.metric("heirflow_members") == 1, 20, "the number of members")
    assert 0 < ada.metric("heirflow_lease_remaining_seconds") <= 1
    assert ada.metric("heirflow_term") == database.value("select term from throne")
    assert ada.metric('heirflow_successions_total{reason="first"') == 1
    assert ada.metric('heirflow_successions_total{reason="takeover"') == 0
    assert ada.metric("heirflow_news_unpublished") is None  # nobody is to publish any
    bert = node("bert", database=database)
    wait_for(lambda: bert.get("/standby").status == 200, 20, "the standby")
    assert bert.metric("heirflow_is_heir") == 0 and bert.metric("heirflow_scheduler_up") == 0
    assert bert.metric("heirflow_members") is None
    wait_for(lambda: ada.metric("heirflow_members") == 2, 20, "both members")
    os.kill(ada.scheduler(), signal.SIGKILL)
    wait_for(lambda: ada.metric("heirflow_scheduler_restarts_total") == 1, 20, "the restart")
    ada.power_off()
    wait_for(lambda: bert.metric("heirflow_is_heir") == 1, 20, "the next heir")
    assert bert.metric('heirflow_successions_total{reason="takeover"') == 1
    wait_for(lambda: bert.metric("heirflow_members_lost") == 1, 20, "the lost member")


def test_promtool_finds_no_fault(heir):
    answer = heir.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    if not os.path.exists("/usr/bin/promtool"):
        pytest.skip("promtool is not installed (Debian: prometheus)")
    wait_for(lambda: heir.metric("heirflow_members") == 1, 20, "all metrics")
    checked = subprocess.run(["promtool", "check", "metrics"], input=heir.get("/metrics").body, capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_a_label_is_escaped(node, database):
    ada = node('a"d\\a', database=database)
    assert r'node="a\"d\\a"' in ada.get("/metrics").text


def test_unpublished_news(node, database, own_rabbitmq):
    ada = node("ada", database=database, rabbitmq=own_rabbitmq)
    wait_for(lambda: ada.metric("heirflow_scheduler_up") == 1, 20, lambda: "the heir\n" + ada.log())
    wait_for(lambda: ada.metric("heirflow_news_unpublished") == 0, 30, lambda: "all news out\n" + ada.log())
    own_rabbitmq.kill()
    database.query("select set_paused('tests', true)")
    wait_for(lambda: ada.metric("heirflow_paused") == 1, 20, "the pause")
    wait_for(lambda: ada.metric("heirflow_news_unpublished") > 0, 20, "the news of it, unpublished")


def test_leaving_with_clients_at_hand_takes_no_time(heir):
    idle = [socket.create_connection(("127.0.0.1", heir.port)) for _ in range(20)]
    idle[0].sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    heir.terminate()
    assert heir.wait(timeout=5) == 0
    for connection in idle:
        connection.close()
