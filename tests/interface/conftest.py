"""The interface in a real terminal: tmux on a socket of its own, read by capture-pane."""
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
import uuid

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent)]
from group import Group  # noqa: E402
from processes import wait_for  # noqa: E402

GROUP = "tests"


class Terminal:
    """A shell in a tmux pane, in which the interface is started."""

    def __init__(self, folder, width=80, height=24, term="screen-256color"):
        self.socket = str(folder / f"tmux-{uuid.uuid4().hex[:8]}")
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color",
                       "TZ": "UTC", "PS1": "$ ", "SHELL": "/bin/sh"}
        self.environment = environment
        configuration = folder / "tmux.conf"
        configuration.write_text(f'set -g default-terminal "{term}"\nset -g status off\nset -g history-limit 200\n'
                                 "set -g escape-time 0\n")
        self.tmux("-f", str(configuration), "-u", "new-session", "-d", "-x", str(width), "-y", str(height),
                  "exec env PS1='$ ' sh")
        self.wait("$")

    def tmux(self, *arguments):
        return subprocess.run(["tmux", "-S", self.socket, *arguments], env=self.environment, check=True, timeout=20,
                              capture_output=True, text=True).stdout

    def text(self):
        return self.tmux("capture-pane", "-p")

    def lines(self):
        return self.text().split("\n")

    def colours(self):
        return self.tmux("capture-pane", "-p", "-e")

    def keys(self, *keys):
        self.tmux("send-keys", *keys)

    def type(self, line):
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def wait(self, *parts, without=(), timeout=20):
        """Until all parts are on the screen, and none of `without`."""
        shown = [""]

        def there():
            shown[0] = self.text()
            return all(part in shown[0] for part in parts) and not any(part in shown[0] for part in without)
        try:
            wait_for(there, timeout, interval=0.03)
        except Exception as problem:
            raise AssertionError(f"not on the screen: {parts} (or there: {without})\n{shown[0]}") from problem
        return shown[0]

    def pane(self, what):
        return self.tmux("display-message", "-p", f"#{{{what}}}").strip()

    def child(self):
        """Pid of the program that the pane's shell runs."""
        found = subprocess.run(["pgrep", "-P", self.pane("pane_pid")], capture_output=True, text=True).stdout.split()
        return int(found[0]) if found else None

    def modes(self):
        return subprocess.run(["stty", "-a", "-F", self.pane("pane_tty")], capture_output=True, text=True,
                              check=True).stdout

    def resize(self, width, height):
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    def close(self):
        try:
            self.tmux("kill-server")
        except subprocess.CalledProcessError:
            pass


@pytest.fixture
def terminal(folder):
    made = []

    def make(**options):
        made.append(Terminal(folder, **options))
        return made[-1]
    yield make
    for each in made:
        each.close()


@pytest.fixture
def interface(build):
    return str(build / "interface" / "heirflow-interface")


@pytest.fixture
def settings(folder):
    """settings(database, broker, **more) writes a configuration file and returns its path."""
    def write(database=None, broker=None, **more):
        configuration = {"group": GROUP, "node": "viewer", **more}
        if database is not None:
            configuration["postgres"] = getattr(database, "dsn", database)
        if broker is not None:
            configuration["rabbitmq"] = broker if isinstance(broker, dict) else {"url": broker.url,
                                                                                "exchange": broker.exchange}
        path = folder / f"viewer-{uuid.uuid4().hex[:6]}.json"
        path.write_text(json.dumps(configuration))
        path.chmod(0o600)
        return path
    return write


@pytest.fixture
def view(terminal, interface, settings):
    """view(database, broker) opens the interface in a terminal."""
    def open_view(database=None, broker=None, options="", environment="", configuration=None, **terminal_options):
        pane = terminal(**terminal_options)
        path = configuration or settings(database, broker)
        pane.before = pane.modes()
        pane.command = f"{environment} {shlex.quote(interface)} --config {path} {options}".strip()
        pane.type(pane.command)
        return pane
    return open_view


@pytest.fixture
def group(database):
    made = Group(database)
    for node in ("ada", "bob", "eve"):
        made.register(node)
    return made


class Exchange:
    """What a relay does: publishes to the group's exchange."""

    def __init__(self, broker):
        import pika
        self.broker, self.pika = broker, pika
        self.connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        self.channel = self.connection.channel()
        self.channel.exchange_declare(broker.exchange, "topic", durable=True)

    def publish(self, body, key=f"{GROUP}.acceded"):
        if isinstance(body, dict):
            body = json.dumps(body)
        self.channel.basic_publish(self.broker.exchange, key, body)

    def close(self):
        try:
            self.connection.close()
        except Exception:  # the broker may have been killed meanwhile
            pass


@pytest.fixture
def exchange():
    made = []

    def connect(broker):
        made.append(Exchange(broker))
        return made[-1]
    yield connect
    for each in made:
        each.close()


def event(sequence, word="acceded", node="ada", group=GROUP, **data):
    return {"specversion": "1.0", "id": str(uuid.uuid4()), "source": f"/heirflow/{group}/{node}", "type": f"heirflow.{word}",
            "subject": node, "time": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
            "datacontenttype": "application/json", "data": {"sequence": sequence, "term": 1, "reason": None, **data}}

