"""A whole Airflow deployment on factory-fresh hosts, by one command; then its scheduler's hosts are lost, hand over, come and go
while the demonstration DAG runs. HEIRFLOW_TEST_CLUSTER_SIZE=small does with one queue host and one database host."""
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time

import pytest

import machines
from cluster_hosts import SOURCE, Cluster, Node
from processes import wait_for

SMALL = os.environ.get("HEIRFLOW_TEST_CLUSTER_SIZE", "full") == "small"
QUEUES, DATABASES = (("q1",), ("d1",)) if SMALL else (("q1", "q2", "q3"), ("d1", "d2"))
SCHEDULERS, WORKERS, WEB = ("s1", "s2"), ("w1",) if SMALL else ("w1", "w2"), "web1"
LOCK = SOURCE / "config" / "airflow" / "airflow-3.lock"
CONFIG = ("--config", "/etc/heirflow/airflow-scheduler.json")
LEASE = 6

pytestmark = pytest.mark.timeout(5400)


def wheels():
    """What the hosts' pip installs from, in place of the internet; kept between runs."""
    folder = machines.cache() / f"wheels-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        machines.cache().mkdir(parents=True, exist_ok=True)
        making = folder.with_suffix(".new")
        machines.run("/usr/bin/python3", "-m", "venv", f"{making}.pip")
        machines.run(f"{making}.pip/bin/pip", "download", "--quiet", "--require-hashes", "--prefer-binary", "--no-deps", "--dest", making,
                     "--requirement", LOCK)
        machines.run("rm", "-rf", f"{making}.pip")
        making.rename(folder)
    return folder


@pytest.fixture(scope="module")
def packages(worker_folder):
    machines.run(SOURCE / "provision" / "package", "--no-install", "--output", worker_folder / "packages")
    return worker_folder / "packages"


