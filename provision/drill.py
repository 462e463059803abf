"""The drill: what goes wrong in real life, one after the other, with the gaps and what became of the tasks."""
import datetime
import os
import platform
import signal
import time

import processes
from observer import now
from progress import patiently, say

SETTLED_TASKS = 3


class Drill:
    def __init__(self, demonstration):
        self.world = demonstration
        self.rows = []

    def settle(self, members):
        """Everybody in the line, and the scheduler sending tasks again."""
        world = self.world
        patiently(lambda: len(world.live()) == members, 60, lambda: f"{members} members:\n{world.logs()}")
        life = patiently(world.observer.current, 60, lambda: f"a scheduler:\n{world.logs()}")
        patiently(lambda: world.query("select count(*) >= %s from task_run where recorded_at > to_timestamp(%s)",
                                      SETTLED_TASKS, self.wall(life.start))[0][0], 60, lambda: f"tasks:\n{world.logs()}")

    @staticmethod
    def wall(at):
        return time.time() - (now() - at)

    def happen(self, what, act, moves, members):
        """One event: act on the heir's wrapper, then see where the scheduler goes and how long it was away."""
        world = self.world
        heir = world.wrappers[world.heir()]
        before = world.observer.current()
        lives = len(world.observer.lives)
        misses = world.tasks()[2]
        say(f"{what} ({heir.node}) ... ", end="")
        act(heir)
        if moves:
            patiently(lambda: len(world.observer.lives) > lives and world.observer.current(), 60,
                      lambda: f"the next scheduler:\n{world.logs()}")
            after = world.observer.lives[lives]
            gap, went = f"{after.start - before.end:.3f}", f"{before.node} -> {after.node}"
        else:
            gap, went = "none", f"stays on {before.node}"
        if not heir.running():
            heir.process.wait()
            if members == len(world.wrappers):
                world.start_wrapper(heir.node)
        self.settle(members)
        if not moves and world.observer.current() is not before:
            raise AssertionError(f"the scheduler was disturbed: {what}")
        self.rows.append((what, went, gap, str(world.tasks()[2] - misses)))
        say(f"{went}, gap {gap} s" if moves else went)

    def run(self):
        world = self.world
        say("\nThe drill: each line is something that happens to the node that runs the scheduler.")
        self.settle(3)
        say()
        self.happen("wrapper killed (SIGKILL)", lambda heir: heir.kill(), True, 3)
        self.happen("scheduler killed (SIGKILL)", self.kill_scheduler, True, 3)
        self.happen("whole node lost", lambda heir: heir.power_off(), True, 3)
        self.happen("handed over (SIGTERM)", self.hand_over, True, 3)
        self.happen("fourth wrapper added", lambda heir: world.start_wrapper("dora"), False, 4)
        self.happen("standby removed (SIGTERM)", self.remove_standby, False, 3)

    @staticmethod
    def kill_scheduler(heir):
        processes.send(patiently(heir.scheduler, 10, "the scheduler's process"), signal.SIGKILL)

    @staticmethod
    def hand_over(heir):
        heir.terminate()
        heir.wait(60)

    def remove_standby(self, heir):
        node = next(node for node in self.world.live() if node != heir.node)
        wrapper = self.world.wrappers.pop(node)
        wrapper.terminate()
        wrapper.wait(60)

    def report(self):
        world = self.world
        runs, doubles, misses, span = world.tasks()
        overlaps = world.observer.overlaps
        print(f"Drill of {datetime.date.today()}: {os.cpu_count()} CPUs, {system()}, Linux {platform.release()}; "
              f"lease {world.lease_ms / 1000:g} s\n")
        rows = [("what happened", "scheduler", "gap, s", "tasks missed"), *self.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        for number, row in enumerate(rows):
            print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
            if number == 0:
                print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
        print(f"\nTask runs, one due each second for {span} s: {runs} runs, {doubles} doubles, {misses} misses")
        print(f"Schedulers: {len(world.observer.lives)} one after the other, {len(overlaps)} overlaps")
        for first, second in overlaps:
            print(f"OVERLAP: {first.node} term {first.term} still ran when {second.node} term {second.term} started")
        return 1 if overlaps else 0


def system():
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def drill(demonstration):
    run = Drill(demonstration)
    try:
        run.run()
    finally:
        status = run.report()
    return status
