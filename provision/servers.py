"""Private PostgreSQL and RabbitMQ servers on free loopback ports, in folders of their own. They die with their starter."""
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess

import psycopg2

import processes
from processes import wait_for


def as_user(name, command, death_signal="SIGKILL"):
    """The command, run as that user when we are root, and ended when our process ends."""
    switch = ["--reuid", name, "--regid", name, "--init-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *switch, "--pdeathsig", death_signal, *command]


def private_folder(path, user):
    path.mkdir(mode=0o700)
    if os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)
    return path


class Server:
    """What both have in common: one process tree that can be frozen, thawed and killed."""

    process = None
    prefix = ()  # put before the command: enters another network namespace, for instance

    def running(self):
        return self.process is not None and self.process.poll() is None

    def tree(self):
        return [self.process.pid, *processes.descendants(self.process.pid)] if self.process else []

    def freeze(self):
        """Keeps accepting connections (the kernel does) and never answers."""
        previous = None
        while previous != (previous := self.tree()):
            for pid in previous:
                processes.send(pid, signal.SIGSTOP)

    def thaw(self):
        for pid in reversed(self.tree()):
            processes.send(pid, signal.SIGCONT)

    def kill(self):
        """Power loss."""
        if self.process:
            pids = self.tree()
            for pid in pids:
                processes.send(pid, signal.SIGSTOP)
            pids = list(dict.fromkeys(pids + self.tree()))
            for pid in pids:
                processes.send(pid, signal.SIGKILL)
            self.process.wait()
            wait_for(lambda: not any(map(processes.alive, pids)), what="the server's processes to be gone")
            self.process = None

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


