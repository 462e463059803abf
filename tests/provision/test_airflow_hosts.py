"""What the programs for Airflow's hosts refuse, send and switch, seen from this side: ssh is a stand-in that notes what it gets."""
import json
import shutil
import subprocess
import sys

import pytest
from conftest import SOURCE
from test_deployment import Deployment

FOR_ONE_HOST = ["multischeduler", "worker", "webserver", "demo"]
SERVERS = ("database d1 10.0.0.1", "database d2 10.0.0.2", "queue q1 10.0.0.3", "queue q2 10.0.0.4", "queue q3 10.0.0.5")
AIRFLOW = ("scheduler s1 10.0.1.1", "scheduler s2 10.0.1.2", "worker w1 10.0.1.3")

SSH = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys, time, uuid
folder = pathlib.Path(os.environ["FAKE_SSH"])
if "-O" in sys.argv:
    sys.exit(0)
at = sys.argv.index("--")
host, command = sys.argv[at + 1], " ".join(sys.argv[at + 2:])
answer = json.loads((folder / "answers.json").read_text()).get(host, {{}})
name = f"{{time.monotonic_ns():020}}-{{uuid.uuid4().hex}}"  # sorts by when it was called
def note(**more):
    (folder / f"call-{{name}}").write_text(json.dumps(dict(argv=sys.argv, host=host, command=command) | more))
if "error" in answer:
    note()
    sys.exit(print(answer["error"], file=sys.stderr) or 255)
if "tar --extract" in command:
    note(kind="stage")
    (folder / f"stage-{{name}}").mkdir()
    subprocess.run(["tar", "--extract", "--directory", folder / f"stage-{{name}}"], check=True)
    print(*answer.get("lines", []), sep="\\n", flush=True)
    sys.exit(answer.get("status", 0))
if "dags.next" in command:
    note(kind="switch", version=command.split("'")[-2])
    sys.exit(answer.get("switch") or print("before"))
if "psql" in command:
    note(kind="sql", sql=sys.stdin.read())
    sys.exit(print("f"))
note()
if command.startswith("bash -s"):
    sys.stdin.read()
    print(*(f"{{name}}={{value}}" for name, value in answer["facts"].items()), sep="\\n")
elif "rabbitmqctl" in command:
    print("3.10.8")
