"""Fixtures of the keeper's tests."""
import ctypes
import json
import os
import pathlib
import pwd
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from driver import Driver, leaves  # noqa: E402
from processes import wait_for  # noqa: E402

CONTAINMENTS = ["namespace", "user namespace", "cgroup", "subreaper"]


def become_nobody():
    user = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)


@pytest.fixture(scope="session")
def driver_program(build, worker_folder):
    """The driver where every user may execute it."""
    path = worker_folder / "keeper_driver"
    shutil.copy(build / "tests" / "keeper" / "keeper_driver", path)
    path.chmod(0o755)
    return str(path)


LIBC = ctypes.CDLL(None, use_errno=True)
PR_CAPBSET_DROP, CAP_SYS_ADMIN, CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 24, 21, 0x20000, 0x1000, 0x4000, 1 << 18


def lose_privileges():
    """As root in a container: there is no capability to make namespaces."""
    assert LIBC.prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0) == 0


def become_nobody_with_masked_proc():
    """As any user in a container: there are user namespaces, but in them no /proc can be mounted."""
    assert LIBC.unshare(CLONE_NEWNS) == 0
    assert LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0
    assert LIBC.mount(b"/proc/sys", b"/proc/sys", None, MS_BIND, None) == 0
    become_nobody()


def missing(containment):
    """Why this machine has no such containment, or None. A chroot has no user namespaces, a container often no cgroups."""
    if containment == "user namespace" and subprocess.run(["unshare", "--user", "true"], preexec_fn=become_nobody,
                                                          capture_output=True).returncode:
        return "no unprivileged user namespaces here"
    if containment == "cgroup":
        mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
        if not any(words[2] == "cgroup2" and "rw" in words[3].split(",") for words in mounts):
            return "no writable cgroup v2 here"
    return None


@pytest.fixture(params=CONTAINMENTS)
def containment(request):
    why = missing(request.param)
    if why:
        pytest.skip(why)
    return request.param


@pytest.fixture
def drive(driver_program, folder):
    """drive(containment, command, **spec) starts a driver with one keeper."""
    folder.chmod(0o1777)

    def arguments(containment, environment):
        environment = dict(environment or {})
        if containment in ("cgroup", "subreaper"):
            environment["HEIRFLOW_CONTAINMENT"] = containment
        return environment, become_nobody if containment == "user namespace" else None

    def start(containment, command, environ=None, prepare=None, **spec):
        environment, preexec = arguments(containment, environ)
        spec = {"run_directory": str(folder / "run"), "command": [str(word) for word in command]} | spec
        drivers.append(Driver(driver_program, ["run", json.dumps(spec)], environment, prepare or preexec))
        return drivers[-1]

    drivers = []
    yield start
    for driver in drivers:
        driver.kill()
    for seat in {event["seat"] for driver in drivers for event in driver.seen("seat")}:
        wait_for(lambda: not any([remains(leaf) for leaf in leaves(seat)]), 20, f"the cgroup of seat {seat} to be empty")


def remains(leaf):
    """Where a test killed or froze the keeper nobody else is left to remove it."""
    try:
        (leaf / "cgroup.kill").write_text("1")
        leaf.rmdir()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
