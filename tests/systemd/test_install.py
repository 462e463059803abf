"""docs/install.md, word by word, on machines that have nothing yet."""
import json
import re
import shutil

import pytest

import machines
from conftest import SOURCE
from processes import wait_for

MANUAL = SOURCE / "docs/install.md"


def blocks(section):
    """(what is said before, the indented block's text) of a section of the manual."""
    text = MANUAL.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found, said = [], ""
    for part in re.split(r"\n\n", text):
        if part.startswith("    "):
            found.append((said, "\n".join(line.removeprefix("    ") for line in part.splitlines())))
        else:
            said = part.strip()
    return found


@pytest.fixture
def network(lab, image, folder):
    """db1, node1 and node2, fresh."""
    made = {name: machines.Machine(lab.host(name), image, folder / name) for name in ("db1", "node1", "node2")}
    for machine in made.values():
        machine.know([other.host for other in made.values()])
        machine.boot(wait=False)
    for machine in made.values():
        machine.wait_until_up()
        machine("apt-get", "-qq", "update")
        (machine.root / "etc/apt/apt.conf.d/91yes").write_text('APT::Get::Assume-Yes "true";\n')
    yield made
    for machine in made.values():
        machine.remove()


def follow(network, section):
    """Does what the section says, where it says; returns what was printed, by command."""
    printed, names = {}, []
    for said, block in blocks(section):
        names = re.findall(r"\b(db1|node[12])\b", said.splitlines()[-1]) or names
        path = re.search(r"`(/etc/heirflow/\S+\.json)`:$", said)
        if path:
            for name in ("node1", "node2"):
                (network[name].root / path[1].lstrip("/")).write_text(block + "\n")
            names = ["node1", "node2"]
            continue
        assert names, said
        for line in block.splitlines():
            for name in names:
                printed[name, line] = network[name]("bash", "-c", line, timeout=300, env={"DEBIAN_FRONTEND": "noninteractive"}).stdout
    return printed


def status(machine):
    return json.loads(machine("heirflow", "status", "--config", "/etc/heirflow/demo.json", "--json").stdout)


def test_from_nothing_to_a_working_pair(network, packages):
    (_, command), = blocks("The packages")
    assert command == "provision/package"
    for path in packages.values():
        assert path.name in MANUAL.read_text()
        for name in ("node1", "node2"):
            shutil.copy(path, network[name].root / "root")
    follow(network, "The database")
    printed = follow(network, "The nodes")
    for name in ("node1", "node2"):
        report = printed[name, "heirflow check --config /etc/heirflow/demo.json"]
        assert "OK" in report and "BAD" not in report
    wait_for(lambda: status(network["node1"])["heir"] and len(status(network["node1"])["members"]) == 2, 60, "a first heir", 0.2)
    first = status(network["node1"])["heir"]["node"]
    wait_for(lambda: "running" in network[first].show("heirflow@demo", "StatusText"), 30, "its scheduler", 0.2)
    printed = follow(network, "See that it works")
    other, = {"node1", "node2"} - {first}
    assert f"{first} -> {other}" in printed["node2", "heirflow switchover --config /etc/heirflow/demo.json"]
    assert status(network["node1"])["heir"]["node"] == other
    assert "nobody" in network[other]("sh", "-c", "stat --format=%U /proc/$(pidof sleep)").stdout or \
        "nobody" in network[other]("find", "/proc", "-maxdepth", "1", "-user", "nobody", "-printf", "%u").stdout
    follow(network, "Upgrade and remove")
    assert network[other]("sh", "-c", "command -v heirflow", check=None).stdout == ""


def test_what_the_manual_says_of_the_unit_is_true(packages):
    """Scheduler needs are named by directives that the unit has."""
    unit = (SOURCE / "config/systemd/heirflow@.service").read_text()
    table = MANUAL.read_text().partition("| a scheduler or hook that | needs |")[2].partition("\n\n")[0]
    directives = set(re.findall(r"`(\w+)=", table))
    assert len(directives) >= 6
    for directive in directives:
        assert re.search(f"(?m)^{directive}=", unit), directive