class AirflowNode(Node):
    def __init__(self, cluster, host, folder):
        super().__init__(cluster, host, folder)
        (self.root / "wheels").mkdir()
        self.binds.append(f"--bind-ro={cluster.wheels}:/wheels")
        (self.root / "etc" / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\ndisable-pip-version-check = true\n")


class AirflowCluster(Cluster):
    kind = AirflowNode

    def sql(self, statement, *values, **who):
        with contextlib.closing(self.connect(**who)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    def heirflow(self, name, *command, check=0):
        return self.nodes[name]("heirflow", command[0], *CONFIG, *command[1:], check=check, timeout=120).stdout

    def heir(self, asked):
        """Who runs the scheduler; None if nobody does."""
        status = json.loads(self.heirflow(asked, "status", "--json"))
        running = any(member["role"] == "heir" and (member["scheduler"] or {}).get("state") == "running" for member in status["members"])
        return status["heir"]["node"] if status["heir"] and running else None

    def trigger(self, run):
        """A run of model_select, of which some tasks have been done."""
        self.nodes[WORKERS[0]]("/usr/local/bin/airflow", "dags", "trigger", "--run-id", run, "model_select", timeout=180)
        wait_for(lambda: self.sql("select count(*) from demo.executions where run = %s", run)[0][0] >= 4, 300, "the first tasks of a run", 1)

    def wait_for_run(self, run):
        wait_for(lambda: self.sql("select state from dag_run where dag_id = 'model_select' and run_id = %s", run)[0][0] in ("success", "failed"),
                 600, f"the end of {run}", 2)
        assert self.sql("select state from dag_run where run_id = %s", run) == [("success",)]
        assert self.sql("select features @> '{0,2}' from demo.model_choices where run = %s", run) == [(True,)]

    def nothing_ran_twice(self):
        assert self.sql("""select dag, run, task, map_index, try, count(*) from demo.executions
                           group by dag, run, task, map_index, try having count(*) > 1""") == []
        assert self.sql("select dag_id, run_id, state from dag_run where state = 'failed'") == []


@pytest.fixture(scope="module")
def deployment(image, worker_folder, outlives_tests, packages):
    made = AirflowCluster(image, worker_folder / "airflow", outlives_tests)
    made.wheels = wheels()
    made.more = {"HEIRFLOW_PACKAGES": packages, "WORKER_CONCURRENCY": "2"}
    try:
        roles = {"queue": QUEUES, "database": DATABASES, "scheduler": SCHEDULERS, "worker": WORKERS, "webserver": (WEB,)}
        for names in roles.values():
            for name in names:
                made.node(name)
        inventory = worker_folder / "inventory"
        inventory.write_text("".join(f"{role} {name}\n" for role, names in roles.items() for name in names))
        made("all", str(inventory), timeout=3600)
        made("demo", "s1", timeout=1800)
        yield made
    finally:
        made.remove()


def test_everything_is_fine_and_the_page_lets_its_user_in(deployment):
    told = deployment.wait_until_fine()
    assert "heir, term" in told and "standby, heir is" in told and "https, port 8443" in told
    version = (deployment.state / "dags" / "version").read_text().strip()
    assert told.count(f"version {version}") == len(SCHEDULERS + WORKERS) + 1
    answer = subprocess.run(["nsenter", f"--net={deployment.lab.switch.path}", "curl", "--silent", "--fail", "--cacert",
                             deployment.state / "ca" / "ca.crt", "--header", "Content-Type: application/json", "--data",
                             json.dumps({"username": "admin", "password": deployment.secret("AIRFLOW_ADMIN_PASSWORD")}),
                             f"https://{deployment.nodes[WEB].address}:8443/auth/token"], capture_output=True, text=True)
    assert "access_token" in answer.stdout


def test_a_second_time_changes_nothing(deployment):
    output = deployment("worker", WORKERS[0])
    assert "nothing had to be changed" in output


def test_the_heirs_host_is_lost(deployment):
    heir = deployment.heir(SCHEDULERS[0])
    [other] = set(SCHEDULERS) - {heir}
    deployment.trigger("host-lost")
    lost = time.time()
    deployment.nodes[heir].power_off()
    wait_for(lambda: deployment.heir(other) == other, 60, "the next heir")
    [[started]] = deployment.sql("""select max(extract(epoch from told_at))::float8 from heirflow.news
                                    where node = %s and event = 'scheduler-started'""", other,
                                 user="heirflow", secret="HEIRFLOW_PASSWORD")
    print(f"gap {started - lost:.3f} s", file=sys.stderr)
    assert 0 < started - lost < LEASE + 2  # two heartbeats
    deployment.wait_for_run("host-lost")
    deployment.nothing_ran_twice()
    deployment.heirflow(other, "audit")
    deployment.nodes[heir].start()
    deployment.wait_until_fine()


def test_a_hand_over_while_tasks_run(deployment):
    heir = deployment.heir(SCHEDULERS[0])
    deployment.trigger("handed-over")
    deployment.heirflow(heir, "switchover")
    wait_for(lambda: deployment.heir(heir) not in (None, heir), 60, "the next heir")
    deployment.wait_for_run("handed-over")
    deployment.nothing_ran_twice()
    deployment.heirflow(heir, "audit")


def test_a_worker_is_lost_while_it_works(deployment):
    deployment.trigger("worker-lost")
    deployment.nodes[WORKERS[0]].power_off()
    deployment.nodes[WORKERS[0]].start()
    deployment.wait_for_run("worker-lost")
    deployment.nothing_ran_twice()


@pytest.mark.skipif(SMALL, reason="not of the small size")
@pytest.mark.parametrize("what", ["database", "queue"])
def test_a_server_is_lost(deployment, what):
    lost = deployment.leader() if what == "database" else deployment.nodes["q1"]
    deployment.trigger(f"{what}-lost")
    lost.power_off()
    deployment.wait_for_run(f"{what}-lost")
    deployment.nothing_ran_twice()
    lost.start()
    deployment.wait_until_fine()


@pytest.mark.skipif(SMALL, reason="not of the small size")
def test_a_scheduler_comes_and_one_goes(deployment):
    deployment.trigger("come-and-go")
    before = {name: deployment.nodes[name]("sha256sum", CONFIG[1]).stdout for name in SCHEDULERS}
    deployment.node("s3")
    deployment("multischeduler", "s3")
    deployment("remove", "s1")
    assert before["s2"] == deployment.nodes["s2"]("sha256sum", CONFIG[1]).stdout
    wait_for(lambda: deployment.heir("s3") in ("s2", "s3"), 60, "an heir that stays")
    assert deployment.sql("select 1 from pg_roles where rolname = 'scheduler_s1'") == []
    deployment.wait_for_run("come-and-go")
    deployment.nothing_ran_twice()
