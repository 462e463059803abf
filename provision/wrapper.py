"""One node: `heirflow run` with a configuration and a run directory of its own, and the processes it starts."""
import json
import os
import pathlib
import re
import signal
import subprocess

import processes
from processes import wait_for


def clean_environment(**more):
    """The environment without settings of Heirflow or libpq that someone may have at home, and no file in /etc."""
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith(("HEIRFLOW_", "PG")) and key not in ("RUNTIME_DIRECTORY", "NOTIFY_SOCKET")}
    return kept | {"HEIRFLOW_CONFIG": str(pathlib.Path(__file__).parent / "no-configuration.json")} | more


def merge(base, more):
    merged = dict(base)
    for key, value in more.items():
        merged[key] = merge(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged


class Wrapper:
    """start() it, then kill(), terminate(), freeze() or power_off() it."""

    prefix = ()  # put before the command: enters another network namespace, for instance

    def __init__(self, program, folder, node, configuration, environment=None):
        self.program, self.node = program, node
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config_path, self.log_path = self.folder / "heirflow.json", self.folder / "log"
        self.configuration = merge({"node": node, "run_directory": str(self.folder / "run"), "http": {"listen": ""}}, configuration)
        self.environment = environment or {}
        self.process = None

    def start(self, *arguments):
        whole = self.config_path.with_suffix(".new")  # somebody may read it at this moment
        whole.write_text(json.dumps(self.configuration, indent=2))
        whole.chmod(0o600)  # it may hold a secret
        whole.replace(self.config_path)
        with open(self.log_path, "ab") as log:
            command = [self.program, "run", "--config", str(self.config_path), *arguments]
            self.process = subprocess.Popen([*self.prefix, *processes.dies_with_us(command)],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                            env=clean_environment(HEIRFLOW_CONFIG=str(self.config_path), **self.environment))
        return self

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def events(self):
        """The event word of every log line."""
        return re.findall(r"^\S+Z (?:debug|info|warn|error) (\S+)", self.log(), re.MULTILINE)

    def wait_for_event(self, event, timeout=20, count=1):
        wait_for(lambda: self.events().count(event) >= count, timeout, lambda: f"{event} of {self.node}:\n{self.log()}")

    def tree(self):
        return processes.descendants(self.pid)

    def keepers(self):
        return [pid for pid in self.tree() if "keeper" in processes.command_line(pid)[:3]]

    def keeper(self):
        """Pid of the first keeper process, or None."""
        return next(iter(self.keepers()), None)

    def scheduler(self):
        """Pid of the scheduler's main process: the first descendant of the keeper that is none itself; or None."""
        keepers = self.keepers()
        below = processes.descendants(keepers[0]) if keepers else []
        return next((pid for pid in below if pid not in keepers), None)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """SIGKILL to the wrapper alone."""
        self.process.kill()
        self.process.wait()

    def terminate(self):
        self.process.terminate()

    def wait(self, timeout=30):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"wrapper of {self.node} does not end:\n{self.log()}") from None

    def freeze(self):
        processes.send(self.pid, signal.SIGSTOP)

    def thaw(self):
        processes.send(self.pid, signal.SIGCONT)

    def power_off(self):
        """The whole node at once: nobody is left to write a last will. Returns when all of it is gone."""
        def stop_all():
            pids = [self.pid, *self.tree()]
            for pid in pids:
                processes.send(pid, signal.SIGSTOP)
            return pids
        pids = stop_all()
        while pids != (pids := stop_all()):
            pass
        for pid in pids[1:] + pids[:1]:
            processes.send(pid, signal.SIGKILL)
        self.process.wait()
        wait_for(lambda: not any(map(processes.alive, pids)), what=f"the processes of {self.node} to be gone")
