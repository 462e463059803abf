"""Hosts with a systemd and an sshd of their own, set up by the programs in provision/ as a user does it: over ssh, as a user who
may sudo. Packages come from a folder, for the hosts' network leads nowhere else. Slow: tests/run does it only by name."""
import shutil

import pytest

import machines
import tables
from cluster_hosts import OFFERED, PREINSTALLED, SOURCE, SYSTEM, Cluster

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
    return machines.Image(PREINSTALLED, OFFERED, SYSTEM).build()


@pytest.fixture(scope="session")
def own_image(image):
    """The same, with this machine's system."""
    return image if SYSTEM is None else machines.Image(PREINSTALLED, OFFERED).build()


@pytest.fixture(scope="session")
def cluster(image, worker_folder, outlives_tests):
    made = Cluster(image, worker_folder / "cluster", outlives_tests)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def packages(worker_folder):
    """Of Heirflow, for this machine's system."""
    machines.run(SOURCE / "provision" / "package", "--no-install", "--output", worker_folder / "packages")
    return worker_folder / "packages"


# -- the table --------------------------------------------------------------------------------------------------------

HEAD = ("component", "how it failed", "measured", "stated")


@pytest.fixture
def note(run_folder):
    """note(component, how it failed, {what: seconds measured, seconds stated}) adds to the table, and judges."""
    def add(component, how, **figures):
        tables.add(run_folder, "cluster", (component, how, *(
            ", ".join(f"{what.replace('_', ' ')} {pair[place]:.1f} s" for what, pair in figures.items()) for place in (0, 1))))
        for what, (measured, stated) in figures.items():
            assert measured <= stated, f"{component}, {how}: {what} {measured:.1f} s, stated {stated} s"
    return add


def pytest_terminal_summary(terminalreporter, config):
    tables.report(terminalreporter, config, "cluster", HEAD)
