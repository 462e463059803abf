"""A world to break: hosts with wrappers and servers on them, and what the witnesses saw of it."""
import pathlib
import subprocess
import time

import pytest

import servers
import witness as witnesses
import wrapper as wrappers
from processes import wait_for

LEASE = 1.0
DATABASE = "heirflow"
CRASH, LOSS, BACK = 0.25, LEASE + 0.3, LEASE + 1.0  # the figures: crash of a process, any other fault, database back
GENEROUS = 3  # times a figure: the machine is small and shared


def faketime(clock):
    """Environment whose wall clock is off by what the file says; clocks that only advance are left alone."""
    found = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("needs libfaketime: apt-get install faketime")
    return {"LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": clock, "FAKETIME_NO_CACHE": 1,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1}


def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Postgres(servers.Postgres):
    """A server on a host of its own. We reach it through the switch, whatever is cut between hosts."""

    def __init__(self, host, folder, template, **settings):
        super().__init__(folder, template, listen_addresses="*", **settings)
        self.host, self.address, self.port, self.prefix = host, host.address, 5432, host.prefix
        self.hba("host all all 10.78.0.0/24 trust", "host replication all 10.78.0.0/24 trust")

    def connect(self, database="postgres", **more):
        with self.host.lab.switch.inside():
            return super().connect(database, **{"connect_timeout": 3, "tcp_user_timeout": 3000} | more)

    def follow(self, primary, name):
        """Makes a standby of a server that was started from the same template and has kept its log since."""
        (self.data / "standby.signal").touch()
        self.settings["primary_conninfo"] = (f"host={primary.address} port={primary.port} user=postgres "
                                             f"application_name={name}")

    def power_off(self):
        self.host.power_off()
        self.process.wait()
        self.process = None

    def preload(self, variables):
        """Environment of the server's own, not of the programs that switch its user before."""
        script = self.folder / "postgres-with-variables"
        words = [f"{name}={value}" for name, value in variables.items()]
        script.write_text(f'#!/bin/sh\nexec env {" ".join(words)} {self.program("postgres")} "$@"\n')
        script.chmod(0o755)
        self.program = lambda name: str(script) if name == "postgres" else servers.Postgres.program(name)


class RabbitMQ(servers.RabbitMQ):
    exchange = "heirflow.news"

    def __init__(self, host, folder):
        super().__init__(folder)
        self.host, self.address, self.prefix = host, host.address, host.prefix

    def start(self, wait=True):
        with self.host.namespace.inside():
            super().start(wait)

    def watermark(self, share):
        """Of the memory that it may use before it takes no more messages."""
        with self.host.namespace.inside():
            self.rabbitmqctl("set_vm_memory_high_watermark", share)


