"""Hosts on one machine: a network namespace and a cgroup each, on a bridge that leads nowhere else. Needs root.

The namespaces belong to processes that die with us, so nothing of the network outlives even a SIGKILL; a cgroup that was
left behind that way is removed by the next lab.
"""
import contextlib
import ctypes
import itertools
import os
import pathlib
import shutil
import subprocess

import processes
from processes import wait_for

CLONE_NEWNET = 0x40000000
PREFIX = "heirflow-lab-"
numbers = itertools.count(1)
libc = ctypes.CDLL(None, use_errno=True)

RULES = """table bridge wire {
    set cut { type ifname . ifname; }
    set lossy { type ifname; }
    chain forward {
        type filter hook forward priority 0; policy accept;
        iifname . oifname @cut drop
        iifname @lossy goto dice
        oifname @lossy goto dice
    }
    chain dice {
        numgen random mod 100 < 30 drop
        accept
    }
}
"""


def cgroup_root():
    """Our own cgroup v2 directory if cgroups can be made below it, else None."""
    own = next((line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::")), None)
    for line in open("/proc/self/mounts"):
        _, point, kind, options, *_ = line.split()
        if own is not None and kind == "cgroup2" and "rw" in options.split(","):
            root = pathlib.Path(point + own.rstrip("/"))
            if os.access(root, os.W_OK):
                return root
    return None


def missing():
    """What this machine lacks for a lab, or None."""
    if os.geteuid():
        return "needs root (network namespaces and cgroups)"
    for program, package in (("ip", "iproute2"), ("nft", "nftables")):
        if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            return f"needs {program}: apt-get install {package}"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        return "no network namespaces to be had here"
    if not cgroup_root():
        return "no writable cgroup v2 here"
    return None


class Namespace:
    """A network namespace, held by a process of its own."""

    def __init__(self):
        home = os.readlink("/proc/thread-self/ns/net")
        self.holder = subprocess.Popen(processes.dies_with_us(["unshare", "--net", "sleep", "infinity"]),
                                       stdin=subprocess.DEVNULL, start_new_session=True)
        self.path = f"/proc/{self.holder.pid}/ns/net"
        wait_for(lambda: os.readlink(self.path) != home, what="a network namespace")
        wait_for(lambda: processes.command_line(self.holder.pid)[0] == "sleep", what="its holder")

    @contextlib.contextmanager
    def inside(self):
        """What this thread connects or starts meanwhile is in the namespace."""
        home, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(self.path, os.O_RDONLY)
        try:
            if libc.setns(there, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            yield
        finally:
            if libc.setns(home, CLONE_NEWNET):
                raise SystemExit("cannot leave a network namespace")
            os.close(home)
            os.close(there)

    def tell(self, *command, input=None):
        done = subprocess.run(["nsenter", f"--net={self.path}", *command], input=input, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}\n{input or ''}"

    def ip(self, *lines):
        self.tell("ip", "-batch", "-", input="\n".join(lines) + "\n")

    def close(self):
        self.holder.kill()
        self.holder.wait()


class Host:
    def __init__(self, lab, name, number):
        self.lab, self.name, self.port = lab, name, f"v-{name}"
        self.address, self.mac = f"10.78.0.{number}", f"02:00:00:00:00:{number:02x}"
        self.namespace = Namespace()
        self.cgroup = lab.cgroup / name
        self.cgroup.mkdir()
        lab.switch.ip(f"link add {self.port} type veth peer name eth0 address {self.mac} netns {self.namespace.holder.pid}",
                      f"link set {self.port} master br0 up")
        self.namespace.ip("link set lo up", f"addr add {self.address}/24 dev eth0", "link set eth0 up",
                          f"neigh replace {lab.address} lladdr {lab.mac} dev eth0 nud permanent")

    @property
    def prefix(self):
        """Put before a command, it runs on this host, under the same pid."""
        return ["sh", "-c", f"echo $$ >{self.cgroup}/cgroup.procs && exec nsenter --net={self.namespace.path} \"$@\"", "sh"]

    def know(self, other):
        """Without ARP: a host that was cut off is found again at once."""
        self.namespace.ip(f"neigh replace {other.address} lladdr {other.mac} dev eth0 nud permanent")

    def plug(self, on):
        self.lab.switch.ip(f"link set {self.port} {'up' if on else 'down'}")

    def power_off(self):
        """The wire first, or the kernel would say goodbye for the killed."""
        self.plug(False)
        remove_cgroup(self.cgroup)  # newer kernels kill what is cloned into a cgroup that was killed before
        self.cgroup.mkdir()

    def freeze(self):
        (self.cgroup / "cgroup.freeze").write_text("1")
        self.wait_for("frozen 1")

    def thaw(self):
        (self.cgroup / "cgroup.freeze").write_text("0")

    def wait_for(self, state):
        wait_for(lambda: state in (self.cgroup / "cgroup.events").read_text(), 20, f"{state} of {self.name}")


class Lab:
    """host("ada") plugs a host into the bridge. The bridge itself, .switch, sees all of them whatever is cut."""

    address, mac = "10.78.0.1", "02:00:00:00:00:01"

    def __init__(self):
        root = cgroup_root()
        sweep(root)
        self.hosts = {}
        self.cgroup = root / f"{PREFIX}{os.getpid()}-{next(numbers)}"
        self.cgroup.mkdir()
        self.switch = Namespace()
        self.switch.ip("link set lo up", f"link add br0 address {self.mac} type bridge",
                       f"addr add {self.address}/24 dev br0",
                       "link set br0 up")
        self.nft(RULES)

    def nft(self, text):
        self.switch.tell("nft", "-f", "-", input=text)

    def host(self, name):
        made = Host(self, name, 11 + len(self.hosts))
        self.switch.ip(f"neigh replace {made.address} lladdr {made.mac} dev br0 nud permanent")
        for other in self.hosts.values():
            made.know(other)
            other.know(made)
        self.hosts[name] = made
        return made

    def cut(self, sources, targets):
        """Nothing gets from the sources to the targets any more; what goes the other way does."""
        pairs = [f'"v-{a}" . "v-{b}"' for a in sources for b in targets if a != b]
        self.nft(f"add element bridge wire cut {{ {', '.join(pairs)} }}\n")

    def isolate(self, names, direction="both"):
        """Cuts these hosts off from all others, not from each other. Direction: in, out or both."""
        others = [name for name in self.hosts if name not in names]
        if direction in ("in", "both"):
            self.cut(others, names)
        if direction in ("out", "both"):
            self.cut(names, others)

    def lose(self, names):
        """Three packets of ten of these hosts get lost, each way."""
        self.nft("add element bridge wire lossy { " + ", ".join(f'"v-{name}"' for name in names) + " }\n")

    def heal(self):
        self.nft("flush set bridge wire cut\nflush set bridge wire lossy\n")

    def remove(self):
        remove_cgroup(self.cgroup)
        for host in self.hosts.values():
            host.namespace.close()
        self.switch.close()


def remove_cgroup(path):
    (path / "cgroup.kill").write_text("1")
    wait_for(lambda: "populated 0" in (path / "cgroup.events").read_text(), 20, f"the processes of {path} gone")
    for folder, _, _ in os.walk(path, topdown=False):
        os.rmdir(folder)


def sweep(root):
    """Removes what a killed run left."""
    for path in root.glob(f"{PREFIX}*-*"):
        if not processes.alive(int(path.name.removeprefix(PREFIX).split("-")[0])):
            with contextlib.suppress(OSError):
                remove_cgroup(path)
