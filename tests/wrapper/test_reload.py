"""SIGHUP: the configuration is read again, and what it changes happens at once, with the next term, or not before a restart."""
import ctypes
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request

import pytest

import processes
from conftest import wait_for

LIBC = ctypes.CDLL(None, use_errno=True)
TOKEN, OTHER = "a-token-of-24-characters", "another-token-that-is-long"


def merged(base, more):
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merged(base[key], value)
        else:
            base[key] = value


def hangup(wrapper):
    os.kill(wrapper.pid, signal.SIGHUP)


def change(wrapper, **changes):
    """Writes the file anew, as an editor does."""
    merged(wrapper.configuration, changes)
    new = wrapper.config_path.with_suffix(".new")
    new.write_text(json.dumps(wrapper.configuration, indent=2))
    new.chmod(0o600)
    new.rename(wrapper.config_path)


def lines(wrapper, event):
    return [line for line in wrapper.log().splitlines() if f" {event} " in line + " "]


def reload(wrapper, event="reloaded", **changes):
    """Changes the file, sends SIGHUP and returns the line that tells of it."""
    change(wrapper, **changes)
    before = len(lines(wrapper, event))
    hangup(wrapper)
    wrapper.wait_for_event(event, count=before + 1)
    return lines(wrapper, event)[-1]


def wait_until_runs(witness, node, timeout=30):
    wait_for(lambda: witness.running_on() == node, timeout, f"the scheduler running on {node}")


def post(port, path, token):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=b"", method="POST",
                                     headers={"Authorization": f"Bearer {token}"})
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def hung_disk(folder):
    """A file system that answers nothing."""
    path = folder / "disk"
    path.mkdir()
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"NOT TESTED here, there is no FUSE: {error}")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    if LIBC.mount(b"hung", str(path).encode(), b"fuse", 0, options.encode()):
        os.close(device)
        pytest.skip("NOT TESTED here, file systems cannot be mounted: " + os.strerror(ctypes.get_errno()))
    yield path
    os.close(device)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_level_of_the_log(wrapper, witness, database):
    ada = wrapper("ada", database=database, command=witness.command(),
                  scheduler={"health": {"command": ["false"], "interval_ms": 20}})
    wait_until_runs(witness, "ada")
    assert reload(ada, log={"level": "debug"}).endswith("applied=log.level")
    ada.wait_for_event("health-failed")  # told at debug level while the start period lasts


def test_nothing_new_is_said(wrapper, database):
    ada = wrapper("ada", database=database)
    ada.wait_for_event("standby")
    assert reload(ada).endswith(" reloaded changes=none")


def test_form_of_the_log(wrapper, database):
    ada = wrapper("ada", database=database)
    ada.wait_for_event("standby")
    change(ada, log={"format": "json"})
    hangup(ada)

    def told():
        return [json.loads(line) for line in ada.log().splitlines() if line.startswith("{")]
    wait_for(lambda: [line for line in told() if line["event"] == "reloaded"], 30, "the line as JSON")
    assert told()[0]["applied"] == "log.format"


@pytest.mark.parametrize("name, content, said", [
    ("no JSON", '{"group": \n nonsense', "line 2"),
    ("an unknown key", '{\n\n"grup": "x"}', "line 3: \"grup\" is no known key"),
    ("a value out of range", '{"scheduler": {"restart":\n{"limit": 99}}}', "scheduler.restart.limit"),
    ("unsafe timings", '{"scheduler": {"command": ["true"]}, "lease_ms": 1000, "heartbeat_ms": 900}', "unsafe timings"),
    ("a command that is none", '{"scheduler": {"command": ["/no/such/program"]}}', "/no/such/program"),
    ("no command", '{}', "no command to run"),
    ("no command, for it shall not lead from now on", '{"no_heir": true}', "no command to run"),
    ("an empty file", "", "line 1"),
])
def test_faulty_file_is_refused_without_harm(wrapper, witness, database, name, content, said):
    ada = wrapper("ada", database=database, command=witness.command())
    wait_until_runs(witness, "ada")
    ada.config_path.write_text(content)
    hangup(ada)
    ada.wait_for_event("reload-refused")
    [line] = lines(ada, "reload-refused")
    assert said in line.replace('\\"', '"') and " error " in line
    beat = database.value("select beat from throne")
    wait_for(lambda: database.value("select beat from throne") > beat + 3, 30, "renewals going on")
    assert "applied=scheduler.stop_timeout_ms" in reload(ada, scheduler={"stop_timeout_ms": 20000}), "a good one is taken again"
    assert witness.nodes() == ["ada"]


