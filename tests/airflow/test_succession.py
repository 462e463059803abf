"""Airflow's scheduler under Heirflow: a DAG run goes on when the heir is killed, and nothing runs twice."""
import json
import socket
import subprocess
import urllib.request

import processes
import pytest
import wrapper as wrappers
from processes import wait_for

pytestmark = [pytest.mark.timeout(600), pytest.mark.parametrize("airflow", ["3"], indirect=True)]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


@pytest.fixture
def api_server(airflow):
    """Airflow 3's tasks report to it."""
    port = free_port()
    airflow.environment |= {
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/", "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10", "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2", "DEMO_SCHEDULE": "@once",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5", "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10"}
    with open(airflow.home / "api-server.log", "wb") as log:
        server = subprocess.Popen([airflow.program, "api-server", "--workers", "1"], stdout=log, stderr=log,
                                  env=airflow.environment, start_new_session=True)
    wait_for(lambda: answers(f"http://127.0.0.1:{port}/api/v2/version"), 120)
    yield
    server.terminate()
    server.wait(30)


def test_a_run_survives_the_death_of_the_heir(airflow, api_server, wrapper, command, heirflow):
    subprocess.run([heirflow, "migrate"], check=True, env=wrappers.clean_environment(HEIRFLOW_POSTGRES=airflow.dsn))
    airflow("dags", "reserialize")
    nodes = [wrapper(name, command=[airflow.program, "scheduler"], environment=airflow.environment, postgres=airflow.dsn,
                     lease_ms=2000) for name in ("ada", "bert")]
    wait_for(lambda: airflow.query("select 1 from demo.executions where task = 'evaluate'"), 120)
    heir = json.loads(command("status", "--json", "--group", "tests", database=airflow.dsn, expect=0).stdout)["heir"]["node"]
    [survivor] = [node for node in nodes if node.node != heir]
    [killed] = [node for node in nodes if node.node == heir]
    killed.kill()
    wait_for(lambda: airflow.query("select 1 from dag_run where dag_id = 'model_select' and state in ('success', 'failed')"), 240)
    assert airflow.query("select state from dag_run where dag_id = 'model_select'") == [("success",)]
    assert airflow.query("select count(*) from demo.model_choices") == [(1,)]
    assert airflow.query("""select task, map_index, try, count(*) from demo.executions group by dag, run, task, map_index, try
                            having count(*) > 1""") == []
    assert "acceded" in [event for event, in airflow.query("select event from heirflow.news where node = %s", survivor.node)]
    command("audit", "--group", "tests", database=airflow.dsn, expect=0)
    survivor.terminate()
    survivor.wait()
