"""Hooks: commands that are run for events, bounded in time, number and output, and never in the way of anything."""
import email.header
import http.server
import json
import os
import pathlib
import stat
import subprocess
import threading

import processes
import pytest
from conftest import wait_for

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
HOOKS = SOURCE / "config" / "hooks"
RECORD = """#!/bin/sh
umask 022
cat >"$0.d/$$.new"
env >"$0.d/$$.environment"
mv "$0.d/$$.new" "$0.d/$$.event"
echo "$$" >>"$0.d/order"
"""


class Hook:
    """A program that keeps what it is given. .events() in the order they came, .environment(n)."""

    def __init__(self, path, script=RECORD):
        self.path, self.kept = path, pathlib.Path(f"{path}.d")
        self.kept.mkdir()
        self.write(script)

    def write(self, script):
        new = self.path.with_suffix(".new")
        new.write_text(script)
        new.chmod(0o755)
        new.rename(self.path)

    @property
    def command(self):
        return [str(self.path)]

    def order(self):
        order = self.kept / "order"
        return order.read_text().split() if order.exists() else []

    def events(self):
        return [json.loads((self.kept / f"{pid}.event").read_text()) for pid in self.order()]

    def names(self):
        return [event["type"].removeprefix("heirflow.") for event in self.events()]

    def environment(self, name):
        pid = self.order()[self.names().index(name)]
        lines = (self.kept / f"{pid}.environment").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def wait_for(self, *names):
        wait_for(lambda: set(names) <= set(self.names()), 30, lambda: f"{names}; there are {self.names()}")


@pytest.fixture
def hook(folder):
    """hook("name", script) makes one."""
    return lambda name="hook", script=RECORD: Hook(folder / name, script)


def news(database):
    return [row[0] for row in database.query("select body from news_after('tests', 0, 10000)")]


def failures(member):
    return [line for line in member.log().splitlines() if " hook-failed " in line]


# -- what a hook is given ---------------------------------------------------------------------------------------------

