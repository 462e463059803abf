"""DAGs on an NFS server. Airflow's hosts, and the server, have a Linux of their own, for this machine's may have no NFS."""
import pytest

import kernel_hosts
import machines
from airflow_hosts import VERSION, AirflowCluster, AirflowNode
from cluster_hosts import OFFERED, SOURCE, Node
from kernel_hosts import KernelNode
from processes import wait_for

QUEUE, DATABASE, SERVER, SCHEDULER, WORKER = "q1", "d1", "n1", "s1", "w1"
DEMO = SOURCE / "config" / "airflow" / "demo"
EXPORTED, MOUNTED, MOUNT = "/srv/airflow-dags", "/srv/airflow/shared", "srv-airflow-shared.mount"
PARSER, KNOWN = ("DAG_PROCESSOR", "not is_stale") if VERSION == "3" else ("SCHEDULER", "is_active")
SETTINGS = ("DEMO_SCHEDULE=@daily", f"AIRFLOW__{PARSER}__PARSING_PROCESSES=1",
            f"AIRFLOW__{PARSER}__MIN_FILE_PROCESS_INTERVAL=120")

pytestmark = [pytest.mark.timeout(5400), pytest.mark.skipif(kernel_hosts.missing() is not None, reason=f"{kernel_hosts.missing()}")]


class NfsServer(KernelNode):
    memory = "512M"

    def export(self):
        self("sh", "-euc", f"echo '{EXPORTED} 10.78.0.0/24(ro,no_subtree_check)' >/etc/exports; exportfs -ra")

    def put(self, name, text):
        done = self.cluster.ssh(self.name, "sudo", "install", "-D", "--mode=644", "/dev/stdin", f"{EXPORTED}/{name}", input=text)
        assert done.returncode == 0, done.stderr

    def put_demonstration(self):
        for path in DEMO.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                self.put(path.relative_to(DEMO), path.read_text())


class AirflowKernelNode(AirflowNode, KernelNode):
    memory = "4G"


class NfsCluster(AirflowCluster):
    def image_of(self, name):
        return self.with_server if name == SERVER else super().image_of(name)

    def kind_of(self, name):
        return Node if name in self.servers else NfsServer if name == SERVER else AirflowKernelNode


@pytest.fixture(scope="module")
def deployment(own_image, worker_folder, outlives_tests, packages):
    image = machines.Image(kernel_hosts.IMAGE, [*OFFERED, "nfs-common"]).build()
    made = NfsCluster(own_image, image, worker_folder / "nfs", outlives_tests, (QUEUE, DATABASE), WORKER)
    made.with_server = machines.Image([*kernel_hosts.IMAGE, "nfs-kernel-server"]).build()
    try:
        for name in (QUEUE, DATABASE, SERVER, SCHEDULER, WORKER):
            made.node(name)
        made.more = {"HEIRFLOW_PACKAGES": packages, "WORKER_CONCURRENCY": "2", "AIRFLOW_VERSION": VERSION,
                     "EFS_IP": made.nodes[SERVER].address, "EFS_PATH": EXPORTED} | {
            f"AIRFLOW_SETTINGS[{place}]": setting for place, setting in enumerate(SETTINGS)}
        made.write_settings()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def refused(deployment, worker_folder):
    """What was said while the server did not give the DAGs yet; after it, all is set up."""
    inventory = worker_folder / "nfs-inventory"
    inventory.write_text(f"queue {QUEUE}\ndatabase {DATABASE}\nscheduler {SCHEDULER}\nworker {WORKER}\n")
    told = deployment("all", str(inventory), expect=1, timeout=3600)
    deployment.nodes[SERVER].put_demonstration()
    deployment.nodes[SERVER].export()
    deployment("all", str(inventory), timeout=3600)
    return told


@pytest.fixture
def fine(deployment, refused):
    deployment.wait_until_fine(timeout=420)
    return deployment


def test_a_server_that_refuses_is_told_and_mended(deployment, refused):
    address = deployment.nodes[SERVER].address
    assert f"{address}:{EXPORTED} cannot be mounted (mount.nfs" in refused
    assert f"that it exports this to {deployment.nodes[SCHEDULER].address}" in refused


def test_dags_come_from_the_server_and_cannot_be_written(fine):
    told = fine("status")
    assert told.count(f"from {fine.nodes[SERVER].address}:{EXPORTED}") == 2
    for name in (SCHEDULER, WORKER):
        fine.nodes[name]("touch", f"{MOUNTED}/x", check=1)
    assert "tasks ran on" in fine("demo", WORKER, timeout=1800)
    fine.nodes[SERVER].put("added.py", "from airflow import DAG\ndag = DAG('added', schedule=None)\n")
    wait_for(lambda: fine.sql("select 1 from dag where dag_id = 'added'"), 300, "a DAG that was added on the server", 1)
    assert "nothing had to be changed" in fine("worker", WORKER)


def test_hosts_start_before_the_server(fine):
    """People can log in meanwhile, and services that read DAGs do not take an empty folder for them."""
    server = fine.nodes[SERVER]
    server.power_off()
    for name in (SCHEDULER, WORKER):
        fine.nodes[name].power_off()
        fine.nodes[name].start()
    assert "the NFS server's are not mounted" in fine("status", WORKER, expect=1)
    for name in (SCHEDULER, WORKER):
        wait_for(lambda: "Failed" in fine.nodes[name].journal(MOUNT), 180, f"a mount that failed on {name}", 1)
    server.start()
    told = fine.wait_until_fine(timeout=420)
    assert told.count(f"from {server.address}:{EXPORTED}") == 2
    assert fine.sql(f"select count(*) from dag where {KNOWN}") == [(4,)]
    assert "tasks ran on" in fine("demo", WORKER, timeout=1800)


def test_the_server_is_lost_while_tasks_run(fine):
    server = fine.nodes[SERVER]
    with fine.at_work():
        server.power_off()
        wait_for(lambda: "their NFS server does not answer" in fine("status", WORKER, expect=None), 120, "word of a server that is lost", 1)
        server.start()
    fine.wait_until_fine(timeout=420)


def test_copied_dags_take_the_servers_place(fine):
    del fine.more["EFS_IP"], fine.more["EFS_PATH"]
    fine.write_settings()
    for program, name in (("multischeduler", SCHEDULER), ("worker", WORKER)):
        assert "the DAGs do not come from an NFS server any more" in fine(program, name)
        fine.nodes[name]("findmnt", MOUNTED, check=1)
    assert "tasks ran on" in fine("demo", SCHEDULER, timeout=1800)
    assert "version " in fine.wait_until_fine(timeout=420)
