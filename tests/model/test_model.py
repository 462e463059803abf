"""Searches the model of the protocol: within so many steps nothing goes wrong, and each mutation named in its head does.

The search is breadth first, so that a bound of steps means every possible run of that length.
"""
import pathlib
import re
import subprocess

import pytest

pytestmark = pytest.mark.timeout(600)  # it only computes, however slow the machine
MODEL = pathlib.Path(__file__).with_name("succession.pml")
MUTATIONS = re.findall(r"^ \*   ([A-Z_]+) +\d+  ", MODEL.read_text(), re.MULTILINE)
CAUGHT_WITHIN = 20
OVERLAP = r"assertion violated +!\(\(live\[\d\]&&live\[\d\]\)\) \(at depth (\d+)\)"


def search(folder, steps, *defines):
    """Everything that can happen in so many steps, or until the first error; the search's report."""
    subprocess.run(["spin", *defines, "-a", str(MODEL)], cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=60)
    subprocess.run(["cc", "-O2", "-w", "-DSAFETY", "-DBFS", "-DCOLLAPSE", "-DVECTORSZ=2048", "-o", "pan", "pan.c"],
                   cwd=folder, check=True, timeout=60)
    return subprocess.run(["./pan", "-w22", f"-m{steps}"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=500).stdout


@pytest.mark.parametrize("nodes, steps", [(2, CAUGHT_WITHIN + 2), (3, 18)])
def test_no_two_schedulers_within_so_many_steps(folder, nodes, steps):
    report = search(folder, steps, f"-DN={nodes}")
    assert re.search(rf"depth reached {steps}, errors: 0", report), report
    assert int(re.search(r"(\d+) states, stored", report)[1]) > 400000, report


def test_there_are_eight_mutations():
    assert len(MUTATIONS) == 8
    assert all(f"#ifdef {name}\n" in MODEL.read_text() for name in MUTATIONS)


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_search_catches(folder, name):
    report = search(folder, CAUGHT_WITHIN + 1, f"-D{name}")  # pan tells a state's depth when it leaves it
    depth = re.search(OVERLAP, report)
    assert depth, f"not caught\n{report}"
    assert int(depth[1]) <= CAUGHT_WITHIN