def test_the_events_of_a_node_from_the_first_to_the_last(wrapper, database, hook):
    own = hook()
    ada = wrapper("ada", database=database, hooks={"on_event": own.command},
                  environment={"HEIRFLOW_RABBITMQ_URL": "", "PGPASSWORD": "secret"})
    own.wait_for("registered", "acceded", "scheduler-started")
    ada.terminate()
    assert ada.wait() == 0
    assert own.names() == ["registered", "acceded", "scheduler-started", "abdicated", "left"]
    told = {event["type"]: event for event in news(database)}
    for event in own.events():
        same = told[event["type"]]
        assert {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"} == set(event)
        assert all(event[key] == same[key] for key in ("specversion", "source", "type", "subject", "datacontenttype"))
        if event["type"] not in ("heirflow.left",):
            assert (event["data"]["term"], event["data"]["reason"]) == (same["data"]["term"], same["data"]["reason"]), event
    started = own.events()[2]
    assert started["id"] == told["heirflow.scheduler-started"]["id"] and started["data"]["pid"] > 0
    given = own.environment("acceded")
    event = own.events()[1]
    assert given["HEIRFLOW_EVENT"] == "acceded" and given["HEIRFLOW_REASON"] == "first"
    assert (given["HEIRFLOW_GROUP"], given["HEIRFLOW_NODE"], given["HEIRFLOW_SUBJECT"]) == ("tests", "ada", "ada")
    assert given["HEIRFLOW_TERM"] == str(event["data"]["term"])
    assert given["HEIRFLOW_EVENT_ID"] == event["id"] and given["HEIRFLOW_TIME"] == event["time"]
    assert not {"PGPASSWORD", "HEIRFLOW_POSTGRES", "HEIRFLOW_RABBITMQ_URL", "HEIRFLOW_CONFIG"} & set(given)


def test_the_heir_is_told_of_the_whole_group(wrapper, database, hook):
    group = hook()
    hooks = {"on_group_event": group.command}
    wrapper("ada", database=database, hooks=hooks)
    group.wait_for("scheduler-started")
    wrapper("bob", database=database, hooks=hooks).wait_for_event("standby")
    wait_for(lambda: group.names().count("registered") == 1, 30, "bob's registration")
    assert group.events() == [event for event in news(database) if event["data"]["sequence"] > 1]
    assert group.environment("registered")["HEIRFLOW_SUBJECT"] == "bob"
    assert group.environment("registered")["HEIRFLOW_NODE"] == "ada"
    assert group.environment("registered")["HEIRFLOW_SEQUENCE"] == str(group.events()[-1]["data"]["sequence"])


# -- succession -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("end", ["terminate", "kill", "power_off"])
def test_a_new_heir_goes_on_where_the_last_one_stopped(wrapper, database, hook, end):
    group = hook()
    hooks = {"on_group_event": group.command}
    ada = wrapper("ada", database=database, hooks=hooks)
    ada.wait_for_event("heir")
    bob = wrapper("bob", database=database, hooks=hooks)
    bob.wait_for_event("standby")
    wait_for(lambda: group.names().count("registered") == 1, 30, "bob's registration")
    getattr(ada, end)()
    bob.wait_for_event("scheduler-started")
    wait_for(lambda: group.names()[-1:] == ["scheduler-started"] and group.names().count("acceded") == 2, 30,
             lambda: f"the news of bob's accession; there are {group.names()}")
    told = [event["data"]["sequence"] for event in news(database)]
    wait_for(lambda: set(told[1:]) <= {event["data"]["sequence"] for event in group.events()}, 30, "all of them: none is lost")
    sequences = [event["data"]["sequence"] for event in group.events()]
    assert len(sequences) <= len(set(sequences)) + 1, "at most the one under way at ada's end is told again"
    assert ("deposed" if end == "power_off" else "abdicated") in group.names()


def test_history_is_not_told_again(wrapper, database, hook):
    silent = wrapper("ada", database=database)
    silent.wait_for_event("scheduler-started")
    silent.terminate()
    assert silent.wait() == 0
    first = hook("first")
    ada = wrapper("ada", database=database, hooks={"on_group_event": first.command})
    first.wait_for("scheduler-started")
    assert first.names()[0] == "abdicated" and first.names().count("acceded") == 1, "from the last end on"
    ada.terminate()
    assert ada.wait() == 0
    database.query("update news set told_at = told_at - interval '61 minutes' returning 1")
    second = hook("second")
    again = wrapper("ada", database=database, hooks={"on_group_event": second.command})
    second.wait_for("acceded")
    assert second.names()[:2] == ["registered", "acceded"]
    assert "hook-dropped" in again.events() and 'reason="older than an hour"' in again.log()


def test_a_database_that_is_away_does_not_keep_a_node_from_telling(wrapper, own_database, hook):
    own, group = hook("own"), hook("group")
    ada = wrapper("ada", database=own_database, hooks={"on_event": own.command, "on_group_event": group.command})
    own.wait_for("scheduler-started")
    group.wait_for("scheduler-started")
    own_database.server.stop()
    own.wait_for("fenced")
    own_database.server.start()
    wait_for(lambda: own.names().count("scheduler-started") == 2, 60, lambda: f"another term {own.names()}\n{ada.log()}")
    wait_for(lambda: group.names().count("scheduler-started") == 2, 60, lambda: f"its news {group.names()}\n{ada.log()}")
    assert "fenced" in group.names()
    sequences = [event["data"]["sequence"] for event in group.events()]
    assert sequences == sorted(sequences)


# -- bounds -----------------------------------------------------------------------------------------------------------

def test_one_that_hangs_is_killed_with_its_daemons_and_delays_nothing(wrapper, witness, database, hook):
    hanging = "#!/bin/sh\nsetsid sleep 4731 &\necho asleep >&2\nsleep 4731\n"
    ada = wrapper("ada", database=database, command=witness.command(), hooks={
        "on_event": hook("own", hanging).command, "on_group_event": hook("group", hanging).command, "timeout_ms": 400})
    wait_for(lambda: len(failures(ada)) >= 5, 30, ada.log)
    assert all('reason="timed out after 400 ms' in line for line in failures(ada)), failures(ada)
    assert any(line.endswith('ms: asleep"') for line in failures(ada)), failures(ada)
    assert any("hook=hooks.on_event event=registered" in line for line in failures(ada))
    assert any("hook=hooks.on_group_event event=acceded" in line for line in failures(ada))
    assert witness.nodes() == ["ada"] and "fenced" not in ada.events()
    ada.terminate()
    assert ada.wait() == 0
    assert not [pid for pid in processes.descendants(os.getpid()) if "4731" in processes.command_line(pid)]


def test_floods_and_failures_are_one_line_of_the_log(wrapper, witness, database, hook):
    flood = "#!/bin/sh\nyes | head -c 200000000\nyes | head -c 200000000 >&2\necho it is broken >&2\nexit 7\n"
    ada = wrapper("ada", database=database, command=witness.command(), hooks={"on_event": hook("own", flood).command})
    wait_for(lambda: len(failures(ada)) >= 3, 60, ada.log)
    assert all('reason="exit status 7: it is broken"' in line for line in failures(ada))
    assert witness.nodes() == ["ada"] and len(ada.log()) < 20000 and "fenced" not in ada.events()


def test_one_that_has_gone_away_or_reads_nothing(wrapper, database, hook):
    own = hook("own", "#!/bin/sh\nexec <&-\ntouch $0.d/seen\n")
    ada = wrapper("ada", database=database, hooks={"on_event": own.command})
    wait_for((own.kept / "seen").exists, 30, "the hook")
    own.path.unlink()
    ada.terminate()
    assert ada.wait() == 0
    assert 'event=left reason="exit status 127: command' in ada.log() and "correct hooks.on_event" in ada.log()


def test_thousands_of_events_are_told_in_order_and_delay_nothing(wrapper, witness, database, hook):
    group = hook("group", "#!/bin/sh\necho $HEIRFLOW_SEQUENCE >>$0.d/sequences\n")
    ada = wrapper("ada", database=database, command=witness.command(), hooks={"on_group_event": group.command})
    ada.wait_for_event("scheduler-started")
    database.query("select count(tell('tests', 'x', 'ada', 'test', 0, n::text)) from generate_series(1, 2000) n")
    told = lambda: [int(line) for line in (group.kept / "sequences").read_text().split()]
    wait_for(lambda: (group.kept / "sequences").exists() and len(told()) >= 100, 60, "the first hundred")
    assert told() == list(range(told()[0], told()[0] + len(told())))
    assert witness.nodes() == ["ada"] and "fenced" not in ada.events()
    ada.terminate()
    assert ada.wait() == 0


# -- ends -------------------------------------------------------------------------------------------------------------

def test_a_shutdown_waits_two_seconds_and_no_more(wrapper, database, hook):
    own = hook("own", RECORD.replace("umask", "[ $HEIRFLOW_EVENT != abdicated ] || sleep 4733\numask"))
    ada = wrapper("ada", database=database, hooks={"on_event": own.command})
    own.wait_for("scheduler-started")
    ada.terminate()
    assert ada.wait(20) == 0
    assert 'hook-dropped hook=hooks.on_event events=2 reason="not run in time before this wrapper' in ada.log()
    assert not [pid for pid in processes.descendants(os.getpid()) if "4733" in processes.command_line(pid)]


def test_what_a_shutdown_cuts_short_is_for_the_next_heir_to_tell(wrapper, database, hook):
    group = hook("group", RECORD.replace("umask", "[ $HEIRFLOW_EVENT != acceded ] || [ -e $0.d/go ] || sleep 4735\numask"))
    ada = wrapper("ada", database=database, hooks={"on_group_event": group.command})
    wait_for(lambda: [pid for pid in ada.tree() if processes.command_line(pid)[-1:] == ["4735"]], 30, "the hook")
    ada.terminate()
    assert ada.wait() == 0
    assert "hook-dropped" not in ada.events(), ada.log()
    (group.kept / "go").touch()
    ada.start()
    wait_for(lambda: group.names().count("acceded") == 2, 30, lambda: f"{group.names()}\n{ada.log()}")


@pytest.mark.parametrize("end", ["kill", "freeze"])
def test_a_hook_outlives_neither_its_wrapper_nor_its_time(wrapper, database, hook, end):
    own = hook("own", "#!/bin/sh\nsetsid sleep 4734 &\nsleep 4734\n")
    ada = wrapper("ada", database=database,
                  hooks={"on_event": own.command, "timeout_ms": 600000 if end == "kill" else 3000})
    sleepers = lambda: [pid for pid in processes.descendants(os.getpid())
                        if processes.command_line(pid)[-1:] == ["4734"] and processes.alive(pid)]
    wait_for(lambda: len(sleepers()) == 2, 30, "the hook")
    getattr(ada, end)()
    wait_for(lambda: not sleepers(), 30, "the hook's end")
    if end == "freeze":
        ada.thaw()


@pytest.mark.parametrize("containment", ["namespace", "subreaper"])
def test_a_keeper_killed_beside_a_hook(wrapper, database, hook, containment):
    """Without namespaces the hook dies with the scheduler's tree, and is run once more."""
    own = hook("own", RECORD.replace("umask", "[ $HEIRFLOW_EVENT != scheduler-started ] || sleep 1\numask"))
    ada = wrapper("ada", database=database, environment={"HEIRFLOW_CONTAINMENT": containment},
                  hooks={"on_event": own.command})
    wait_for(lambda: [pid for pid in ada.tree() if processes.command_line(pid)[-2:] == ["sleep", "1"]], 30, "the hook")
    os.kill(ada.keeper(), 9)
    wait_for(lambda: own.names().count("scheduler-started") == 2, 30, lambda: f"{own.names()}\n{ada.log()}")
    assert own.names()[:4] == ["registered", "acceded", "scheduler-started", "scheduler-exited"], own.names()
    assert not failures(ada)


# -- heirflow check ---------------------------------------------------------------------------------------------------

def check(command, folder, database, *options, **hooks):
    path = folder / "heirflow.json"
    path.write_text(json.dumps({"run_directory": str(folder / "run"), "scheduler": {"command": ["sleep", "1"]},
                                "group": "tests", "node": "ada", "http": {"listen": ""}, "hooks": hooks}))
    path.chmod(0o600)
    bad = any(not os.access(value[0], os.X_OK) or "broken" in value[0] for value in hooks.values()) if hooks else False
    done = command("check", "--config", str(path), *options, database=database, expect=1 if bad else 0)
    return [line for line in done.stdout.splitlines() if " hooks." in line]


def test_check_looks_for_the_commands(command, folder, database, hook):
    own = hook()
    assert check(command, folder, database, on_event=own.command) == [f"OK  hooks.on_event: {own.path}"]
    assert not own.order(), "only looked for"
    (line,) = check(command, folder, database, on_group_event=["/no/such/hook"])
    assert line.startswith('BAD hooks.on_group_event: command "/no/such/hook": No such file')
    own.path.chmod(0o644)
    (line,) = check(command, folder, database, on_event=own.command)
    assert line.startswith("BAD hooks.on_event: ") and "is not an executable file" in line


def test_check_sends_a_test_event(command, folder, database, hook):
    own, broken = hook(), hook("broken", "#!/bin/sh\necho no route to the mail server >&2\nexit 1\n")
    assert check(command, folder, database, "--hook", on_event=own.command, on_group_event=broken.command) == [
        f"OK  hooks.on_event: {own.path} has taken the test event",
        f"BAD hooks.on_group_event: {broken.path} has failed for the test event: exit status 1: no route to the mail server"
        " - see docs/operating.md"]
    (event,) = own.events()
    assert (event["type"], event["source"], event["subject"]) == ("heirflow.test", "/heirflow/tests/ada", "ada")
    assert own.environment("test")["HEIRFLOW_EVENT"] == "test" and "HEIRFLOW_POSTGRES" not in own.environment("test")
    assert check(command, folder, database, "--hook") == [
        "OK  hooks.on_event: none configured", "OK  hooks.on_group_event: none configured"]


# -- the ready-made ones ----------------------------------------------------------------------------------------------

EVENT = {"specversion": "1.0", "id": "2f1c58d4-44a4-4ce3-9f3c-0b7f7e4a3a51", "type": "heirflow.acceded", "data": {"term": 9}}
GIVEN = {"HEIRFLOW_GROUP": "airflow", "HEIRFLOW_NODE": "ada", "HEIRFLOW_EVENT": "acceded", "HEIRFLOW_SUBJECT": "bört",
         "HEIRFLOW_TERM": "9", "HEIRFLOW_REASON": "take\r\nover", "HEIRFLOW_TIME": "2026-11-22T00:12:48.310Z"}


def run_hook(name, *arguments, **environment):
    return subprocess.run([str(HOOKS / name), *arguments], input=json.dumps(EVENT), text=True, capture_output=True,
                          timeout=60, env={"PATH": os.environ["PATH"], **GIVEN, **environment})


def test_mail(folder, wrapper, database):
    stand_in = folder / "sendmail"
    # delivers in the background unless told not to, as Exim and Sendmail do
    stand_in.write_text("#!/bin/sh\necho \"$@\" >$0.arguments\ncat >$0.$$\n"
                        "[ $1 = -odi ] || { { sleep 4736; cat $0.$$ >>$0.mail; } & exit 0; }\ncat $0.$$ >>$0.mail\n")
    stand_in.chmod(0o755)
    done = run_hook("mail", "oncall@example.org", "boss@example.org", SENDMAIL=str(stand_in))
    assert done.returncode == 0, done.stderr
    assert (folder / "sendmail.arguments").read_text() == "-odi -i -t\n"
    head, body = (folder / "sendmail.mail").read_text().split("\n\n", 1)
    assert head.isascii() and head.startswith("To: oncall@example.org, boss@example.org\nSubject: ")
    (subject, _), = email.header.decode_header(email.message_from_string(head)["Subject"])
    assert subject.decode() == "[heirflow] airflow: acceded of bört (take  over)"
    assert "Auto-Submitted: auto-generated" in head and json.loads(body.strip().splitlines()[-1]) == EVENT
    assert "Reason: take" in body and "Term:   9" in body
    assert "usage: mail" in run_hook("mail").stderr
    lacking = run_hook("mail", "oncall@example.org", SENDMAIL="/no/sendmail")
    assert lacking.returncode == 1 and "install a mail transfer agent" in lacking.stderr
    wrapper("ada", database=database, environment={"SENDMAIL": str(stand_in)},
            hooks={"on_group_event": [str(HOOKS / "mail"), "oncall@example.org"]})
    wait_for(lambda: "tests: acceded of ada (first)" in (folder / "sendmail.mail").read_text(), 30, "a mail")


@pytest.fixture
def receiver():
    """An HTTP server: .url, .taken [(path, headers, body), ...], .status to answer with."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            server.taken.append((self.path, self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *arguments):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.taken, server.status, server.url = [], 204, f"http://127.0.0.1:{server.server_port}/events?key=a%20b"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_webhook(folder, receiver, wrapper, database):
    done = run_hook("webhook", receiver.url)
    assert done.returncode == 0, done.stderr
    (path, headers, body), = receiver.taken
    assert path == "/events?key=a%20b" and headers["Content-Type"] == "application/cloudevents+json"
    assert json.loads(body) == EVENT
    secret = folder / "url"
    secret.write_text(receiver.url + "\n")
    secret.chmod(stat.S_IRUSR)
    wrapper("ada", database=database, hooks={"on_group_event": [str(HOOKS / "webhook"), f"@{secret}"]})
    wait_for(lambda: len(receiver.taken) >= 2, 30, "an event of a wrapper")
    assert json.loads(receiver.taken[1][2])["type"] == "heirflow.acceded"
    receiver.status = 403
    refused = run_hook("webhook", receiver.url)
    assert refused.returncode == 22 and "403" in refused.stderr
    assert "usage: webhook" in run_hook("webhook").stderr
    assert run_hook("webhook", "@/no/such/file").returncode != 0
    assert run_hook("webhook", "file:///etc/passwd").returncode != 0


def test_a_webhooks_url_is_in_nobodys_list_of_processes(folder):
    """curl as seen from beside it: a stand-in that records its arguments and environment."""
    bin = folder / "bin"
    bin.mkdir()
    (bin / "curl").write_text(f"#!/bin/sh\necho \"$@\" >{folder}/arguments\nenv >{folder}/environment\ncat $2 >{folder}/options\n")
    (bin / "curl").chmod(0o755)
    (folder / "url").write_text("https://example.org/s3cret")
    done = run_hook("webhook", f"@{folder}/url", PATH=f"{bin}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert (folder / "options").read_text() == 'url = "https://example.org/s3cret"\n'
    assert "s3cret" not in (folder / "arguments").read_text() + (folder / "environment").read_text()
