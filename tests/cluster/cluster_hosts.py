"""Hosts as their makers deliver them, with sshd and a user who may sudo, and the programs in provision/ that set them up."""
import contextlib
import os
import pathlib
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time

import pika
import psycopg2

import hosts
import machines
from processes import wait_for

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SYSTEM = os.environ.get("HEIRFLOW_TEST_CLUSTER_SYSTEM")  # codename of a Debian; None: that of this machine
FAILOVER = 18 if SYSTEM in (None, "bookworm") else 26  # of the primary database, as docs/deployment.md has it, seconds
PREINSTALLED = ["dbus", "iproute2", "openssh-server", "sudo", "procps", "python3-minimal"]
OFFERED = ["patroni", "python3-etcd", "etcd-server", "etcd-client", "rabbitmq-server", "haproxy", "keepalived", "socat", "openssl", "jq",
           "python3-venv"]


class Node(machines.Machine):
    """A host as its maker delivers it: sshd, and the user admin with our key."""

    def __init__(self, cluster, host, folder):
        super().__init__(host, cluster.image_of(host.name), folder, options=["--capability=CAP_NET_ADMIN"])
        self.cluster = cluster
        root = self.root
        for path in (root / "etc" / "ssh").glob("ssh_host_*"):
            path.unlink()
        machines.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / "etc" / "ssh" / "ssh_host_ed25519_key")
        machines.run("chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", "admin")
        (root / "etc" / "sudoers.d" / "admin").write_text("admin ALL=(ALL) NOPASSWD: ALL\n")
        keys = root / "home" / "admin" / ".ssh"
        keys.mkdir(mode=0o700)
        shutil.copy(cluster.key.with_suffix(".pub"), keys / "authorized_keys")
        entry = next(line.split(":") for line in (root / "etc" / "passwd").read_text().splitlines() if line.startswith("admin:"))
        for path in (keys, keys / "authorized_keys"):
            os.chown(path, int(entry[2]), int(entry[3]))
        self.know(cluster.lab.hosts.values())

    @property
    def address(self):
        return self.host.address

    def start(self):
        self.host.plug(True)
        self.boot()
        self.cluster.keep(self.process.pid, self.host.namespace.holder.pid)
        wait_for(lambda: self.cluster.ssh(self.name, "true").returncode == 0, 60, f"sshd of {self.name}")
        return self


