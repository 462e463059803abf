"""Members as services of real systemds: machines (tests/support/machines.py) that boot from an image of their own, with the
build under test installed, and a witness as scheduler."""
import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import hosts
import machines
import processes
import witness as witnesses
import wrapper as wrappers
from processes import wait_for

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "fault"))
from world import Postgres  # noqa: E402

LACKING = machines.missing()
GROUP, DATABASE, LEASE = "beat", "heirflow", 2.0
UNIT = f"heirflow@{GROUP}"
SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
EPOCH = "1700000000"  # when the packages say that they were made


def pytest_collection_modifyitems(config, items):
    for item in items:
        if "/systemd/" not in str(item.path):
            continue
        item.add_marker(pytest.mark.timeout(400))  # the image takes two minutes the first time
        if LACKING and "image" in item.fixturenames:
            item.add_marker(pytest.mark.skip(reason=f"tests/systemd {LACKING}"))


@pytest.fixture(scope="session")
def image():
    machines.mount_for_ourselves()
    return machines.Image().build()


@pytest.fixture(scope="session")
def installed(image, build, worker_folder):
    """A layer with the build under test as `meson install` puts it there, and the libraries it wants."""
    layer = worker_folder / "installed"
    machines.run("meson", "install", "--no-rebuild", "-C", build, "--destdir", layer)
    for line in machines.run("ldd", build / "heirflow" / "heirflow", build / "interface" / "heirflow-interface").splitlines():
        found = re.match(r"\s*\S+ => (/\S+)", line)
        if found:
            library = pathlib.Path(found[1])
            target = layer / library.parent.resolve().relative_to("/") / library.name
            if not (image.base / target.relative_to(layer)).exists() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(library.read_bytes())
    (layer / "usr/local/bin/witness").write_bytes((build / "tests" / "witness").read_bytes())
    (layer / "usr/local/bin/witness").chmod(0o755)
    return layer


class Member(machines.Machine):
    """A machine with one service of the group."""

    def configure(self, world, scheduler=(), group=GROUP, unit=None, **more):
        configuration = {"lease_ms": int(LEASE * 1000), "postgres": world.postgres.dsn(DATABASE),
                         "scheduler": {"command": world.witness.command(), "stop_timeout_ms": 5000} | dict(scheduler)} | more
        path = self.root / "etc/heirflow" / f"{group}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(configuration, indent=2))
        path.chmod(0o600)
        if unit:
            self.override(unit)

    def override(self, text):
        folder = self.root / "etc/systemd/system/heirflow@.service.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text(f"[Service]\n{text}\n")

    def main_pid(self):
        return int(self.show(UNIT, "MainPID"))

    def status(self):
        return self.show(UNIT, "StatusText")

    @contextlib.contextmanager
    def short_of_memory(self, megabytes):
        """What the keeper starts from now on may use so much; the kernel kills what wants more."""
        first = pathlib.Path("/sys/fs/cgroup/memory")
        if not (first / "memory.limit_in_bytes").exists():
            self("systemctl", "set-property", "--runtime", UNIT, f"MemoryMax={megabytes}M", "MemorySwapMax=0")
            yield
            return
        keeper = next(pid for pid in self.processes() if "keeper" in processes.command_line(pid))
        group, home = first / self.host.cgroup.parent.name, open(f"/proc/{keeper}/cgroup").read()
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(megabytes << 20))
        (group / "cgroup.procs").write_text(str(keeper))
        yield
        home = first / re.search(r":memory:/(.*)", home)[1]
        wait_for(lambda: not self.move(group, home), what="an empty cgroup")
        group.rmdir()

    @staticmethod
    def move(source, target):
        """What is left there."""
        for pid in (source / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):  # it has gone meanwhile
                (target / "cgroup.procs").write_text(pid)
        return (source / "cgroup.procs").read_text()

    def processes(self):
        """Our numbers of all processes of the service."""
        group = self.host.cgroup / "payload" / self.show(UNIT, "ControlGroup").lstrip("/")
        return [int(pid) for path in group.rglob("cgroup.procs") for pid in path.read_text().split()]

    def scheduler(self):
        return next(pid for pid in self.processes() if "witness" in " ".join(processes.command_line(pid)))


class World:
    def __init__(self, lab, image, installed, folder, heirflow, template):
        self.lab, self.image, self.installed, self.folder, self.heirflow = lab, image, installed, folder, heirflow
        self.witness = witnesses.Witness("/usr/local/bin/witness", folder / "witness")
        self.postgres = Postgres(lab.host("pg"), folder / "pg", template)
        self.members = {}

    def start_postgres(self):
        self.postgres.start()
        self.postgres.psql(f"create database {DATABASE}")
        with self.lab.switch.inside():
            subprocess.run([self.heirflow, "migrate"], check=True, stdout=subprocess.DEVNULL,
                           env=wrappers.clean_environment(HEIRFLOW_POSTGRES=self.postgres.dsn(DATABASE)))

    def machine(self, name, **more):
        layers = [self.installed] if self.installed else []
        made = Member(self.lab.host(name), self.image, self.folder / name, layers, [self.witness.folder])
        self.members[name] = made
        made.configure(self, **more)
        return made.boot(wait=False)

    def pair(self, **more):
        """ada, whose scheduler runs, and bert."""
        ada, bert = self.machine("ada", **more), self.machine("bert", **more)
        self.start_postgres()
        ada.wait_until_up()
        ada("systemctl", "enable", "--now", UNIT)
        self.until_runs("ada")
        bert.wait_until_up()
        bert("systemctl", "enable", "--now", UNIT)
        self.until_standby(bert)
        return ada, bert

    def logs(self):
        return "\n".join(f"--- {name}\n{member.journal(UNIT)[-2500:]}" for name, member in self.members.items()
                         if member.process.poll() is None)

    def until_runs(self, node):
        wait_for(lambda: self.witness.running_on() == node, 30, lambda: f"{node}'s scheduler:\n{self.logs()}")

    def until_standby(self, member):
        wait_for(lambda: member.status().startswith("standby, latest term "), 30, lambda: f"{member.name} to stand by:\n{self.logs()}",
                 0.05)

    def query(self, sql):
        return self.postgres.psql(f"set search_path = heirflow; {sql}", database=DATABASE)

    def judge(self, figure=None):
        """No two at once; the gap before the latest scheduler."""
        assert not self.witness.overlaps()
        gap = self.witness.gaps()[-1]
        if figure:
            print(f"{figure}: {gap * 1000:.0f} ms without a scheduler")
        return gap

    def remove(self):
        for member in self.members.values():
            member.remove()
        self.postgres.remove()


@pytest.fixture(scope="session")
def packages(run_folder):
    """The Debian packages of this tree: {name: path}."""
    if not shutil.which("dh"):
        pytest.skip("needs debhelper")
    folder = run_folder / "packages"
    with open(run_folder / "packages.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            machines.run(SOURCE / "provision/package", "--no-install", "--output", folder,
                         env=os.environ | {"SOURCE_DATE_EPOCH": EPOCH})
    return {path.name.split("_")[0]: path for path in folder.glob("*.deb")}


@pytest.fixture
def lab():
    made = hosts.Lab()
    yield made
    made.remove()


@pytest.fixture
def world(lab, image, installed, folder, heirflow, postgres_template):
    made = World(lab, image, installed, folder, heirflow, postgres_template)
    yield made
    made.remove()