def test_file_that_vanished(wrapper, witness, database):
    ada = wrapper("ada", database=database, command=witness.command())
    wait_until_runs(witness, "ada")
    ada.config_path.rename(ada.folder / "away")
    hangup(ada)
    ada.wait_for_event("reload-refused")
    assert "cannot read" in lines(ada, "reload-refused")[0]
    assert witness.running_on() == "ada"


def test_running_scheduler_keeps_what_it_was_started_with(wrapper, database, folder):
    out = folder / "out"
    command = ["sh", "-c", 'echo "$WHICH" >> %s; exec sleep infinity' % out]
    ada = wrapper("ada", database=database, command=command, scheduler={"environment": {"WHICH": "old"}})
    wait_for(lambda: out.exists() and out.read_text() == "old\n", 30, "the first start")
    assert "at_next_term=scheduler.environment" in reload(ada, scheduler={"environment": {"WHICH": "new"}})
    processes.send(ada.scheduler(), signal.SIGKILL)
    wait_for(lambda: out.read_text() == "old\nold\n", 30, "a restart within the term")
    os.kill(ada.keeper(), signal.SIGKILL)
    wait_for(lambda: out.read_text() == "old\nold\nnew\n", 30, "the next term")
    assert reload(ada).endswith("changes=none")


def test_change_taken_back_before_the_next_term(wrapper, database, folder):
    out = folder / "out"
    command = ["sh", "-c", 'echo "$WHICH" >> %s; exec sleep infinity' % out]
    ada = wrapper("ada", database=database, command=command, scheduler={"environment": {"WHICH": "old"}})
    wait_for(lambda: out.exists() and out.read_text() == "old\n", 30, "the first start")
    reload(ada, scheduler={"environment": {"WHICH": "new"}})
    assert reload(ada, scheduler={"environment": {"WHICH": "old"}}).endswith("changes=none")
    os.kill(ada.keeper(), signal.SIGKILL)
    wait_for(lambda: out.read_text() == "old\nold\n", 30, "the next term")


def test_standby_takes_all_of_it_at_once(wrapper, witness, database):
    wrapper("ada", database=database, command=witness.command())
    wait_until_runs(witness, "ada")
    bert = wrapper("bert", database=database, command=witness.command())
    bert.wait_for_event("standby")
    line = reload(bert, scheduler={"stop_timeout_ms": 1000, "environment": {"A": "b"}})
    assert line.endswith("applied=scheduler.stop_timeout_ms,scheduler.environment")


def test_what_needs_a_restart_is_named_and_kept(wrapper, witness, database):
    ada = wrapper("ada", database=database, command=witness.command())
    wait_until_runs(witness, "ada")
    line = reload(ada, group="others", node="eve", lease_ms=2000, no_heir=True, run_directory="/elsewhere", schema="other",
                  postgres="host=nowhere password=verysecret", http={"listen": "127.0.0.1:1"})
    assert " warn " in line
    assert line.endswith("needs_restart=group,node,postgres,schema,lease_ms,run_directory,no_heir,http.listen")
    assert "verysecret" not in ada.log()
    beat = database.value("select beat from throne")
    wait_for(lambda: database.value("select beat from throne") > beat + 3, 30, "renewals going on")
    assert database.value("select lease_ms from throne") == 1000


