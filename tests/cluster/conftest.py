"""Hosts with a systemd and an sshd of their own, set up by the programs in provision/ as a user does it: over ssh, as a user who
may sudo. Packages come from a folder, for the hosts' network leads nowhere else. Slow: tests/run does it only by name."""
import shutil

import pytest

import machines
from cluster_hosts import OFFERED, PREINSTALLED, Cluster

LACKING = machines.missing() or next((f"needs {program}: apt-get install {package}" for program, package in (
    ("ssh-keygen", "openssh-client"), ("dpkg-scanpackages", "dpkg-dev")) if not shutil.which(program)), None)


def pytest_collection_modifyitems(config, items):
    for item in items:
        if "/cluster/" in str(item.path):
            item.add_marker(pytest.mark.timeout(1800))
            if LACKING:
                item.add_marker(pytest.mark.skip(reason=f"tests/cluster {LACKING}"))


@pytest.fixture(scope="session")
def image():
    machines.mount_for_ourselves()
    return machines.Image(PREINSTALLED, OFFERED).build()


@pytest.fixture(scope="session")
def cluster(image, worker_folder, outlives_tests):
    made = Cluster(image, worker_folder / "cluster", outlives_tests)
    yield made
    made.remove()
