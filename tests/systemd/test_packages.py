"""The Debian packages, `meson install` and `meson dist`: what is in them, and what their life on a machine is like."""
import filecmp
import json
import os
import re
import shutil
import subprocess

import pytest

import machines
from conftest import EPOCH, GROUP, SOURCE, UNIT, World

HAND_OVER = 1.0  # usually 0.05, and 2 would be the lease; the machine is small and shared
OLD = "0.0.1"


def test_same_sources_same_packages(packages, folder):
    """Built again elsewhere, at another time, by someone with other habits, from a tree without a repository."""
    tree = folder / "a tree"
    tree.mkdir()
    listed = machines.run("bash", "-c", ". provision/lib.sh && project_files", cwd=SOURCE)
    for name in listed.splitlines():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCE / name, tree / name)
    machines.run("sh", "-c", f"umask 002 && exec '{tree}/provision/package' --no-install --output '{folder}'",
                 env=os.environ | {"SOURCE_DATE_EPOCH": EPOCH, "TZ": "Asia/Tokyo", "LANG": "C", "TMPDIR": str(folder)})
    for path in packages.values():
        assert filecmp.cmp(path, folder / path.name, shallow=False), path.name
    assert len(packages) == 2


def test_lintian_finds_no_error(packages):
    if not shutil.which("lintian"):
        pytest.skip("needs lintian")
    done = subprocess.run(["lintian", "--allow-root", "--fail-on=error", *packages.values()], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_package_names_what_it_is_of(packages):
    assert machines.run("dpkg-deb", "--show", "--showformat=${Package}", packages["heirflow"]) == "heirflow"
    listed = machines.run("dpkg-deb", "--contents", packages["heirflow"])
    assert "./lib/systemd/system/heirflow@.service" in listed and "heirflow-interface" not in listed
    assert "./usr/bin/heirflow-interface" in machines.run("dpkg-deb", "--contents", packages["heirflow-interface"])


def test_meson_install_keeps_to_its_prefix(folder):
    machines.run("meson", "setup", folder / "build", SOURCE, "--prefix=/opt/heirflow")
    plan = json.loads(machines.run("meson", "introspect", "--installed", folder / "build"))
    assert plan and all(path.startswith("/opt/heirflow/") for path in plan.values())
    assert "ExecStart=/opt/heirflow/bin/heirflow run" in (folder / "build/heirflow@.service").read_text()


def test_meson_install_into_a_folder(build, folder):
    machines.run("meson", "install", "--no-rebuild", "-C", build, "--destdir", folder / "root")
    assert re.match(r"heirflow \d", machines.run(folder / "root/usr/local/bin/heirflow", "version"))
    assert (folder / "root/usr/local/lib/systemd/system/heirflow@.service").exists()


def test_tarball_builds_and_passes_its_tests(build, folder):
    if not (SOURCE / ".git").exists():
        pytest.skip("meson dist needs the repository")
    machines.run("meson", "setup", folder / "first", SOURCE)
    machines.run("meson", "dist", "-C", folder / "first", "--no-tests", "--allow-dirty", "--formats=gztar")
    tarball = next((folder / "first/meson-dist").glob("heirflow-*.tar.gz"))
    machines.run("tar", "-xf", tarball, "-C", folder)
    tree = folder / tarball.name.removesuffix(".tar.gz")
    machines.run("meson", "setup", folder / "second", tree, "-Dtests=true", "--buildtype=plain")
    targets = json.loads(machines.run("meson", "introspect", "--targets", folder / "second"))
    tests = [target["filename"][0] for target in targets if "/tests/unit/" in target["defined_in"] and target["type"] == "executable"]
    machines.run("ninja", "-C", folder / "second", *(os.path.relpath(path, folder / "second") for path in tests))
    assert len(tests) >= 10
    for path in tests:
        machines.run(path)


@pytest.fixture
def bare(lab, image, folder, build, heirflow, postgres_template):
    """Machines on which nothing of ours is installed, beside a database."""
    made = World(lab, image, None, folder, heirflow, postgres_template)
    made.start_postgres()
    yield made
    made.remove()


def add_machine(world, build, name):
    machine = world.machine(name)
    (machine.root / "usr/local/bin/witness").write_bytes((build / "tests/witness").read_bytes())
    (machine.root / "usr/local/bin/witness").chmod(0o755)
    machine.wait_until_up()
    machine("apt-get", "-qq", "update")
    return machine


def install(machine, *paths):
    for path in paths:
        shutil.copy(path, machine.root / "root")
    return machine("apt-get", "--yes", "install", *(f"./{path.name}" for path in paths), timeout=200,
                   env={"DEBIAN_FRONTEND": "noninteractive"})


def older(package, folder):
    """The package as if its version were an older one."""
    machines.run("dpkg-deb", "--raw-extract", package, folder / package.stem)
    control = folder / package.stem / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {OLD}", control.read_text()))
    target = folder / f"{package.name.split('_')[0]}_{OLD}_all.deb"
    machines.run("dpkg-deb", "--build", folder / package.stem, target)
    return target


def test_upgrade_is_one_hand_over_on_each_node(bare, build, packages, folder):
    old = older(packages["heirflow"], folder)
    ada, bert = add_machine(bare, build, "ada"), add_machine(bare, build, "bert")
    for machine in (ada, bert):
        install(machine, old)
        assert machine.show(UNIT, "ActiveState") == "inactive"  # what is to run, the administrator says
        machine("systemctl", "enable", "--now", UNIT)
        bare.until_runs("ada")
    bare.until_standby(bert)
    for machine, other in ((ada, bert), (bert, ada)):
        install(machine, packages["heirflow"])
        bare.until_runs(other.name)
        bare.until_standby(machine)
        assert "0.0.1" not in machine("dpkg-query", "--show", "heirflow").stdout
    assert [run.node for run in bare.witness.runs()] == ["ada", "bert", "ada"]
    assert not bare.witness.overlaps() and max(bare.witness.gaps()) < HAND_OVER
    print("gaps of the upgrade, ms:", *(round(gap * 1000) for gap in bare.witness.gaps()))
    events = [row[0] for row in bare.query("select event from news")]
    assert not {"deposed", "lost", "fenced"} & set(events) and events.count("left") == 2


def files(machine):
    """Every file but those in which Debian's tools keep their own books."""
    books = r"^/(var/(lib/(dpkg|apt|systemd)|cache|log/(apt|journal|dpkg.log|alternatives.log))|root|tmp|etc/machine-id)"
    return {line for line in machine("find", "/", "-xdev").stdout.splitlines() if not re.match(books, line)}


def test_remove_and_purge_leave_what_is_the_administrator_s(bare, build, packages):
    ada = add_machine(bare, build, "ada")
    ada("apt-get", "--yes", "install", "logrotate", *(name for name in machines.OFFERED if name.startswith("lib")), timeout=200)
    before = files(ada)
    install(ada, *packages.values())
    ada("systemctl", "enable", "--now", UNIT)
    bare.until_runs("ada")
    ada("apt-get", "--yes", "remove", "heirflow", timeout=100)
    assert "abdicated" in ada.journal(UNIT) and "left" in ada.journal(UNIT)
    assert ada.show(UNIT, "ActiveState") == "inactive"
    assert (ada.root / "etc/logrotate.d/heirflow").exists()  # a conffile stays until the purge
    ada("apt-get", "--yes", "purge", "heirflow", "heirflow-interface", timeout=100)
    assert files(ada) == before and (ada.root / f"etc/heirflow/{GROUP}.json").exists()
    assert ada("systemctl", "list-units", "--failed", "--no-legend").stdout == ""
