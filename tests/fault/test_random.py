"""Random sequences of faults from a seed: never two schedulers at once, and one again when all is healed."""
import random
import signal

import pytest

import processes
from world import GENEROUS, LEASE, LOSS, now

NODES = ("ada", "bert", "cleo")


class Chaos:
    """One fault at a time to one node, so that no pair arises which the promise excludes; others meanwhile elsewhere."""

    def __init__(self, world, seed):
        self.world, self.random, self.undo, self.story = world, random.Random(seed), [], []

    def node(self):
        """A node without a fault; the one with the scheduler every other time."""
        free = [node for node in NODES if not any(node == busy for busy, _ in self.undo)]
        heirs = [node for node in self.world.alive().values() if node in free]
        return self.random.choice(heirs if heirs and self.random.random() < 0.5 else free) if free else None

    def signal(self, node, part, number):
        member = self.world.members[node]
        pid = {"wrapper": member.pid, "keeper": member.keeper(), "scheduler": member.scheduler()}[part]
        if pid is None:
            return None
        processes.send(pid, number)
        return lambda: processes.send(pid, signal.SIGCONT) if number == signal.SIGSTOP else None

    def kill_wrapper(self, node):
        self.world.members[node].kill()
        return lambda: self.world.members[node].start()

    def power_off(self, node):
        member = self.world.members[node]
        member.host.power_off()
        member.process.wait()

        def on():
            member.host.plug(True)
            member.start()
        return on

    def cut(self, node):
        direction = self.random.choice(("in", "out", "both"))
        self.world.lab.isolate([node], direction)
        return self.world.lab.heal

    def lose(self, node):
        self.world.lab.lose([node])
        return self.world.lab.heal

    def terminate(self, node):
        self.world.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'heirflow:%%'")

    def database(self, how):
        server = self.world.databases[0]
        if how == "freeze":
            server.host.freeze()
            return server.host.thaw
        server.stop(how)
        return server.start

    def step(self):
        acts = {
            "kill wrapper": self.kill_wrapper, "power off": self.power_off, "cut": self.cut, "lose packets": self.lose,
            "kill keeper": lambda node: self.signal(node, "keeper", signal.SIGKILL),
            "kill scheduler": lambda node: self.signal(node, "scheduler", signal.SIGKILL),
            "stop wrapper": lambda node: self.signal(node, "wrapper", signal.SIGSTOP),
            "stop keeper": lambda node: self.signal(node, "keeper", signal.SIGSTOP),
            "database fast": lambda _: self.database("fast"), "database immediate": lambda _: self.database("immediate"),
            "database freeze": lambda _: self.database("freeze")}
        away = any(busy == "database" for busy, _ in self.undo)
        if not away:
            acts["terminate connections"] = self.terminate
        what = self.random.choice(sorted(name for name in acts if not (away and name.startswith("database"))))
        node = "database" if what.startswith("database") else self.node()
        if node is None:
            return
        self.story.append(f"{what} {'' if node == 'database' else node}".strip())
        undo = acts[what](node)
        if undo:
            self.undo.append((node, undo))

    def mend(self, count):
        for _ in range(min(count, len(self.undo))):
            node, undo = self.undo.pop(0)
            self.story.append(f"mend {node}")
            undo()

    def run(self):
        for _ in range(self.random.randint(4, 7)):
            self.step()
            self.world.steady(self.random.choice((0.05, 0.3, 0.8, 1.5)) * LEASE)
            self.mend(self.random.randint(0, 2))
        self.mend(len(self.undo))


@pytest.mark.timeout(150)
def test_random_faults(world, seed):
    print(f"repeat: tests/fault/test_random.py --faults-seed {seed} --faults-random 1")
    world.postgres()
    world.group(*NODES)
    chaos = Chaos(world, seed)
    world.claim(f"random faults, seed {seed}")
    try:
        chaos.run()
        healed = now()
        world.until_any(timeout=GENEROUS * 2 * LOSS)
        world.note(f"one {now() - healed:.1f} s after the healing")
        world.steady(LEASE)
        world.until_any()
    finally:
        print("story: " + ", ".join(chaos.story))
    world.note(f"{len(world.witness.runs()) - 1} successions")
    world.judge()
