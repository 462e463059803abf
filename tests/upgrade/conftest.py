"""The next version of the program: this tree with one more migration, built once for all workers."""
import fcntl
import pathlib
import shutil
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2]

# what a next version may do to the schema: columns and functions are added, nothing released is changed
MIGRATION = """
alter table roster add column next_note text;
alter table throne add column next_note text;
alter table news add column next_note text;
alter table terms add column next_note text;
create function next_count(p_group text) returns bigint
language sql stable security definer set search_path from current as $$ select count(*) from roster where group_name = p_group $$;
"""


def make_next(folder):
    for name in ("meson.build", "meson_options.txt"):
        shutil.copy(SOURCE / name, folder)
    for name in ("heirflow", "sql", "config", "docs"):
        shutil.copytree(SOURCE / name, folder / name)
    (folder / "sql" / "9000_next.sql").write_text(MIGRATION)
    versions = sorted(path.name for path in (folder / "sql").glob("[0-9]*.sql"))[:-1]
    number = int(versions[-1][:4]) + 1
    next_name = f"{number:04}_next.sql"
    (folder / "sql" / "9000_next.sql").rename(folder / "sql" / next_name)
    rules = folder / "sql" / "meson.build"
    rules.write_text(rules.read_text().replace(f"'{versions[-1]}'", f"'{versions[-1]}', '{next_name}'"))
    build = folder / "build"
    subprocess.run(["meson", "setup", build, folder, "-Dinterface=false", "-Dtests=false"], check=True, capture_output=True)
    subprocess.run(["ninja", "-C", build, "heirflow/heirflow"], check=True, capture_output=True)
    return build / "heirflow" / "heirflow"


@pytest.fixture(scope="session")
def next_heirflow(run_folder):
    """Path of the next version's program."""
    folder = run_folder / "next"
    with open(run_folder / "next.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        program = folder / "build" / "heirflow" / "heirflow"
        if not program.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make_next(folder)
    return str(program)