class Cluster:
    """cluster.node("q1") is a fresh host; cluster("q_first", "q1") runs a program of provision/; see below for the rest."""
    more = {}  # settings beside those that are for all

    def __init__(self, image, folder, keep):
        self.image, self.folder, self.nodes, self.keep = image, folder, {}, keep
        folder.mkdir()
        self.lab = hosts.Lab()
        self.parameters = {}
        keep(self.lab.switch.holder.pid)
        self.state = folder / "state"
        self.key = folder / "key"
        machines.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        self.settings = folder / "provision.config"
        (folder / "known_hosts").touch()

    def image_of(self, _):
        """What a host of that name boots from."""
        return self.image

    def kind_of(self, _):
        return Node

    def node(self, name):
        """A new host, or one with a new disk."""
        known = self.lab.hosts.get(name) or self.lab.host(name)
        if name in self.nodes:
            self.nodes[name].remove()
        self.write_settings()
        folder = self.folder / f"{name}-{len(list(self.folder.glob(name + '-*')))}"
        self.nodes[name] = self.kind_of(name)(self, known, folder).start()
        return self.nodes[name]

    def write_settings(self, **more):
        lines = [f"Host {host.name}\n  HostName {host.address}\n" for host in self.lab.hosts.values()]
        (self.folder / "ssh_config").write_text("".join(lines))
        settings = {"STATE": self.state, "SSH_KEY": self.key, "FLOATING_ADDRESS": f"{self.floating}/24",
                    "SSH_OPTIONS": f"-F {self.folder}/ssh_config -o UserKnownHostsFile={self.folder}/known_hosts"} | self.more | more
        self.settings.write_text((SOURCE / "config" / "provision.config").read_text() +
                                 "".join(f"{name}='{value}'\n" for name, value in settings.items()))

    floating = "10.78.0.200"

    def forget_keys(self, name):
        """As `ssh-keygen -R` does, for a host that was made anew."""
        path = self.folder / "known_hosts"
        path.write_text("".join(line for line in path.open() if not line.startswith((f"{name},", f"{name} ",
                                                                                     f"{self.lab.hosts[name].address} "))))

    def ssh(self, name, *command, input=None):
        return subprocess.run(["nsenter", f"--net={self.lab.switch.path}", "ssh", "-F", self.folder / "ssh_config", "-i", self.key,
                               "-o", "BatchMode=yes", "-o", "ConnectTimeout=3", "-o", "StrictHostKeyChecking=no",
                               "-o", "UserKnownHostsFile=/dev/null", "-l", "admin", name, *command], input=input, capture_output=True, text=True)

    def begin(self, program, *arguments, **how):
        """As __call__, without waiting."""
        command = ["nsenter", f"--net={self.lab.switch.path}", SOURCE / "provision" / program, *arguments]
        return subprocess.Popen(command, env=os.environ | {"HEIRFLOW_PROVISION_CONFIG": str(self.settings)}, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how)

    def __call__(self, program, *arguments, expect=0, timeout=900):
        process = self.begin(program, *arguments)
        output, _ = process.communicate(timeout=timeout)
        print(f"$ provision/{program} {' '.join(arguments)}\n{output}", file=sys.stderr)
        assert expect is None or process.returncode == expect, f"provision/{program} {' '.join(arguments)}: {process.returncode}\n{output}"
        return output

    def interrupt(self, seconds, program, *arguments):
        """Begins it, and ends it after that time, wherever it is."""
        print(f"provision/{program} {' '.join(arguments)}, interrupted after {seconds:.3f} s", file=sys.stderr)
        process = self.begin(program, *arguments)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)

    def wait_until_fine(self, *names, timeout=120):
        def told():
            self.told, _ = self.begin("status", *names).communicate(timeout=120)
            return " BAD " not in self.told and "fine" in self.told
        wait_for(told, timeout, lambda: f"everything fine:\n{self.told}", 1)
        return self.told

    def secret(self, name):
        return dict(line.split("=", 1) for line in (self.state / "secrets").read_text().splitlines())[name]

    def bash(self, line):
        return subprocess.run(["bash", "-euc", f". {SOURCE}/provision/lib.sh; read_settings; {line}"], text=True, check=True,
                              capture_output=True, env=os.environ | {"HEIRFLOW_PROVISION_CONFIG": str(self.settings)}).stdout.strip()

    # -- the database

    def connect(self, user="airflow", secret="DB_PASSWORD", inside=None, **more):
        """As clients do, from the bridge or from within a host's network."""
        known = (self.state / "hosts").read_text()
        if self.parameters.get("hosts") != known:  # asked once: the shell takes its time, and a writer measures
            words = self.bash("libpq_connection somebody").split()
            self.parameters = {"hosts": known, "libpq": dict(word.split("=", 1) for word in words)}
        parameters = self.parameters["libpq"] | {
            "user": user, "password": self.secret(secret), "sslrootcert": str(self.state / "ca" / "ca.crt"),
            "connect_timeout": "3", "tcp_user_timeout": "2000"} | more
        with (inside or self.lab.switch).inside():
            connection = psycopg2.connect(**parameters)
        connection.autocommit = True
        return connection

    def leader(self):
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("select host(inet_server_addr())")
            [address] = cursor.fetchone()
        return next(node for node in self.nodes.values() if node.address == address)

    # -- the brokers

    def broker(self, name, user="airflow", secret="QUEUE_PASSWORD", vhost="airflow", address=None):
        context = ssl.create_default_context(cafile=self.state / "ca" / "ca.crt")
        address = address or self.lab.hosts[name].address
        with self.lab.switch.inside():
            return pika.BlockingConnection(pika.ConnectionParameters(
                address, 5671, vhost, pika.PlainCredentials(user, self.secret(secret)), heartbeat=0, socket_timeout=5,
                blocked_connection_timeout=20, ssl_options=pika.SSLOptions(context, address)))

    def remove(self):
        for node in self.nodes.values():
            node.remove()
        self.lab.remove()


class Writer(threading.Thread):
    """Commits numbers for ever, connecting anew where it has to; remembers which were acknowledged, and the longest gap."""

    def __init__(self, cluster, **more):
        super().__init__(daemon=True)
        self.cluster, self.more = cluster, more
        self.acknowledged, self.gap, self.enough, self.last = [], 0.0, threading.Event(), time.monotonic()
        with contextlib.closing(cluster.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("drop table if exists numbers; create table numbers (n bigint)")

    def run(self):
        connection, n = None, 0
        while not self.enough.is_set():
            try:
                connection = connection or self.cluster.connect(**self.more)
                n += 1
                connection.cursor().execute("insert into numbers values (%s)", [n])
            except psycopg2.Error:
                if connection:
                    connection.close()
                connection = None
                time.sleep(0.1)
                continue
            now = time.monotonic()
            self.gap, self.last = max(self.gap, now - self.last), now
            self.acknowledged.append(n)
            time.sleep(0.02)

    def has_written_for(self, seconds):
        """Commits without a longer gap than a second for that long."""
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            time.sleep(0.1)
            if time.monotonic() - self.last > 1:
                start = time.monotonic()
        return True

    def end(self):
        """Returns the longest gap; all that was acknowledged has to be there."""
        self.enough.set()
        self.join(60)
        with contextlib.closing(self.cluster.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("select n from numbers")
            lost = set(self.acknowledged) - {n for [n] in cursor.fetchall()}
        assert self.acknowledged and not lost, f"{len(lost)} acknowledged commits are lost"
        return self.gap
