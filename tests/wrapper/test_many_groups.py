"""Fifty groups on one host and in one database, with faults at random: each keeps its one scheduler."""
import json
import os
import random
import signal

import pytest

import conftest
import processes
from conftest import wait_for

GROUPS, STRIKES, LEASE_MS = 50, 60, 3000


class Group:
    """Two members. The scheduler holds a lock: a second one beside it ends with status 99."""

    def __init__(self, wrapper, folder, database, number):
        self.name, self.database, self.leaving = f"group-{number}", database, []
        command = ["flock", "--nonblock", "--conflict-exit-code=99", str(folder / self.name), "sleep", "infinity"]
        self.members = [wrapper(node, database=database, group=self.name, command=command, lease_ms=LEASE_MS)
                        for node in ("ada", "bert")]

    def status(self):
        return self.database.value("select status(%s)", self.name)

    def told(self):
        return json.dumps(self.status()) + "\n" + "\n".join(member.log()[-1500:] for member in self.members)

    def settled(self):
        """One heir whose scheduler runs here, and everybody else in the line."""
        status = self.status()
        running = [member for member in self.members if member.running() and member.scheduler()]
        return (status and status["heir"] and [member.node for member in running] == [status["heir"]["node"]]
                and len(status["members"]) == 2 and all(member["live"] for member in status["members"]))

    def strike(self, chance):
        member = chance.choice([one for one in self.members if one.running()] or self.members)
        if not member.running():
            self.leaving = [one for one in self.leaving if one is not member]
            member.start()
            return "started again"
        what = chance.choice(("kill", "terminate", "stop", "kill scheduler", "kill keeper"))
        if what == "kill":
            member.kill()
        elif what == "terminate":
            member.terminate()
            self.leaving.append(member)
        elif what == "stop":
            processes.send(member.pid, signal.SIGSTOP)
        else:
            pid = member.scheduler() if what == "kill scheduler" else member.keeper()
            if pid:
                processes.send(pid, signal.SIGKILL)
        return f"{what} {member.node}"

    def heal(self):
        for member in self.members:
            if member.running():
                processes.send(member.pid, signal.SIGCONT)
            if member in self.leaving or not member.running():
                member.wait()
                member.start()


@pytest.mark.timeout(180)
def test_fifty_groups_with_faults(wrapper, folder, postgres_template, heirflow):
    seed = int(os.environ.get("HEIRFLOW_TEST_SEED", random.randrange(10**6)))
    print(f"repeat with HEIRFLOW_TEST_SEED={seed}")
    chance = random.Random(seed)
    server = conftest.start_postgres(folder / "postgres", postgres_template, max_connections="400")
    try:
        database = conftest.new_database(server)
        conftest.migrate(heirflow, database)
        groups = [Group(wrapper, folder, database, number) for number in range(GROUPS)]
        for group in groups:
            wait_for(group.settled, 60, lambda: f"{group.name} to settle: {group.told()}", 0.1)
        story = []
        for number in range(STRIKES):
            group = chance.choice(groups)
            story.append(f"{group.name}: {group.strike(chance)}")
            if number in (STRIKES // 3, STRIKES * 2 // 3):
                server.kill()
                server.start()
                story.append("database crashed")
        print("\n".join(story))
        for group in groups:
            group.heal()
        for group in groups:
            wait_for(group.settled, 60, lambda: f"{group.name} to settle again: {group.told()}", 0.1)
        assert database.query("select group_name, data from news where event = 'scheduler-exited' and reason like '%%99'") == []
        assert all(database.value("select audit(%s)->'overlaps'", group.name) == 0 for group in groups)
    finally:
        server.remove()
