"""A whole Airflow deployment on factory-fresh hosts, by one command; then each of its parts is lost while the demonstration DAG
runs on its schedule. HEIRFLOW_TEST_CLUSTER_SIZE=small does with one queue host and one worker, HEIRFLOW_TEST_AIRFLOW=2 with
that version."""
import json
import os
import random
import subprocess
import time

import pytest

from airflow_hosts import CONFIG, VERSION, AirflowCluster
from cluster_hosts import FAILOVER
from processes import wait_for

SMALL = os.environ.get("HEIRFLOW_TEST_CLUSTER_SIZE", "full") == "small"
QUEUES, WORKERS = (("q1",), ("w1",)) if SMALL else (("q1", "q2", "q3"), ("w1", "w2"))
DATABASES, SCHEDULERS, BALANCERS, WEB = ("d1", "d2"), ("s1", "s2"), ("b1", "b2"), "web1"
# few processes, for all hosts share two CPUs
PARSER = "DAG_PROCESSOR" if VERSION == "3" else "SCHEDULER"
SETTINGS = ("DEMO_SCHEDULE=*/5 * * * *", f"AIRFLOW__{PARSER}__PARSING_PROCESSES=1",
            f"AIRFLOW__{PARSER}__MIN_FILE_PROCESS_INTERVAL=120")
LEASE, BEAT = 6, 1
# as docs/deployment.md has them, seconds
BALANCER_LOST, BROKER_LOST, SCHEDULER_STARTS, TRIED_AGAIN, SESSION_ENDS = 5, 30, 60, 120, 30

pytestmark = pytest.mark.timeout(5400)


@pytest.fixture(scope="module")
def deployment(image, own_image, worker_folder, outlives_tests, packages):
    made = AirflowCluster(image, own_image, worker_folder / "airflow", outlives_tests, (*QUEUES, *DATABASES, *BALANCERS), WORKERS[-1])
    made.more = {"HEIRFLOW_PACKAGES": packages, "WORKER_CONCURRENCY": "2", "AIRFLOW_VERSION": VERSION} | {
        f"AIRFLOW_SETTINGS[{place}]": setting for place, setting in enumerate(SETTINGS)}
    try:
        roles = {"queue": QUEUES, "database": DATABASES, "scheduler": SCHEDULERS, "worker": WORKERS, "webserver": (WEB,)}
        for names in roles.values():
            for name in names:
                made.node(name)
        inventory = worker_folder / "inventory"
        inventory.write_text("".join(f"{role} {name}\n" for role, names in roles.items() for name in names))
        made.interrupt(random.uniform(20, 200), "all", str(inventory))
        made("all", str(inventory), timeout=3600)
        made("demo", WEB, timeout=1800)
        with made.at_work() as work:
            pass
        made.undisturbed = work.pause
        yield made
    finally:
        made.remove()


@pytest.fixture
def fine(deployment):
    deployment.wait_until_fine(timeout=420)
    yield deployment
    deployment.lab.heal()
    for node in deployment.nodes.values():
        if node.process.poll() is not None:  # whatever a failed test left switched off
            node.start()


def test_everything_is_fine_and_the_page_lets_its_user_in(fine):
    told = fine("status")
    assert "heir, term" in told and "standby, heir is" in told and "https, port 8443" in told
    version = (fine.state / "dags" / "version").read_text().strip()
    assert told.count(f"version {version}") == len(SCHEDULERS + WORKERS) + 1
    password, page = fine.secret("AIRFLOW_ADMIN_PASSWORD"), f"https://{fine.nodes[WEB].address}:8443"
    if VERSION == "3":
        question = ["--header", "Content-Type: application/json", "--data", json.dumps({"username": "admin", "password": password}),
                    f"{page}/auth/token"]
    else:
        question = ["--user", f"admin:{password}", f"{page}/api/v1/dags"]
    answer = subprocess.run(["nsenter", f"--net={fine.lab.switch.path}", "curl", "--silent", "--fail", "--cacert",
                             fine.state / "ca" / "ca.crt", *question], capture_output=True, text=True)
    assert ("access_token" if VERSION == "3" else "model_select") in answer.stdout


def test_a_second_time_changes_nothing(fine):
    assert "nothing had to be changed" in fine("worker", WORKERS[0])


def test_the_heirs_host_is_lost(fine, note):
    heir, term = fine.heir()
    with fine.at_work() as work:
        lost = time.time()
        fine.nodes[heir].power_off()
        now = fine.next_term(term)
        assert now.node != heir
    work.ran_once()
    fine.heirflow(now.node, "audit")
    fine.nodes[heir].start()
    note("host of the scheduler", "power lost", no_heir=(now.began - lost, LEASE + 0.3),
         recorded_after_the_lease=(now.began - now.former_ended, 0.3), no_scheduler=(now.started - lost, LEASE + 2 * BEAT), tasks_held_up=(fine.held_up(work), LEASE + SCHEDULER_STARTS))


