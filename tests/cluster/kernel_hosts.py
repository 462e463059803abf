"""Hosts with a Linux of their own, for what the kernel that all other hosts share may lack: NFS. It is User Mode Linux, which is
a process here; programs run at half their speed in it, and take thirty times as long to start."""
import shlex
import shutil
import subprocess

import machines
import processes
from cluster_hosts import PREINSTALLED, Node
from processes import wait_for

IMAGE = [*PREINSTALLED, "kmod", "udev", "python3-venv", "openssl", "jq"]  # the latter because it takes so long in there
NETWORK = "[Match]\nName=vec0\n[Network]\nAddress={}/24\n"
MODULES = "/usr/lib/uml/modules"
BOOTS_WITH = ["root=/dev/ubda", "rw", "con=null", "con0=null,fd:1", "systemd.log_level=warning"]


def missing():
    return None if shutil.which("linux.uml") else "needs linux.uml: apt-get install user-mode-linux"


class KernelNode(Node):
    memory = "1G"

    def __init__(self, cluster, host, folder):
        super().__init__(cluster, host, folder)
        self.disk = self.folder / "disk"
        units = self.root / "etc/systemd/system"
        for unit, wanted_by in (("systemd-networkd", "multi-user"), ("systemd-networkd-wait-online", "network-online")):
            (units / f"{unit}.service").unlink()
            (units / f"{wanted_by}.target.wants").mkdir(exist_ok=True)
            (units / f"{wanted_by}.target.wants" / f"{unit}.service").symlink_to(f"/lib/systemd/system/{unit}.service")
        (self.root / "etc/systemd/network/wire.network").write_text(NETWORK.format(self.address))

    def make_disk(self):
        """Of what is in the root folder, and with the folders of this machine that other hosts have as binds."""
        folders = [bind.split("=", 1)[1].split(":") for bind in self.binds if bind.startswith("--bind-ro=")]
        for _, place in folders:
            (self.root / place[1:]).mkdir(exist_ok=True)
        (self.root / "etc/fstab").write_text("".join(f"none {place} hostfs {folder},ro 0 0\n" for folder, place in folders))
        shutil.copytree(MODULES, self.root / "usr/lib/modules", dirs_exist_ok=True)
        machines.run("truncate", "--size=8G", self.disk)
        machines.run("mkfs.ext4", "-q", "-d", self.root, self.disk)

    def boot(self, wait=True):
        if not self.disk.exists():
            self.make_disk()
        self.host.namespace.ip("addr flush dev eth0")  # that address is the other kernel's
        with open(self.console, "ab") as console:
            self.process = subprocess.Popen(
                processes.dies_with_us([*self.host.prefix, "linux.uml", f"mem={self.memory}", f"ubd0={self.disk}", *BOOTS_WITH,
                                        f"vec0:transport=raw,ifname=eth0,mac={self.host.mac},gro=1"]),
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True)
        if wait:
            self.wait_until_up()
        return self

    def wait_until_up(self):
        """For people to log in; what else starts may take longer."""
        def lets_in():
            assert self.process.poll() is None, f"{self.name} did not boot:\n{self.log()}"
            return self.cluster.ssh(self.name, "true").returncode == 0
        wait_for(lets_in, 180, lambda: f"{self.name} to boot:\n{self.log()}", 1)

    def __call__(self, *command, check=0, timeout=60):
        """Over ssh: its processes are none of ours."""
        done = self.cluster.ssh(self.name, "timeout", str(timeout), "sudo", *map(shlex.quote, command))
        if check is not None:
            assert done.returncode == check, (f"{self.name}: {' '.join(command)}: exit status {done.returncode}\n"
                                              f"{done.stdout}\n{done.stderr}")
        return done
