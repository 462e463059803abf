"""Real Airflow, as config/airflow locks it, in a virtual environment kept between runs; its database on a server of the test's."""
import hashlib
import os
import pathlib
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "heirflow-tests"
DEMO = SOURCE / "config" / "airflow" / "demo"


def environment_of(version):
    lock = SOURCE / "config" / "airflow" / f"airflow-{version}.lock"
    folder = CACHE / f"airflow-{version}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    made = subprocess.run([SOURCE / "provision" / "airflow-environment", folder, version], capture_output=True, text=True)
    if made.returncode and not os.environ.get("CI"):
        pytest.skip(f"Airflow {version} cannot be installed here: {made.stderr[-500:]}")
    assert made.returncode == 0, made.stderr
    return folder


class Airflow:
    """airflow(*arguments) runs one command of it. Has .environment, .database (its own) and .server."""

    def __init__(self, version, folder, server):
        self.version, self.server, self.home = version, server, folder / "airflow"
        self.program = str(environment_of(version) / "bin" / "airflow")
        self.home.mkdir()
        server.psql("create database airflow")
        self.dsn = server.dsn("airflow")
        where = f"postgres@127.0.0.1:{server.port}/airflow"
        self.environment = {
            "PATH": f"{pathlib.Path(self.program).parent}:{os.environ['PATH']}", "HOME": str(self.home),
            "LANG": "C.UTF-8", "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{where}",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor", "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__CORE__DAGS_FOLDER": str(DEMO), "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "false",
            "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-this-test-and-long-enough-for-hs512" * 2,
            "AIRFLOW_CONN_DEMO": f"postgresql://{where}", "PYTHONPYCACHEPREFIX": str(self.home / "pycache"),
        }
        self("db", "migrate")
        server.psql((DEMO / "schema.sql").read_text(), database="airflow")

    def __call__(self, *arguments, timeout=240):
        result = subprocess.run([self.program, *arguments], env=self.environment, capture_output=True, text=True,
                                timeout=timeout)
        assert result.returncode == 0, f"airflow {' '.join(arguments)}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        return result.stdout

    def query(self, sql, *values):
        return self.server.psql(sql, *values, database="airflow")


@pytest.fixture
def airflow(request, folder, own_postgres):
    return Airflow(request.param, folder, own_postgres)