def test_a_hand_over_while_tasks_run(fine, note):
    heir, term = fine.heir()
    with fine.at_work() as work:
        fine.heirflow(heir, "switchover")
        now = fine.next_term(term)
        assert now.node != heir
    work.ran_once()
    fine.heirflow(heir, "audit")
    note("scheduler", "handed over", no_scheduler=(now.started - now.former_ended, 1), tasks_held_up=(fine.held_up(work), SCHEDULER_STARTS))


def test_the_primary_database_is_lost(fine, note):
    heir, term = fine.heir()
    with fine.at_work() as work:
        primary, lost = fine.leader(), time.time()
        primary.power_off()
        now = fine.next_term(term)
    fine.heirflow(heir, "audit")
    primary.start()
    note("primary database", "power lost", no_scheduler=(now.started - lost, FAILOVER + 2 * LEASE + 2 * BEAT),
         tasks_held_up=(fine.held_up(work), FAILOVER + 2 * LEASE + SCHEDULER_STARTS + TRIED_AGAIN))


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_host_is_lost(fine, note, name):
    with fine.at_work() as work:
        lost = time.time()
        fine.nodes[name].power_off()
        if SMALL:  # there is no other: all wait for it
            fine.nodes[name].start()
            fine.wait_until_fine(name, timeout=180)
        away = time.time() - lost
    if not SMALL:
        fine.nodes[name].start()
    note(f"queue host {name}", "power lost" + SMALL * f" for {away:.0f} s, the only one",
         tasks_held_up=(fine.held_up(work), BROKER_LOST + SMALL * (away + 2 * LEASE + SCHEDULER_STARTS + TRIED_AGAIN)))


def test_a_worker_is_lost_while_it_works(fine, note):
    with fine.at_work() as work:
        fine.nodes[WORKERS[0]].power_off()
        fine.nodes[WORKERS[0]].start()
    note("worker", "power lost", tasks_held_up=(fine.held_up(work), TRIED_AGAIN))


def test_the_web_server_is_lost(fine, note):
    with fine.at_work() as work:
        fine.nodes[WEB].power_off()
    work.ran_once()
    fine.nodes[WEB].start()
    note("web server", "power lost", tasks_held_up=(fine.held_up(work), 15))


@pytest.mark.skipif(SMALL, reason="one queue host has no halves")
def test_the_network_is_cut_between_halves(fine, note):
    """The smaller half has all that the larger one has to replace."""
    heir, term = fine.heir()
    with fine.at_work() as work:
        lost = time.time()
        fine.lab.isolate([QUEUES[0], fine.leader().name, heir, WORKERS[0]])
        now = fine.next_term(term)
        assert now.node != heir
    fine.heirflow(now.node, "audit")
    fine.lab.heal()
    note("network", "cut between halves", no_scheduler=(now.started - lost, FAILOVER + 2 * LEASE + 2 * BEAT),
         tasks_held_up=(fine.held_up(work), FAILOVER + 2 * LEASE + SCHEDULER_STARTS + TRIED_AGAIN))


def test_a_scheduler_comes_and_one_goes(fine, note):
    before = {name: fine.nodes[name]("sha256sum", CONFIG[1]).stdout for name in SCHEDULERS}
    heir, term = fine.heir()
    with fine.at_work() as work:
        fine.node("s3")
        fine("multischeduler", "s3")
        fine("remove", "s1")
        wait_for(lambda: (now := fine.heir()) and now[0] in ("s2", "s3"), 60, "an heir that stays")
    work.ran_once()
    assert before["s2"] == fine.nodes["s2"]("sha256sum", CONFIG[1]).stdout
    assert fine.sql("select 1 from pg_roles where rolname = 'scheduler_s1'") == []
    fine.heirflow("s2", "audit")
    note("scheduler", f"a third came, the first went{' as the heir' if heir == 's1' else ''}", tasks_held_up=(fine.held_up(work), SCHEDULER_STARTS))


def test_airflow_goes_through_balancers(fine, note):
    for name in BALANCERS:
        fine.node(name)
        fine("balancer", name)
    fine.more["DB_ADDRESS"] = fine.floating
    fine.write_settings()
    fine.parameters = {}
    fine("refresh", timeout=1800)
    fine.wait_until_fine(timeout=420)
    heir, _ = fine.heir()
    with fine.at_work() as work:
        assert {address for [address] in fine.sql("select distinct host(client_addr) from pg_stat_activity where usename = 'airflow'")} \
            <= {fine.nodes[name].address for name in BALANCERS}
        holder = next(name for name in BALANCERS if fine.floating in fine.nodes[name]("ip", "-4", "address").stdout)
        fine.nodes[holder].power_off()
        wait_for(lambda: fine.sessions_from(holder) == [], SESSION_ENDS, "the end of sessions through the lost balancer", 1)
    fine.heirflow(heir, "audit")
    fine.nodes[holder].start()
    note("balancer with the address", "power lost", tasks_held_up=(fine.held_up(work), BALANCER_LOST + SCHEDULER_STARTS + TRIED_AGAIN))