def test_token_from_its_file(wrapper, database, folder):
    port = processes.free_port()
    secret = folder / "token"
    secret.write_text(TOKEN + "\n")
    secret.chmod(0o600)
    ada = wrapper("ada", database=database, http={"listen": f"127.0.0.1:{port}"},
                  environment={"HEIRFLOW_HTTP_TOKEN_FILE": str(secret)})
    ada.wait_for_event("scheduler-started")
    ada.wait_for_event("http-listening")
    assert post(port, "/pause", TOKEN) == 200
    secret.write_text(OTHER + "\n")
    secret.chmod(0o600)
    assert reload(ada).endswith("applied=http.token")
    assert (post(port, "/resume", TOKEN), post(port, "/resume", OTHER)) == (401, 200)
    assert TOKEN not in ada.log() and OTHER not in ada.log()


def test_restart_limit_and_health_change_at_once(wrapper, witness, database):
    ada = wrapper("ada", database=database, command=witness.command())
    wait_until_runs(witness, "ada")
    line = reload(ada, scheduler={"health": {"command": ["false"], "interval_ms": 50, "start_period_ms": 0, "failures": 2},
                                  "restart": {"limit": 1}})
    assert "scheduler.restart.limit" in line and "scheduler.health.command" in line
    ada.wait_for_event("scheduler-unhealthy")
    ada.wait_for_event("abdicated")
    reload(ada, scheduler={"health": {"command": []}})


def test_health_command_taken_away(wrapper, witness, database, folder):
    marks = folder / "marks"
    ada = wrapper("ada", database=database, command=witness.command(), scheduler={
        "health": {"command": ["sh", "-c", f"echo >> {marks}"], "interval_ms": 20}})
    wait_for(lambda: marks.exists() and marks.stat().st_size > 3, 30, "the health command")
    reload(ada, scheduler={"health": {"command": []}})
    size = marks.stat().st_size
    beat = database.value("select beat from throne")
    wait_for(lambda: database.value("select beat from throne") > beat + 3, 30, "half a second")
    assert marks.stat().st_size <= size + 1


def test_during_a_graceful_stop(wrapper, witness, database):
    flag = witness.folder.parent / "go"
    command = ["sh", "-c", "trap 'while [ ! -e %s ]; do :; done; exit 0' TERM; " % flag
               + " ".join(witness.command()) + " & while :; do wait; done"]
    ada = wrapper("ada", database=database, command=command)
    wait_until_runs(witness, "ada")
    ada.terminate()
    ada.wait_for_event("stopping")
    assert "applied=scheduler.stop_timeout_ms" in reload(ada, scheduler={"stop_timeout_ms": 60000})
    flag.touch()
    assert ada.wait() == 0


def test_while_the_database_is_away(wrapper, witness, own_database):
    ada = wrapper("ada", database=own_database, command=witness.command())
    wait_until_runs(witness, "ada")
    own_database.server.stop()
    ada.wait_for_event("fenced")
    assert "applied=scheduler.restart.limit" in reload(ada, scheduler={"restart": {"limit": 1}})
    own_database.server.start()
    wait_until_runs(witness, "ada")


def test_a_directory_that_hangs_holds_up_neither_the_last_will_nor_the_next_wrapper(wrapper, witness, database, hung_disk):
    ada = wrapper("ada", database=database, command=witness.command(), lease_ms=4000)
    wait_until_runs(witness, "ada")
    change(ada, scheduler={"directory": str(hung_disk)})
    hangup(ada)
    wait_for(lambda: [pid for pid in ada.tree() if processes.command_line(pid)[1:2] == ["run"]], 30, "a child that looks there")
    beat = database.value("select beat from throne")
    wait_for(lambda: database.value("select beat from throne") > beat, 30, "renewals going on")
    ada.kill()
    ada.wait_for_event("wrapper-died")
    del ada.configuration["scheduler"]["directory"]
    ada.start()
    ada.wait_for_event("scheduler-started", count=2)


