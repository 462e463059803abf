"""A planted secret is searched for wherever somebody else could look, in good days and on every path of failure."""
import contextlib
import json
import os
import pathlib
import subprocess
import urllib.request

import pytest

import processes
import wrapper as wrappers
from conftest import wait_for

SECRET = "PLANTED"
TOKEN = f"{SECRET}-0123456789abcdef"
OWN = "env; cat /proc/[0-9]*/cmdline; ls -l /proc/self/fd"
OTHERS = "; cat /proc/[0-9]*/environ"   # hooks run as our own user, who may be root
AS_ROOT = os.geteuid() == 0


@pytest.fixture
def open_folder(folder):
    path = folder / "open"
    path.mkdir()
    path.chmod(0o777)
    return path


def looker(folder, name, what=OWN + OTHERS, then="exit 0"):
    """A command that writes down all it can see of us."""
    script, draft = folder / name, f"{folder}/{name}.$$"
    script.write_text(f"#!/bin/sh\n{{ {what}; }} >{draft} 2>/dev/null\nmv {draft} {folder}/{name}.seen\n{then}\n")
    script.chmod(0o755)
    return [str(script)]


def secret_file(folder, name, text):
    path = folder / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return str(path)


def environment_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile, as probes of health do
        return ""


@pytest.mark.parametrize("containment", ["", "subreaper"])
@pytest.mark.parametrize("source", ["file", "environment", "secret files"])
def test_in_good_days(wrapper, command, database, rabbitmq, folder, open_folder, source, containment):
    port = processes.free_port()
    dsn = f"{database.dsn} password={SECRET}"
    url = rabbitmq.url.replace("guest:guest", f"news:{SECRET}")   # refused by the broker: that is told, too
    secrets = {"HEIRFLOW_POSTGRES": dsn, "HEIRFLOW_RABBITMQ_URL": url, "HEIRFLOW_HTTP_TOKEN": TOKEN}
    if source == "secret files":
        secrets = {f"{name}_FILE": secret_file(folder, name, text) for name, text in secrets.items()}
    user = {"user": "nobody"} if AS_ROOT else {}
    ada = wrapper("ada", start=False, database=dsn if source == "file" else None,
                  environment={} if source == "file" else secrets, http={"listen": f"127.0.0.1:{port}"},
                  command=looker(open_folder, "scheduler", then="exec sleep infinity"),
                  scheduler=user | {"health": {"command": looker(open_folder, "health"), "interval_ms": 100,
                                               "start_period_ms": 1}},
                  hooks={"on_event": looker(open_folder, "hook", OWN),
                         "on_group_event": looker(open_folder, "group-hook", OWN)})
    if source == "file":
        ada.configuration = wrappers.merge(ada.configuration, {"rabbitmq": {"url": url}, "http": {"token": TOKEN}})
    ada.environment = ada.environment | ({"HEIRFLOW_CONTAINMENT": containment} if containment else {})
    ada.start()
    seen = [open_folder / f"{name}.seen" for name in ("scheduler", "health", "hook", "group-hook")]
    wait_for(lambda: all(path.exists() for path in seen), 60, lambda: f"{list(open_folder.iterdir())}\n{ada.log()}")
    ada.wait_for_event("news-unreachable")
    told = {str(path): path.read_text(errors="replace") for path in seen}
    told |= {f"argv of {pid}": processes.command_line(pid) for pid in [ada.pid, *ada.tree()]}
    told |= {f"environ of {pid}": environment_of(pid) for pid in ada.tree() if pid not in ada.keepers()
             and processes.alive(pid) and "heirflow" not in str(processes.command_line(pid)[:1])}
    for path in ("/", "/status", "/heir", "/health", "/metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            told[path] = answer.read().decode() + str(answer.headers)
    environment = {"HEIRFLOW_CONFIG": str(ada.config_path)} | ada.environment
    for words in (["status"], ["status", "--json"], ["history"], ["news"], ["news", "--json"], ["audit"], ["check"]):
        result = command(*words, **environment)
        told[" ".join(words)] = result.stdout + result.stderr
    told["database"] = str(database.query("select * from news") + database.query("select * from roster")
                           + database.query("select application_name, query from pg_stat_activity"))
    ada.terminate()
    ada.wait()
    told["log"] = ada.log()
    told |= {str(path): path.read_text(errors="replace") for path in (ada.folder / "run").rglob("*") if path.is_file()}
    assert "ada" in told["status"] and "OK " in told["check"] and "HEIRFLOW_TERM" in told[str(seen[0])]
    assert {place: text for place, text in told.items() if SECRET in str(text)} == {}


COMMANDS = [["run"], ["status"], ["history"], ["news"], ["audit"], ["check"], ["migrate"], ["switchover"], ["pause"]]


@pytest.fixture
def refusing(own_postgres):
    own_postgres.psql("create role locked login password 'other'")
    own_postgres.psql("create role barred nologin password 'other'")
    own_postgres.hba("host all postgres 127.0.0.1/32 trust", "host all all 127.0.0.1/32 scram-sha-256")
    wait_for(lambda: b"scram" in (own_postgres.data / "pg_hba.conf").read_bytes())
    return own_postgres


@pytest.mark.parametrize("dsn", [
    "host=127.0.0.1 port={port} user=locked dbname=postgres password={secret}",
    "host=127.0.0.1 port={port} user=postgres dbname={secret}x password={secret}",
    "postgresql://locked:{secret}@127.0.0.1:{port}/postgres?connect_timeout=3",
    "postgresql://barred:{secret}@127.0.0.1:{port}/postgres",
    "host=127.0.0.1 port={closed} user=u password={secret}",
    "host=no-such-host.invalid password={secret}",
    "host=127.0.0.1 port={port} sslmode=verify-full sslrootcert=/no/such password={secret}",
    "host=127.0.0.1 port={port} password={secret} nonsense={secret}",
    "host=127.0.0.1 port=five password={secret}",
    "host=127.0.0.1 port={port} password='{secret}",
    "postgresql://locked:{secret}@[::1/postgres",
])
def test_the_database_fails(heirflow, refusing, folder, dsn):
    if "{secret}x" in dsn:   # a database's name is no secret
        dsn = dsn.replace("{secret}x", "missing")
    closed = processes.free_port()
    environment = wrappers.clean_environment(HEIRFLOW_POSTGRES=dsn.format(port=refusing.port, closed=closed, secret=SECRET),
                                             HEIRFLOW_RUN_DIRECTORY=str(folder / "run"), HEIRFLOW_HTTP_LISTEN="")
    for words in COMMANDS:
        more = ["--", "sleep", "1"] if words == ["run"] else []
        try:
            result = subprocess.run([heirflow, *words, *more], env=environment, capture_output=True, text=True, timeout=4,
                                    stdin=subprocess.DEVNULL)
            output, code = result.stdout + result.stderr, result.returncode
        except subprocess.TimeoutExpired as still_trying:
            output, code = str(still_trying.stdout) + str(still_trying.stderr), 1
        assert code in (1, 2, 3), (words, output)
        assert output.strip() and SECRET not in output, words


@pytest.mark.parametrize("configuration", [
    '{"postgres": "password=PLANTED", }', '{"postgres": "password=PLANTED\n"}', '{"postgres": password=PLANTED}',
    '{"http": {"token": "PLANTED"}}', '{"rabbitmq": {"url": ["amqp://u:PLANTED@q:port"]}}', '["password=PLANTED"]',
    '{"rabbitmq": {"url": {"amqp://u:PLANTED@q": 1}}}', '{"postgres": ["password=PLANTED"]}',
])
def test_the_configuration_is_wrong(command, folder, configuration):
    path = folder / "heirflow.json"
    path.write_text(configuration)
    path.chmod(0o600)
    for words in (["run"], ["check"], ["status"]):
        result = command(*words, "--config", str(path))
        assert result.returncode in (1, 2) and result.stdout + result.stderr
        assert SECRET not in result.stdout + result.stderr


@pytest.mark.skipif(not AS_ROOT, reason="only root can start it as another user, and see that nobody else looks in")
@pytest.mark.parametrize("containment", ["", "cgroup", "subreaper"])
def test_no_process_of_ours_dumps_core_or_lets_its_user_look_in(heirflow, database, open_folder, containment):
    """The kernel gives /proc/PID of what may not be dumped to root."""
    configuration = open_folder / "heirflow.json"
    configuration.write_text(json.dumps({
        "group": "g", "node": "ada", "postgres": f"{database.dsn} password={SECRET}", "lease_ms": 1000,
        "run_directory": str(open_folder / "run"), "http": {"listen": ""}, "scheduler": {"command": ["sleep", "infinity"]}}))
    configuration.chmod(0o600)
    os.chown(configuration, 65534, 65534)
    environment = wrappers.clean_environment(HEIRFLOW_CONFIG=str(configuration), HEIRFLOW_CONTAINMENT=containment)
    ours = subprocess.Popen(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", heirflow, "run"], cwd="/",
                            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def owners():
        found = {}
        for pid in [ours.pid, *processes.descendants(ours.pid)]:
            line = processes.command_line(pid)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                found["sleep" if line[:1] == ["sleep"] else " ".join(line[1:2])] = os.stat(f"/proc/{pid}/environ").st_uid
        return found
    try:
        wait_for(lambda: set(owners()) >= {"run", "keeper", "sleep"}, 30, lambda: str(owners()))
        wait_for(lambda: {name: uid for name, uid in owners().items() if name in ("run", "keeper")} == {"run": 0, "keeper": 0},
                 10, lambda: str(owners()))
        assert owners()["sleep"] == 65534, "it is free to dump"
    finally:
        ours.terminate()
        ours.wait()


def test_an_open_configuration_is_refused_with_the_remedy(command, folder):
    path = folder / "heirflow.json"
    path.write_text('{"postgres": "password=PLANTED"}')
    path.chmod(0o644)
    result = command("status", "--config", str(path), expect=2)
    assert (f'{path}, line 1: "postgres" contains a secret, and every user of this host can open the file: chmod o= {path}'
            in result.stderr)
    path.chmod(0o640)
    assert "chmod" not in command("status", "--config", str(path)).stderr