class World:
    def __init__(self, lab, heirflow, witness_program, folder, template):
        self.lab, self.heirflow, self.folder, self.template = lab, heirflow, folder, template
        self.witness = witnesses.Witness(witness_program, folder / "witness")
        self.databases, self.members, self.broker = [], {}, None
        self.case = self.figure = self.verdict = None
        self.gap_since = self.excluded = None
        self.remarks = []

    # -- parts

    def postgres(self, name="pg", primary=None, variables=None, **settings):
        server = Postgres(self.lab.host(name), self.folder / name, self.template, **settings)
        if variables:
            server.preload(variables)
        if primary:
            server.follow(primary, name)
        server.start()
        self.databases.append(server)
        if not primary:
            server.psql(f"create database {DATABASE}")
            with self.lab.switch.inside():
                subprocess.run([self.heirflow, "migrate"], check=True, stdout=subprocess.DEVNULL,
                               env=wrappers.clean_environment(HEIRFLOW_POSTGRES=server.dsn(DATABASE)))
        else:
            wait_for(lambda: primary.psql("select 1 from pg_stat_replication where state = 'streaming'"), 20, "the standby")
        return server

    def rabbitmq(self):
        self.broker = RabbitMQ(self.lab.host("mq"), self.folder / "mq")
        self.broker.start()
        return self.broker

    def wrapper(self, node, prefix=(), command=None, program=None, **more):
        host = self.lab.hosts.get(node) or self.lab.host(node)
        options = ("--child", "--grandchild", "--ignore-term")
        addresses = ",".join(server.address for server in self.databases)
        configuration = {
            "group": "faults", "lease_ms": int(LEASE * 1000),
            "postgres": f"host={addresses} port=5432 user=postgres dbname={DATABASE}",
            "scheduler": {"command": command or self.witness.command(*options), "stop_timeout_ms": 300}}
        if self.broker:
            configuration["rabbitmq"] = {"url": self.broker.url}
        made = wrappers.Wrapper(program or self.heirflow, self.folder / f"node-{node}", node, wrappers.merge(configuration, more))
        made.prefix, made.host = [*host.prefix, *prefix], host
        self.members[node] = made
        made.start()
        made.wait_for_event("standby")
        return made

    def group(self, *nodes, **more):
        """Wrappers in the order of the line; returns them when the first one's scheduler has settled."""
        for node in nodes:
            self.wrapper(node, **more)
        self.until_runs(nodes[0])
        wait_for(lambda: len(self.witness.latest().roles) == 3, 10, "child and grandchild")
        beat = self.query("select beat from throne")[0][0]
        wait_for(lambda: self.query("select beat from throne")[0][0] > beat + 2, 10, "renewals")
        return [self.members[node] for node in nodes]

    def query(self, sql, *values, server=None):
        server = server or self.databases[0]
        return server.psql("set search_path = heirflow, public; " + sql, *values, database=DATABASE)

    # -- what is seen

    def alive(self):
        """{run: node} of the schedulers that bore witness within the last tenth of a second."""
        found, since = {}, now() - 0.1
        for path in self.witness.folder.iterdir():
            with open(path, "rb") as file:
                file.seek(max(0, path.stat().st_size - 300))
                lines = file.read().decode().rpartition("\n")[0].splitlines()
            words = lines[-1].split() if lines else []
            if len(words) == 6 and int(words[0]) / 1e9 > since:
                found[words[5]] = words[2]
        return found

    def logs(self):
        return "\n".join(f"-- {node}\n{member.log()[-3000:]}" for node, member in self.members.items())

    def until(self, condition, what, timeout=30):
        return wait_for(condition, timeout, lambda: f"{what}\n{self.logs()}", 0.02)

    def until_runs(self, node, timeout=30):
        self.until(lambda: node in self.alive().values(), f"the scheduler on {node}", timeout)

    def until_any(self, timeout=30):
        self.until(self.alive, "a scheduler", timeout)

    def until_none(self, timeout=20):
        self.until(lambda: not self.alive(), "no scheduler", timeout)

    def until_rejoined(self, node, count=2):
        self.members[node].wait_for_event("standby", count=count)

    def steady(self, seconds):
        """Lets time pass; where nothing may happen, there is nothing to wait for."""
        time.sleep(seconds)

    def another_run(self, before, timeout=30):
        """Waits for a run that is none of these, as alive() gave them before the fault."""
        self.until(lambda: set(self.alive()) - set(before), "another run", timeout)

    # -- the verdict

    def claim(self, case, figure=None, since=None, excluded=False):
        """What this test is about. Gaps count from here on; `since` instead tells when the database was back."""
        self.case, self.figure, self.excluded, self.begun = case, figure, excluded, now()
        self.gap_since = since

    def back(self):
        """The database is back: from here on the gap counts."""
        self.gap_since = now()

    def note(self, text):
        self.remarks.append(text)

    def overlap(self):
        """Seconds during which two schedulers lived."""
        runs = self.witness.runs()
        return sum(max(0.0, min(a.end, b.end) - b.start) for i, a in enumerate(runs) for b in runs[i + 1:])

    def gap(self):
        """Longest time without any scheduler since the fault, or since the database was back; None if there was none."""
        runs, gaps, covered = self.witness.runs(), [], None
        for run in runs:
            if covered is not None and run.start > max(self.begun, self.gap_since or 0):
                gaps.append(max(0, run.start - max(covered, self.gap_since or 0)))
            covered = max(covered or 0, run.end)
        return max(gaps, default=None)

    def judge(self):
        """No overlap, and no gap far beyond the figure."""
        overlaps = self.witness.overlaps()
        self.verdict = (self.overlap(), self.gap())
        if not self.excluded:
            assert not overlaps, f"OVERLAP\n{overlaps}\n{self.logs()}"
        if self.figure and self.verdict[1] is not None:
            assert self.verdict[1] <= GENEROUS * self.figure, f"gap of {self.verdict[1]:.3f} s\n{self.logs()}"

    def row(self):
        if not self.case:
            return None
        overlap, gap = self.verdict or (self.overlap(), self.gap())
        remarks = list(self.remarks)
        if self.excluded:
            remarks.insert(0, "excluded by the promise: exposure stated")
        if self.verdict is None:
            remarks.insert(0, "DID NOT END")
        if self.figure and gap is not None and gap > self.figure:
            remarks.append("LATE")
        return (self.case, f"{overlap:.3f}" if overlap else "0", "none" if gap is None else f"{gap:.3f}",
                f"{self.figure:.2f}" if self.figure else "-", "; ".join(remarks))

    def remove(self):
        for host in self.lab.hosts.values():
            host.thaw()
        for member in self.members.values():
            if member.running():
                member.power_off()
        faked = [part.process.pid for part in (*self.members.values(), *self.databases) if part.process]
        for server in self.databases:
            server.kill()
        if self.broker:
            self.broker.remove()
        for pid in faked:  # what libfaketime leaves of a killed process
            for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
                pathlib.Path("/dev/shm", name).unlink(missing_ok=True)
