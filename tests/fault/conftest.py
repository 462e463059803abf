"""Faults on real parts: every wrapper and server on a host of its own (tests/support/hosts.py), a witness as scheduler.

Each case adds a line to a table of overlaps and gaps, printed at the end. Options: --faults-all adds the long outages,
--faults-random N runs N random sequences instead of 5, --faults-seed S repeats those that start at a seed.
`PYTEST_ADDOPTS="--faults-all --faults-random 200" tests/run fault` runs the whole.
"""
import os
import pathlib
import random
import sys

import pytest

import hosts
import tables
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from world import World  # noqa: E402

SEED = "HEIRFLOW_FAULTS_SEED"
LACKING = hosts.missing()


def pytest_addoption(parser):
    parser.addoption("--faults-all", action="store_true", help="the long outages too")
    parser.addoption("--faults-random", type=int, default=5, help="random sequences of faults to run (default 5)")
    parser.addoption("--faults-seed", type=int, help="seed of the first random sequence")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: only with --faults-all")
    if not hasattr(config, "workerinput"):  # all workers must collect the same tests
        seed = config.getoption("--faults-seed", None)
        os.environ[SEED] = str(random.randrange(10**6) if seed is None else seed)


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        first = int(os.environ[SEED])
        metafunc.parametrize("seed", range(first, first + metafunc.config.getoption("--faults-random", 5)))


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--faults-all", False):
            item.add_marker(pytest.mark.skip(reason="a long outage: --faults-all"))
        elif LACKING and "/fault/" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=f"tests/fault {LACKING}"))


@pytest.fixture
def lab():
    made = hosts.Lab()
    yield made
    made.remove()


@pytest.fixture
def world(lab, heirflow, build, folder, postgres_template, run_folder, request):
    made = World(lab, heirflow, build / "tests" / "witness", folder, postgres_template)
    yield made
    row = made.row()
    if row:
        tables.add(run_folder, "faults", row)
    made.remove()


# -- the table --------------------------------------------------------------------------------------------------------

HEAD = ("case", "overlap s", "gap s", "figure s", "remarks")


def pytest_terminal_summary(terminalreporter, config):
    tables.report(terminalreporter, config, "faults", HEAD, sorted)
