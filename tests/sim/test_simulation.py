"""Searches seeds of the simulation for two schedulers at once and for none, and shows that the search would find them.

By hand: BUILD/tests/sim/simulation --first 1 --seeds 100000; one seed with its story: --first SEED --seeds 1 --trace
"""
import pathlib
import shutil
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("first", [1, 5001])
def test_ten_thousand_worlds_without_two_schedulers_or_none(build, first):
    result = subprocess.run([str(build / "tests/sim/simulation"), "--first", str(first), "--seeds", "5000"],
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


# What must not be got wrong: file, right text, wrong text. Each must be caught within the seeds of SEARCH.
SEARCH = "8000"
MUTATIONS = {
    "no wait after another server answers": ("heirflow/succession.c", "if (!view->home ||", "if (0 &&"),
    "identity without what changes in a failover": (
        "tests/sim/simulation.c", "w->database.identity = ++w->identities;", "w->database.identity = w->identities;"),
    "new throne row trusted": (
        "tests/sim/database.c", ".lease_ms = caller->lease_ms};",
        ".lease_ms = caller->lease_ms, .identity = self->identity};"),
    "observation cut short": (
        "heirflow/succession.c", "at_ms = most(at_ms, self->unchanged_since_ms + view->wait_ms);",
        "at_ms = most(at_ms, self->unchanged_since_ms + view->wait_ms * 8 / 10);"),
    "observation counted over a change of the tuple": (
        "heirflow/succession.c", "if (!self->observed || !same_throne(&seen->throne, &self->view.throne))",
        "if (!self->observed || seen->throne.heir != self->view.throne.heir)"),
    "accession without comparing the tuple": ("tests/sim/database.c", 'return "changed";', "(void)0;"),
    "throne vacated before the tree is dead": (
        "heirflow/succession.c", "    stop_scheduler(self, orders, now_ms + self->settings.stop_timeout_ms);",
        "    stop_scheduler(self, orders, now_ms + self->settings.stop_timeout_ms);\n"
        "    enter(self, SUCCESSION_ABDICATING, reason, orders);"),
    "accession's lease counted from the reply": (
        "heirflow/succession.c", "self->deadline_ms = self->sent_ms + self->lease_ms; /* rule 2 */\n    self->running",
        "self->deadline_ms = now_ms + self->lease_ms;\n    self->running"),
    "another server's wait not begun anew": (
        "heirflow/succession.c", "if (!self->observed || other_server || turned_back)", "if (!self->observed)"),
    "kill after the end of the lease": (
        "heirflow/succession.h", "return deadline_ms - lease_ms / 10 - reaping_ms;", "return deadline_ms + lease_ms / 2;"),
    "late registration accepted": ("tests/sim/database.c", "me->generation > caller->generation ||", "0 ||"),
    "retirement vacates directly": (
        "tests/sim/database.c", "    if (heir && retired)\n        throne->request = ASKED_RETIRE;",
        "    if (heir && retired)\n        throne->heir = throne->incarnation = 0;"),
    "lease changed at once": (
        "tests/sim/database.c", "self->throne.next_lease_ms = lease_ms;",
        "self->throne.lease_ms = lease_ms, self->throne.longest_lease_ms = 0; return;"),
    "a second lease to come forgets the first": (
        "tests/sim/database.c", "if (lease_ms > self->throne.longest_lease_ms)", "if (1)"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_search_catches(name, folder):
    path, right, wrong = MUTATIONS[name]
    assert (SOURCE / path).read_text().count(right) == 1, "the mutation no longer fits the code"
    for source in [*(SOURCE / "tests/sim").glob("*.[ch]"), *(SOURCE / "heirflow").glob("succession.[ch]")]:
        shutil.copy(source, folder)
    mutated = folder / pathlib.Path(path).name
    mutated.write_text(mutated.read_text().replace(right, wrong))
    subprocess.run("cc -std=gnu17 -O2 -w -I. simulation.c database.c succession.c -o simulation", shell=True, cwd=folder, check=True)
    result = subprocess.run(["./simulation", "--seeds", SEARCH], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 1 and "two scheduler trees at once" in result.stdout, result.stdout
