"""The manual pages and the completions for bash: what they hold, and that man and bash have nothing against them."""
import os
import pathlib
import re
import shutil
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def manual(build):
    return build / "docs/man"


def shown(page):
    """As a reader sees it, on a line as long as it takes."""
    done = subprocess.run(["man", "--warnings", "--local-file", str(page)], capture_output=True, text=True,
                          env=os.environ | {"MANWIDTH": "1000", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": "", "PAGER": "cat"})
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip()]


pytestmark = pytest.mark.skipif(not shutil.which("man"), reason="needs man-db")


def test_every_command_has_its_help_in_the_manual(manual, command):
    page = lines(shown(manual / "heirflow.1"))
    commands = re.findall(r"(?m)^  ([a-z]+) +\S", command("--help").stdout)
    assert len(commands) >= 15
    for name in commands:
        start = page.index(f"heirflow {name}") + 1
        wanted = lines(command(name, "--help").stdout)
        assert page[start:start + len(wanted)] == wanted


def test_interface_has_its_help_in_the_manual(manual, build):
    wanted = lines(subprocess.run([build / "interface/heirflow-interface", "--help"], capture_output=True, text=True).stdout)
    page = lines(shown(manual / "heirflow-interface.1"))
    assert not set(line.removeprefix("usage: ") for line in wanted[1:]) - set(page)


def test_every_key_is_in_the_manual(manual):
    """docs/configuration.md is compared with the program's own table by a unit test."""
    page = shown(manual / "heirflow.json.5")
    keys = re.findall(r"(?m)^### `(.+)`$", (SOURCE / "docs/configuration.md").read_text())
    assert len(keys) > 30
    for key in keys:
        assert re.search(rf"(?m)^ +{re.escape(key)}$", page), key
    text = re.sub(r"[`*]", "", (SOURCE / "docs/configuration.md").read_text().split("\n## Keys\n")[1])
    found = set(lines(page))
    assert not [line for line in lines(text) if not line.startswith("#") and line not in found]


def complete(file, *words):
    program = ("source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); $(complete -p \"$1\" | cut -d' ' -f3); "
               "printf '%s\\n' \"${COMPREPLY[@]}\"")
    done = subprocess.run(["bash", "-c", program, "bash", str(file), *words], capture_output=True, text=True, cwd=SOURCE)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.split()


def test_completion_of_commands_and_options(manual, command):
    file = manual / "heirflow"
    assert complete(file, "heirflow", "sw") == ["switchover"]
    assert complete(file, "heirflow", "help", "st") == ["status"]
    assert complete(file, "heirflow", "status", "--config", "README.m") == ["README.md"]
    for name in complete(file, "heirflow", ""):
        if not name.startswith("-"):
            options = re.findall(r"(?m)^  (--[a-z-]+)", command(name, "--help").stdout)
            assert complete(file, "heirflow", name, "--") == options
    assert complete(manual / "heirflow-interface", "heirflow-interface", "--re") == ["--record", "--replay"]