"""


@pytest.fixture
def deployment(folder):
    made = Deployment(folder)
    (folder / "bin" / "ssh").write_text(SSH)
    made.set(HEIRFLOW_PACKAGES=str(folder / "packages"))
    (folder / "packages").mkdir()
    (folder / "packages" / "heirflow_1_amd64.deb").write_text("")
    return made


@pytest.fixture
def dags(folder):
    (folder / "dags").mkdir()
    (folder / "dags" / "one.py").write_text("import airflow\n")
    return folder / "dags"


def inventory(deployment, text):
    path = deployment.folder / "inventory"
    path.write_text(text)
    return path


@pytest.mark.parametrize("program", [*FOR_ONE_HOST, "dags", "all", "refresh"])
def test_help_and_usage(deployment, program):
    assert "Exit status:" in deployment.run(program, "--help", expect=0)
    assert f"provision/{program}" in deployment.run(program, "--nonsense", expect=2)
    assert deployment.calls() == [] and not deployment.state.exists()


@pytest.mark.parametrize("settings, said", [
    ({"AIRFLOW_VERSION": "4"}, "AIRFLOW_VERSION"), ({"WORKER_CONCURRENCY": "many"}, "WORKER_CONCURRENCY"),
    ({"EFS_PATH": "/x"}, "EFS_IP"), ({"EFS_IP": "10.0.0.1"}, "EFS_PATH"), ({"WEB_PORT": "https"}, "WEB_PORT"),
    ({"WEB_PORT": "443"}, "not root"), ({"WEB_PORT": "99999"}, "WEB_PORT"),
    ({"AIRFLOW_HOME": "srv"}, "AIRFLOW_HOME"), ({"LEASE_MS": "6 s"}, "LEASE_MS")])
def test_wrong_settings(deployment, settings, said):
    deployment.set(**settings)
    assert said in deployment.run("worker", "h", expect=2)
    assert deployment.calls() == []


@pytest.mark.parametrize("known, said", [((), "provision/db_first"), (SERVERS[:2], "provision/q_first")])
@pytest.mark.parametrize("program", ["multischeduler", "worker", "webserver"])
def test_servers_come_first(deployment, program, known, said):
    deployment.have(*known)
    assert said in deployment.run(program, "h", expect=1)
    assert deployment.calls() == []


@pytest.mark.parametrize("text, said", [
    ("queue q1\nbutler b1\n", "line 2: there is no role butler"), ("queue\n", "line 1: wants a role and a host"),
    ("queue q1 q2\n", "line 1: wants a role and a host"), ("# ours\n\nqueue admin@q1\n", "line 3: admin@q1 is no host"),
    ("queue -oProxyCommand=x\n", "line 1: "), ("worker w1\nworker w1 # again\n", "line 2: w1 is a worker already in line 1"),
    ("queue q1\ndatabase q1\n", "line 2: q1 is a queue in line 1"), ("database d1\r\nworker d1\r\n", "line 2: d1 is a database"),
    ("", "names no host"), ("# nothing\n", "names no host"), ("database d1\ndatabase d2\n", "needs queue hosts"),
    ("queue q1\ndatabase d1\nworker w1\n", "needs a scheduler host"), ("scheduler s1\nworker w1\n", "needs a queue host")])
def test_inventories_that_cannot_be(deployment, text, said):
    assert said in deployment.run("all", inventory(deployment, text), expect=2)
    assert deployment.calls() == []


def test_an_inventory_against_what_is_there(deployment):
    deployment.have(*SERVERS)
    assert "q1 has been set up as a queue" in deployment.run("all", inventory(deployment, "worker q1"), expect=2)
    assert "cannot read" in deployment.run("all", "/does/not/exist", expect=2)


def test_every_host_is_looked_at_before_any_is_touched(deployment):
    for host in ("q1", "d1", "s1"):
        deployment.answer(host)
    deployment.answer("w1", error="ssh: connect to host w1 port 22: No route to host")
    deployment.answer("w2", facts={"system": "fedora 40"})
    said = deployment.run("all", inventory(deployment, "queue q1\ndatabase d1\nscheduler s1\nworker w1\nworker w2"), expect=1)
    assert "w1 cannot be reached" in said and "w2 runs fedora 40" in said and "nothing has been changed" in said
    assert deployment.stages() == []


def test_a_dry_run_touches_nothing(deployment):
    for host in ("q1", "d1", "s1"):
        deployment.answer(host)
    said = deployment.run("all", inventory(deployment, "queue q1\ndatabase d1\nscheduler s1"), "--dry-run", expect=0)
    assert "would set up: scheduler s1" in said and deployment.stages() == [] and not deployment.state.exists()


@pytest.mark.parametrize("version", ["3", "2"])
def test_what_a_scheduler_is_sent(deployment, version):
    deployment.set(AIRFLOW_VERSION=version, HEIRFLOW_PACKAGES=str(deployment.folder / "packages"))
    deployment.have(*SERVERS)
    deployment.run("multischeduler", "h", expect=0)
    [stage] = deployment.stages()
    assert (stage / "airflow.env").stat().st_mode & 0o777 == 0o600 and (stage / "settings").stat().st_mode & 0o777 == 0o600
    told = subprocess.run(["env", "-i", "bash", "-c", f"set -a; . {stage}/airflow.env; /usr/bin/env -0"], check=True, capture_output=True,
                          text=True).stdout
    told = dict(line.split("=", 1) for line in told.split("\0") if line)
    assert "host=10.0.0.1:5432&host=10.0.0.2:5432&target_session_attrs=read-write" in told["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    brokers = told["AIRFLOW__CELERY__BROKER_URL"].split(";")
    assert [broker.split("@")[1] for broker in brokers] == [f"10.0.0.{n}:5671/airflow" for n in (3, 4, 5)]
    assert json.loads(told["AIRFLOW_CONN_DEMO"])["host"] == "10.0.0.1,10.0.0.2"
    assert len(told["AIRFLOW__CORE__FERNET_KEY"]) == 44
    assert ("AIRFLOW__API_AUTH__JWT_SECRET" in told) == (version == "3")
    [sql] = [call["sql"] for call in deployment.calls() if "create role" in call.get("sql", "")]
    assert "grant airflow_tables, heirflow_fenced to scheduler_h" in sql
    secrets = [line.split("=")[1] for line in (deployment.state / "secrets").read_text().split() if not line.startswith("DEPLOYMENT")]
    assert not any(secret in word for secret in secrets for call in deployment.calls() for word in call["argv"])
    assert "scheduler h 10.0.0.9" in (deployment.state / "hosts").read_text()


def test_debian_13_is_too_new_for_airflow(deployment):
    deployment.have(*SERVERS)
    deployment.answer("h", facts={"system": "debian 13"})
    assert "take Debian 12" in deployment.run("worker", "h", expect=1)
    assert "take Debian 12" in deployment.run("all", inventory(deployment, "scheduler h"), expect=1)
    assert deployment.stages() == []


@pytest.mark.parametrize("change", [("q_later", "q4"), ("db_later", "d3"), ("remove", "q3"), ("all", "inventory")], ids=" ".join)
def test_servers_that_come_or_go_are_made_known_to_all_who_name_them(deployment, change):
    """To databases, which ask etcd, to both balancers, and to Airflow."""
    deployment.have(*SERVERS, "balancer b1 10.0.2.1", "balancer b2 10.0.2.2", "scheduler s1 10.0.1.3")
    addresses = {"d1": "10.0.0.1", "d2": "10.0.0.2", "d3": "10.0.0.8", "q3": "10.0.0.5", "q4": "10.0.0.9", "b1": "10.0.2.1",
                 "b2": "10.0.2.2", "s1": "10.0.1.3", "q1": "10.0.0.3"}
    for name, address in addresses.items():
        deployment.answer(name, facts={"address": address})
    (deployment.folder / "inventory").write_text("queue q4\n")
    deployment.run(change[0], change[1].replace("inventory", f"{deployment.folder}/inventory"), expect=0)

    def last(name):
        """What it was sent last: settings, and the folder."""
        stages = [stage for stage in deployment.stages() if f"host={name}\n" in (stage / "settings").read_text()]
        lines = (stages[-1] / "settings").read_text().replace("\\", "").splitlines()
        return dict(line.split("=", 1) for line in lines), stages[-1]
    queues = {"q_later": "3 4 5 9", "all": "3 4 5 9", "db_later": "3 4 5", "remove": "3 4"}[change[0]].split()
    databases = ["d1", "d2"] + ["d3"] * (change[0] == "db_later")
    for name in ("b1", "b2"):
        settings, _ = last(name)
        assert [word.split("=")[0] for word in settings["databases"].split()] == databases
        assert [word.split("=")[1] for word in settings["brokers"].split()] == [f"10.0.0.{n}" for n in queues]
    environment = (last("s1")[1] / "airflow.env").read_text()
    assert all(f"host={addresses[name]}:5432" in environment for name in databases)
    told = [(stage / "settings").read_text().replace("\\", "") for stage in deployment.stages()]
    for name in databases:
        assert any(f"host={name}\n" in text and f"etcd={' '.join(f'10.0.0.{n}' for n in queues)}\n" in text for text in told)


def test_refresh_goes_to_every_host(deployment):
    """Also to those that keep a password, which may be what has changed."""
    deployment.have(*SERVERS[:3], "worker w1 10.0.1.3")
    for host in ("d1", "d2", "q1", "w1"):
        deployment.answer(host, leader="d1")

    def sent():
        hosts = [line for stage in deployment.stages() for line in (stage / "settings").read_text().splitlines() if line.startswith("host=")]
        return {line.removeprefix("host=") for line in hosts}
    deployment.run("refresh", "--clients", expect=0)
    assert sent() == {"d1", "d2", "w1"}
    deployment.run("refresh", expect=0)
    assert sent() == {"d1", "d2", "q1", "w1"}


def test_refresh_gives_a_database_alone_its_passwords(deployment):
    deployment.have("database d1 10.0.0.1")
    (deployment.state / "postgresql").write_text("15 \n")
    deployment.answer("d1")
    deployment.run("refresh", expect=0)
    [stage] = deployment.stages()
    assert (stage / "database_contents").exists() and not (stage / "database").exists()


def test_one_machine_under_two_names_in_an_inventory(deployment):
    for host in ("q1", "q2", "q3"):
        deployment.answer(host, facts={"address": "10.0.2.15"} if host != "q2" else None)
    said = deployment.run("all", inventory(deployment, "queue q1\nqueue q2\nqueue q3"), expect=2)
    assert "have the same address 10.0.2.15" in said and deployment.stages() == []


def test_what_is_there_goes_first_whatever_the_order_of_the_inventory(deployment):
    """A database that runs alone is under Patroni before another joins it."""
    deployment.have("database d1 10.0.0.1")
    (deployment.state / "postgresql").write_text("15 \n")
    for host in ("q1", "d1", "d2"):
        deployment.answer(host)
    said = deployment.run("all", inventory(deployment, "queue q1\ndatabase d2\ndatabase d1"), expect=0)
    databases = [stage for stage in deployment.stages() if (stage / "database").exists()]
    assert ["host=d1" in (stage / "settings").read_text() for stage in databases] == [True, False], said


def test_two_schedulers_never_share_a_role(deployment):
    deployment.have(*SERVERS, "scheduler a-b 10.0.1.1")
    deployment.answer("a.b")
    assert "same database role" in deployment.run("multischeduler", "a.b", expect=1)


def switches(deployment):
    return sorted((call["host"], call["version"]) for call in deployment.calls() if call.get("kind") == "switch")


def test_dags_go_everywhere_and_are_the_same_version_again(deployment, dags):
    deployment.have(*SERVERS, *AIRFLOW)
    for host in ("s1", "s2", "w1"):
        deployment.answer(host)
    deployment.run("dags", dags, expect=0)
    version = (deployment.state / "dags" / "version").read_text().strip()
    assert switches(deployment) == [(host, version) for host in ("s1", "s2", "w1")] and len(deployment.stages()) == 3
    (dags / "__pycache__").mkdir()
    (dags / "__pycache__" / "one.pyc").write_text("x")
    assert version in deployment.run("dags", dags, "--dry-run", expect=0)
    (dags / "one.py").write_text("import os\n")
    assert f"in use is {version}" in deployment.run("dags", dags, "--dry-run", expect=0)


def test_dags_that_one_host_does_not_take_are_used_nowhere(deployment, dags):
    deployment.have(*SERVERS, *AIRFLOW)
    for host in ("s1", "w1"):
        deployment.answer(host)
    deployment.answer("s2", status=1, lines=["failed: a DAG is no Python: one.py line 1"])
    said = deployment.run("dags", dags, expect=1)
    assert "one.py line 1" in said and "none uses them" in said
    assert switches(deployment) == [] and not (deployment.state / "dags" / "version").exists()


def test_dags_that_one_host_does_not_switch_to_are_taken_back(deployment, dags):
    deployment.have(*SERVERS, *AIRFLOW)
    for host in ("s1", "w1"):
        deployment.answer(host)
    deployment.answer("s2", switch=1)
    said = deployment.run("dags", dags, expect=1)
    assert "s2: does not switch" in said and "all hosts use what they used before" in said
    assert [host for host, version in switches(deployment) if version == "before"] == ["s1", "w1"]
    assert not (deployment.state / "dags" / "version").exists()


@pytest.mark.parametrize("arguments, said", [(["/does/not/exist"], "no folder"), ([str(SOURCE / "sql")], "no Python file")])
def test_no_dags(deployment, arguments, said):
    deployment.have(*SERVERS, *AIRFLOW)
    assert said in deployment.run("dags", *arguments, expect=2)


def test_dags_on_an_nfs_server_are_not_copied(deployment, dags):
    deployment.set(EFS_IP="10.0.0.1", EFS_PATH="/")
    deployment.have(*SERVERS, *AIRFLOW)
    assert "EFS_IP" in deployment.run("dags", dags, expect=2)


def test_the_demonstration_replaces_no_dags_of_others(deployment, dags):
    deployment.have(*SERVERS, *AIRFLOW)
    for host in ("s1", "s2", "w1"):
        deployment.answer(host)
    deployment.run("dags", dags, expect=0)
    assert "other DAGs" in deployment.run("demo", "s1", "--dry-run", expect=1)
    assert "no Airflow host" in deployment.run("demo", "d1", expect=1)
    shutil.copytree(SOURCE / "config" / "airflow" / "demo", dags, dirs_exist_ok=True)
    deployment.run("dags", dags, expect=0)
    said = deployment.run("demo", "s1", "--dry-run", expect=0)
    assert "would run model_select" in said and "would give" not in said, "among the others it has a place already"
    (dags / "one.py").unlink()
    deployment.run("dags", dags, expect=0)
    assert "would give" in deployment.run("demo", "s1", "--dry-run", expect=0), "the demonstration alone may be replaced by itself"
