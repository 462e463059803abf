"""What config/airflow locks fits together where the other tests do not look: they run without Celery."""
import subprocess

import pytest
from conftest import environment_of


@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", ["3", "2"])
def test_the_celery_executor_can_be_used(version, folder):
    environment = {"AIRFLOW_HOME": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    subprocess.run([environment_of(version) / "bin" / "python", "-c",
                    "from airflow.providers.celery.executors.celery_executor import CeleryExecutor, app; app.control"],
                   check=True, env=environment, timeout=300)