class Postgres(Server):
    """One PostgreSQL server. Trusts everybody on loopback; see `hba` for other rules."""

    address = "127.0.0.1"
    settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "max_connections": "200",
                "shared_buffers": "16MB", "autovacuum": "off", "timezone": "UTC", "max_wal_size": "256MB",
                "dynamic_shared_memory_type": "mmap"}  # a killed server leaves nothing in /dev/shm

    def __init__(self, folder, template=None, **settings):
        self.folder = pathlib.Path(folder)
        self.data = self.folder / "data"
        self.log_path = self.folder / "log"
        self.settings = self.settings | settings
        self.port = processes.free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        if template:
            subprocess.run(["cp", "--archive", "--reflink=auto", template, self.data], check=True)
        else:
            self.initialise(self.data)

    @staticmethod
    def program(name):
        """Of the newest version installed, or of the one whose programs are in $HEIRFLOW_POSTGRES_BIN."""
        chosen = pathlib.Path(os.environ.get("HEIRFLOW_POSTGRES_BIN", "/nowhere")) / name
        if chosen.exists():
            return str(chosen)
        found = sorted(pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[-3]))
        return str(found[-1]) if found else name

    @property
    def version(self):
        """The major one."""
        return int((self.data / "PG_VERSION").read_text())

    @classmethod
    def initialise(cls, data):
        private_folder(data, "postgres")
        subprocess.run(as_user("postgres", [cls.program("initdb"), "--no-sync", "--username=postgres", "--auth=trust",
                                            "--encoding=UTF8", "--locale=C", f"--pgdata={data}"]),
                       check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self, wait=True):
        if self.running():
            return
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        options = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *as_user("postgres", [self.program("postgres"), "-D", str(self.data), "-p", str(self.port),
                                                     *options], "SIGQUIT")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True)
        if wait:
            wait_for(self.answers, 60, lambda: f"PostgreSQL on port {self.port}:\n{self.log()[-2000:]}")

    def answers(self):
        assert self.running(), f"PostgreSQL did not start:\n{self.log()[-2000:]}"
        try:
            self.connect("template1", connect_timeout=5).close()
            return True
        except psycopg2.OperationalError:
            return False

    def stop(self, how="fast"):
        """how: smart, fast or immediate."""
        if self.running():
            self.thaw()
            processes.send(self.process.pid, {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[how])
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process = None

    def restart(self, how="fast"):
        self.stop(how)
        self.start()

    def reload(self):
        processes.send(self.process.pid, signal.SIGHUP)

    def hba(self, *rules):
        """Replaces pg_hba.conf; without rules everybody on loopback is trusted again."""
        (self.data / "pg_hba.conf").write_text("\n".join(rules or ["host all all 127.0.0.1/32 trust",
                                                                   "host replication all 127.0.0.1/32 trust"]) + "\n")
        if self.running():
            self.reload()

    def dsn(self, database="postgres", **more):
        words = {"host": self.address, "port": self.port, "user": "postgres", "dbname": database} | more
        return " ".join(f"{key}={value}" for key, value in words.items())

    def connect(self, database="postgres", **more):
        connection = psycopg2.connect(self.dsn(database, **more))
        connection.autocommit = True
        return connection

    def psql(self, sql, *values, database="postgres"):
        """The rows of one statement, or None."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return cursor.fetchall() if cursor.description else None
        finally:
            connection.close()

    def remove(self):
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)


class RabbitMQ(Server):
    """One RabbitMQ broker with an epmd of its own."""

    address = "127.0.0.1"
    configuration = ""  # further lines for rabbitmq.conf

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.home = private_folder(self.folder / "home", "rabbitmq")
        self.log_path = self.folder / "log"
        self.port, self.dist_port, self.epmd_port = (processes.free_port() for _ in range(3))
        self.epmd = None

    @property
    def url(self):
        return f"amqp://guest:guest@{self.address}:{self.port}/"

    @property
    def environment(self):
        home = str(self.home)
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL") if key in os.environ}
        return kept | {
            "HOME": home, "RABBITMQ_NODENAME": f"heirflow{self.port}@localhost", "RABBITMQ_NODE_IP_ADDRESS": self.address,
            "RABBITMQ_NODE_PORT": str(self.port), "RABBITMQ_DIST_PORT": str(self.dist_port),
            "ERL_EPMD_PORT": str(self.epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia", "RABBITMQ_LOG_BASE": f"{home}/log", "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/plugins", "RABBITMQ_PID_FILE": f"{home}/pid",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null", "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq",
            "RABBITMQ_ALLOW_INPUT": "1",  # makes the script exec the emulator, so that our pid is the broker's
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def start(self, wait=True):
        if self.running():
            return
        user, environment = "rabbitmq", self.environment
        (self.home / "rabbitmq.conf").write_text("loopback_users = none\ndisk_free_limit.absolute = 1MB\n"
                                                 "log.console.level = warning\n" + self.configuration)
        (self.home / "plugins").write_text("[].\n")
        with open(self.log_path, "ab") as log:
            if not self.epmd or self.epmd.poll() is not None:
                self.epmd = subprocess.Popen(as_user(user, ["epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"]),
                                             env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
                wait_for(lambda: port_open(self.epmd_port), what="epmd")
            self.process = subprocess.Popen(
                [*self.prefix, *as_user(user, ["/usr/lib/rabbitmq/bin/rabbitmq-server"])],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True)
        if wait:
            wait_for(self.answers, 90, lambda: f"RabbitMQ on port {self.port}:\n{self.log()[-2000:]}", 0.05)

    def answers(self):
        assert self.running(), f"RabbitMQ did not start:\n{self.log()[-2000:]}"
        try:
            with socket.create_connection((self.address, self.port), 2) as connection:
                connection.settimeout(2)
                connection.sendall(b"AMQP\0\0\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def stop(self):
        if self.running():
            self.thaw()
            processes.send(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def rabbitmqctl(self, *arguments, check=True):
        """Slow (a second of CPU): an emulator of its own."""
        return subprocess.run(as_user("rabbitmq", ["/usr/lib/rabbitmq/bin/rabbitmqctl", *arguments]),
                              env=self.environment, cwd="/", check=check, capture_output=True, text=True)

    def remove(self):
        self.kill()
        if self.epmd:
            self.epmd.kill()
            self.epmd.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def port_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False