def test_a_configuration_that_hangs_holds_up_nothing_and_no_end(wrapper, witness, database, hung_disk):
    ada = wrapper("ada", database=database, command=witness.command(), start=False,
                  environment={"ASAN_OPTIONS": "detect_leaks=0"})  # it would wait for the thread that hangs
    ada.start()
    wait_until_runs(witness, "ada")
    ada.config_path.unlink()
    ada.config_path.symlink_to(hung_disk / "heirflow.json")
    for _ in range(3):
        hangup(ada)
    beat = database.value("select beat from throne")
    wait_for(lambda: database.value("select beat from throne") > beat + 3, 30, "renewals going on")
    ada.terminate()
    assert ada.wait() == 0
    assert "left" in ada.events()


def test_another_directory_while_the_next_term_is_prepared(wrapper, fenced, folder):
    """What is inherited goes to where the scheduler then starts, and where it is looked for afterwards."""
    homes = [folder / name for name in ("old", "new")]
    for home in homes:
        home.mkdir()
    bob = wrapper("bob", database=fenced, fence_role="scheduler_bob", lease_ms=6000)
    bob.wait_for_event("scheduler-started", 30)
    ada = wrapper("ada", database=fenced, command=["sh", "-c", "pwd; exec sleep infinity"], fence_role="scheduler_ada",
                  scheduler={"directory": str(homes[0])}, lease_ms=6000)
    ada.wait_for_event("standby")
    stray = fenced.login("bob")
    processes.send(stray.info.backend_pid, signal.SIGSTOP)  # what the next heir has to see ended
    try:
        bob.terminate()
        ada.wait_for_event("heir")
        assert "at_next_term=scheduler.directory" in reload(ada, scheduler={"directory": str(homes[1])})
        assert "scheduler-started" not in ada.events()
    finally:
        processes.send(stray.info.backend_pid, signal.SIGCONT)
    wait_for(lambda: f"\n{folder}/" in ada.log(), 30, "the start")
    assert f"\n{homes[0]}\n" in ada.log()
    os.kill(ada.keeper(), signal.SIGKILL)
    wait_for(lambda: f"\n{homes[1]}\n" in ada.log(), 30, "the next term")


def test_a_last_hangup_does_not_end_what_is_still_under_way(wrapper, database, folder):
    """logrotate's, for instance, while the last hook runs."""
    flag = folder / "flag"
    ada = wrapper("ada", database=database, hooks={"on_event": [
        "sh", "-c", f"touch {folder}/$HEIRFLOW_EVENT; [ $HEIRFLOW_EVENT != left ] || {{ while [ ! -e {flag} ]; do sleep 0.01; done; "
                    f"touch {flag}.done; }}"]})
    wait_for((folder / "scheduler-started").exists, 30, "the hooks before")
    ada.terminate()
    wait_for((folder / "left").exists, 30, "the last hook")
    hangup(ada)
    flag.touch()
    assert ada.wait() == 0
    assert "hook-dropped" in ada.events() or (folder / "flag.done").exists()


def test_again_and_again_through_accessions(wrapper, witness, database):
    """SIGHUP at any moment, each time with another file, while terms begin and end."""
    nodes = [wrapper(node, database=database, command=witness.command()) for node in ("ada", "bert")]
    for node in nodes:
        node.wait_for_event("standby")
    wait_for(witness.running_on, 30, "a scheduler")
    for turn in range(6):
        heir = next(node for node in nodes if node.keeper())
        processes.send(heir.keeper(), signal.SIGKILL)
        for step in range(15):
            for node in nodes:
                change(node, scheduler={"environment": {"TURN": f"{turn}.{step}"}, "restart": {"limit": step % 4}},
                       rabbitmq={"url": [] if step % 2 else ["amqp://127.0.0.1:1/"]})
                hangup(node)
        wait_for(witness.running_on, 30, "the next term")
        wait_for(lambda: any(node.keeper() for node in nodes), 30, "its keeper")
    assert not witness.overlaps()
    assert all(node.running() for node in nodes)
    for node in nodes:
        assert "reload-refused" not in node.events()
        assert reload(node, scheduler={"stop_timeout_ms": 4321}).count("scheduler.stop_timeout_ms") == 1
