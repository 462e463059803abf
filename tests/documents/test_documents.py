"""What the documents say can be done, can be done: their commands run, their links lead somewhere, their paths exist."""
import pathlib
import re
import shlex
import subprocess

import pytest
import wrapper as wrappers
from processes import wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page):
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page):
    """Lines of code blocks that call heirflow, as argument lists without the program."""
    lines = re.findall(r"^ {4}heirflow ([a-z].*)$", page.read_text(), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines if line.isascii()]


@each_page
def test_links_lead_somewhere(page):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if "://" in target:
            continue
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            wrong.append(target)
    assert wrong == []


@each_page
def test_files_that_are_named_exist(page):
    named = set(re.findall(r"`((?:config|docs|heirflow|interface|provision|sql|tests)/[\w./-]*\w)`", page.read_text()))
    assert {path for path in named if not (ROOT / path).exists()} == set()


@each_page
def test_options_that_are_shown_exist(page, heirflow):
    for command, *arguments in commands(page):
        told = subprocess.run([heirflow, command, "--help"], capture_output=True, text=True, env=wrappers.clean_environment())
        assert told.returncode == 0, f"{page.name}: heirflow {command}\n{told.stderr}"
        for option in [word.split("=")[0] for word in arguments if word.startswith("--") and word != "--"]:
            assert option in told.stdout, f"{page.name}: heirflow {command} has no {option}"


def test_the_manual_of_operating_works_as_it_is_written(wrapper, database, heirflow):
    """Every command of it, in its order, on a group with the nodes that it names."""
    for node in ("node-a", "node-b"):
        wrapper(node, database=database)
        wait_for(lambda: database.query("select 1 from roster where node = %s", node), 30)
    wait_for(lambda: database.query("select 1 from news where event = 'scheduler-started'"), 30)
    manual = commands(ROOT / "docs" / "operating.md")
    assert {"switchover", "retire", "enlist", "pause", "resume", "lease", "status", "history", "audit"} <= {c[0] for c in manual}
    environment = wrappers.clean_environment(HEIRFLOW_POSTGRES=database.dsn, HEIRFLOW_GROUP="tests")
    for arguments in manual:
        if "--follow" in arguments or arguments[0] == "check":
            continue  # do not end by themselves, or look at this host: suites news and commands
        result = subprocess.run([heirflow, *arguments], capture_output=True, text=True, env=environment, timeout=60)
        assert result.returncode == 0, f"heirflow {' '.join(arguments)}\n{result.stdout}{result.stderr}"
