"""The next version of the program: the one under test with one more migration, linked once for all workers."""
import fcntl
import os
import pathlib
import shlex
import subprocess
import sys

import pytest

import hosts
import wrapper as wrappers
SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests" / "fault"))
from world import World  # noqa: E402

# what a next version may do to the schema: columns and functions are added, nothing released is changed
MIGRATION = """
alter table roster add column next_note text;
alter table throne add column next_note text;
alter table news add column next_note text;
alter table terms add column next_note text;
create function next_count(p_group text) returns bigint
language sql stable security definer set search_path from current as $$ select count(*) from roster where group_name = p_group $$;
"""


def pytest_configure(config):
    config.addinivalue_line("markers", "keep: writes what a release leaves; run by tests/upgrade/keep alone")


def pytest_collection_modifyitems(config, items):
    if not os.environ.get("HEIRFLOW_KEEP_RELEASE"):
        items[:] = [item for item in items if not item.get_closest_marker("keep")]


def told(*command):
    return shlex.split(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def make_next(folder, build):
    """Links the program's own objects, its migrations excepted."""
    migrations = sorted((SOURCE / "sql").glob("[0-9]*.sql"))
    more = folder / f"{int(migrations[-1].name[:4]) + 1:04}_next.sql"
    more.write_text(MIGRATION)
    source, made, program = folder / "migrations.c", folder / "migrations.o", folder / "heirflow"
    subprocess.run(["sh", SOURCE / "sql" / "embed.sh", *migrations, more, source], check=True)
    subprocess.run(["cc", "-c", f"-I{SOURCE / 'heirflow'}", *told("pkg-config", "--cflags", "libpq"), "-o", made, source], check=True)
    link = told("ninja", "-C", build, "-t", "commands", "-s", "heirflow/heirflow")
    link[link.index("-o") + 1] = program
    subprocess.run([link[0], made, *link[1:]], check=True, cwd=build)  # found before the library is searched for them


@pytest.fixture(scope="session")
def next_heirflow(run_folder, build):
    """Path of the next version's program."""
    folder = run_folder / "next"
    with open(run_folder / "next.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "heirflow").exists():
            folder.mkdir(exist_ok=True)
            make_next(folder, build)
    return str(folder / "heirflow")


@pytest.fixture
def migrate():
    """migrate(program, dsn): what a version makes of a schema."""
    def run(program, dsn):
        done = subprocess.run([program, "migrate"], capture_output=True, text=True, timeout=60,
                              env=wrappers.clean_environment(HEIRFLOW_POSTGRES=dsn))
        assert done.returncode == 0, done.stderr
    return run


@pytest.fixture
def world(heirflow, build, folder, postgres_template):
    """Hosts whose network can be cut: see tests/fault."""
    if lacking := hosts.missing():
        pytest.skip(lacking)
    lab = hosts.Lab()
    made = World(lab, heirflow, build / "tests" / "witness", folder, postgres_template)
    yield made
    made.remove()
    lab.remove()
