"""Hosts of the lab (hosts.py) that are whole machines: a Debian of their own, booted by its own systemd. Needs root.

The image is built once and kept below ${XDG_CACHE_HOME:-/var/cache}/heirflow-tests; machines boot from overlays of it.
"""
import contextlib
import ctypes
import fcntl
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import uuid

import hosts
import processes
from processes import wait_for

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PREINSTALLED = ["systemd", "systemd-sysv"]
# beside what a folder `packages` offers: what docs/install.md installs, and what the program's package depends on
OFFERED = ["postgresql", "logrotate", "libpq5", "librabbitmq4", "libjansson4", "libuv1", "libmicrohttpd12", "libncursesw6"]
SILENT = ["apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer", "console-getty.service",
          "systemd-networkd.service", "systemd-resolved.service", "systemd-networkd-wait-online.service"]


def missing():
    """What this host lacks for booting machines, or None."""
    lacking = hosts.missing()
    if lacking:
        return lacking
    for program, package in (("systemd-nspawn", "systemd-container"), ("mmdebstrap", "mmdebstrap"), ("setpriv", "util-linux")):
        if not shutil.which(program):
            return f"needs {program}: apt-get install {package}"
    if subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode:
        return "mounts are not allowed here"
    return None


def cache():
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "heirflow-tests"


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def mount_for_ourselves():
    """Mounts of this thread and its children are seen by nobody else, and end with them even after a SIGKILL."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "unshare")


class Image:
    """`base`, a Debian (of the kind we run on, unless told otherwise) that boots and has only what is preinstalled;
    `repository`, a folder of packages for it."""

    def __init__(self, preinstalled=(), offered=(), codename=None):
        own = platform.freedesktop_os_release().get("VERSION_CODENAME", "bookworm")
        self.codename, self.is_own_kind = codename or own, codename in (None, own)
        self.preinstalled, self.offered = [*PREINSTALLED, *preinstalled], [*OFFERED, *offered]
        ours = run("dpkg-query", "--show", *(name for name in OFFERED if name.startswith("lib")))  # what builds here asks for
        recipe = repr((self.codename, self.preinstalled, self.offered, SILENT, ours))
        self.folder = cache() / f"{self.codename}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
        self.base, self.repository = self.folder / "base", self.folder / "repository"

    def build(self):
        """Takes a minute or two the first time; one process builds, others wait for it."""
        cache().mkdir(parents=True, exist_ok=True)
        with open(cache() / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.folder.exists():
                return self
            making = self.folder.with_name(f"{self.folder.name}.new")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            self.make_base(making / "base")
            self.make_repository(making / "base", making / "repository")
            self.cut_off(making / "base")
            making.rename(self.folder)
        return self

    def make_base(self, base):
        run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(self.preinstalled)}",
            "--aptopt=Acquire::Retries \"3\"", self.codename, base, *([] if self.is_own_kind else [own_mirror()]))
        for unit in SILENT:
            (base / "etc/systemd/system" / unit).symlink_to("/dev/null")
        (base / "etc/machine-id").write_text("")
        shutil.rmtree(base / "var/log/journal", ignore_errors=True)

    def cut_off(self, base):
        """From now on its packages come from the repository."""
        shutil.rmtree(base / "var/lib/apt/lists", ignore_errors=True)
        for sources in [base / "etc/apt/sources.list", *(base / "etc/apt/sources.list.d").iterdir()]:
            sources.unlink(missing_ok=True)
        (base / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/repository ./\n")
        (base / "etc/dpkg/dpkg.cfg.d/tests").write_text("force-unsafe-io\n")  # a machine here does not outlive its test
        (base / "etc/apt/apt.conf.d/90tests").write_text('Acquire::Languages "none";\nAPT::Sandbox::User "root";\n'
                                                         'APT::Install-Recommends "false";\n')

    def make_repository(self, base, repository):
        """What our own apt-get would fetch if it were that base."""
        (repository / "partial").mkdir(parents=True)
        options = ["-qq", "-o", "Debug::NoLocking=1"]
        if not self.is_own_kind:
            options += ["-o", f"Dir::Etc::sourcelist={base}/etc/apt/sources.list", "-o", f"Dir::State::lists={base}/var/lib/apt/lists",
                        "-o", f"Dir::Etc::sourceparts={base}/etc/apt/sources.list.d", "-o", "Dir::Cache::pkgcache=",
                        "-o", "Dir::Cache::srcpkgcache="]
        subprocess.run(["apt-get", *options, "update"], capture_output=True)  # those lists that are there will do
        run("apt-get", *options, "--yes", "--download-only", "--no-install-recommends",
            "-o", f"Dir::State::status={base}/var/lib/dpkg/status", "-o", f"Dir::Cache::archives={repository}",
            "-o", "APT::Sandbox::User=root", "install", *self.offered)
        (repository / "partial").rmdir()
        index(repository)


def own_mirror():
    """Where our own packages come from."""
    return run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages").split()[0]


def index(repository):
    """Makes a folder of packages one that apt can install from."""
    (repository / "Packages").write_text(run("dpkg-scanpackages", "--multiversion", ".", "/dev/null", cwd=repository))


class Machine:
    """A host of the lab with a systemd of its own; machine("systemctl", "status") runs a command on it."""

    def __init__(self, host, image, folder, layers=(), binds=(), options=()):
        self.host, self.name, self.folder = host, host.name, pathlib.Path(folder)
        self.root, self.console = self.folder / "root", self.folder / "console"
        self.binds = [f"--bind-ro={image.repository}:/repository", *(f"--bind={path}" for path in binds), *options]
        self.process = None
        for name in ("root", "upper", "work"):
            (self.folder / name).mkdir(parents=True)
        lower = ":".join(map(str, [*layers, image.base]))
        run("mount", "-t", "overlay", "overlay", "-o",
            f"lowerdir={lower},upperdir={self.folder}/upper,workdir={self.folder}/work", self.root)
        (self.root / "etc/hostname").write_text(f"{self.name}\n")
        (self.root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")

    def know(self, hosts):
        lines = ["127.0.0.1 localhost", *(f"{host.address} {host.name}" for host in hosts)]
        (self.root / "etc/hosts").write_text("\n".join(lines) + "\n")

    def boot(self, wait=True):
        environment = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_LOG_LEVEL": "warning"}
        command = ["systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine={self.name}", "--boot",
                   "--register=no", "--keep-unit", f"--network-namespace-path={self.host.namespace.path}",
                   "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe", *self.binds]
        with open(self.console, "ab") as console:
            self.process = subprocess.Popen(
                processes.dies_with_us(["sh", "-c", f"echo $$ >{self.host.cgroup}/cgroup.procs && exec \"$@\"", "sh", *command]),
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environment, start_new_session=True)
        if wait:
            self.wait_until_up()
        return self

    def wait_until_up(self):
        wait_for(lambda: self.leader() and self("systemctl", "is-system-running", check=None).stdout.strip()
                 in ("running", "degraded"), 60, lambda: f"{self.name} to boot:\n{self.log()}", 0.05)

    def leader(self):
        """Its process 1, as we see it."""
        assert self.process.poll() is None, f"{self.name} did not boot:\n{self.log()}"
        below = processes.descendants(self.process.pid)
        return next((pid for pid in below if processes.command_line(pid)[:1] in (["/lib/systemd/systemd"],
                                                                                 ["/usr/lib/systemd/systemd"])), None)

    def log(self):
        return self.console.read_text(errors="replace")[-3000:] if self.console.exists() else ""

    def __call__(self, *command, check=0, timeout=60, input=None, env=None):
        """Runs a command as root on the machine; check=None takes any exit status."""
        variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
                     "LANG": "C.UTF-8"} | (env or {})
        done = subprocess.run(["nsenter", f"--target={self.leader()}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
                               "--root", "sh", "-c", 'cd /root && exec "$@"', "sh", *command], env=variables, input=input or "", capture_output=True,
                              text=True, timeout=timeout)
        if check is not None:
            assert done.returncode == check, (f"{self.name}: {' '.join(command)}: exit status {done.returncode}\n"
                                              f"{done.stdout}\n{done.stderr}")
        return done

    def journal(self, unit):
        return self("journalctl", "--no-pager", f"--unit={unit}", check=None).stdout

    def show(self, unit, *names):
        """Properties of a unit: one value, or several."""
        text = self("systemctl", "show", unit, *(f"--property={name}" for name in names)).stdout
        found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        values = [found.get(name, "") for name in names]
        return values[0] if len(values) == 1 else values

    def our_pid(self, pid):
        """Our number of a process that has that number on the machine."""
        for candidate in processes.descendants(self.leader()):
            with contextlib.suppress(OSError):
                for line in open(f"/proc/{candidate}/status"):
                    if line.startswith("NSpid:") and line.split()[2:3] == [str(pid)]:
                        return candidate
        raise AssertionError(f"{self.name} has no process {pid}")

    def reboot(self):
        """As `systemctl reboot` does: everything stops in order, then the machine comes up again."""
        self("systemctl", "--no-block", "reboot")
        status = self.process.wait(90)
        assert status == 133, f"{self.name} did not shut down: {status}\n{self.log()}"  # nspawn's word for it
        self.boot()

    def power_off(self):
        self.host.power_off()
        self.process.wait()

    def remove(self):
        if self.process and self.process.poll() is None:
            self.power_off()
        run("umount", self.root)
        shutil.rmtree(self.folder, ignore_errors=True)
