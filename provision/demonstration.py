"""The demonstration: three wrappers around `celery beat` on private servers. `provision/quickstart` starts it."""
import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import processes
import servers
from observer import Observer
from progress import patiently, say, step
from wrapper import Wrapper, clean_environment

HERE = pathlib.Path(__file__).resolve().parent
GROUP = "celery-beat"
NODES = ("ada", "bert", "cleo")
RESTART_S = 10
PYTHON = "/usr/bin/python3"


class Demonstration:
    def __init__(self, build, folder, lease_ms):
        self.build, self.folder, self.lease_ms = pathlib.Path(build), pathlib.Path(folder), lease_ms
        self.heirflow = str(self.build / "heirflow" / "heirflow")
        self.wrappers, self.pipes = {}, {}
        self.observer = Observer(self.folder)
        self.worker = None

    # -- servers and programs -----------------------------------------------------------------------------------------

    def start_servers(self):
        with step("Starting a private PostgreSQL"):
            self.postgres = servers.Postgres(self.folder / "postgres")
            self.postgres.start()
            self.postgres.psql("create database heirflow")
            self.dsn = self.postgres.dsn("heirflow")
            self.database = self.postgres.connect("heirflow")
            self.query("create table task_run (id uuid primary key, second bigint not null, node text not null, "
                       "term bigint not null, recorded_at timestamptz not null default clock_timestamp())")
        with step("Starting a private RabbitMQ (takes about ten seconds)"):
            self.rabbitmq = servers.RabbitMQ(self.folder / "rabbitmq")
            self.rabbitmq.start(wait=False)
            patiently(self.rabbitmq.answers, 120, lambda: f"RabbitMQ:\n{self.rabbitmq.log()[-2000:]}")
        with step("Creating the schema (heirflow migrate)"):
            done = subprocess.run([self.heirflow, "migrate"], env=clean_environment(HEIRFLOW_POSTGRES=self.dsn),
                                  capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"heirflow migrate failed:\n{done.stdout}{done.stderr}")

    def query(self, sql, *values):
        with self.database.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else None

    @property
    def celery_environment(self):
        return {"PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1", "C_FORCE_ROOT": "1",
                "DEMONSTRATION_BROKER": self.rabbitmq.url, "DEMONSTRATION_DATABASE": self.dsn}

    def start_worker(self):
        with step("Starting a Celery worker, which records every task it runs"):
            log_path = self.folder / "worker.log"
            with open(log_path, "ab") as log:
                self.worker = subprocess.Popen(
                    processes.dies_with_us([PYTHON, "-m", "celery", "--app", "demonstration_tasks", "worker", "--pool", "solo",
                                            "--loglevel", "info", "--without-gossip", "--without-mingle",
                                            "--without-heartbeat"]),
                    env=clean_environment(**self.celery_environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    cwd=self.folder, start_new_session=True)
            patiently(lambda: " ready." in log_path.read_text(errors="replace") or self.worker.poll() is not None, 60, "the worker")
            if self.worker.poll() is not None:
                raise RuntimeError(f"the Celery worker ended:\n{log_path.read_text(errors='replace')[-2000:]}")

    def beat(self, node):
        """The scheduler that there must be one of. Heirflow sees to that, so beat needs no pid file."""
        return [str(HERE / "observed-scheduler"), self.pipes[node],
                PYTHON, "-m", "celery", "--app", "demonstration_tasks", "beat", "--loglevel", "info", "--pidfile", "",
                "--schedule", "beat-schedule"]

    def configuration(self, node):
        return {"group": GROUP, "postgres": self.dsn, "lease_ms": self.lease_ms,
                "rabbitmq": {"url": self.rabbitmq.url},
                "scheduler": {"command": self.beat(node), "environment": self.celery_environment,
                              "directory": str(self.folder / node), "output": str(self.folder / node / "scheduler.log"),
                              "estate": ["beat-schedule", "beat-schedule.db"], "estate_interval_ms": 200}}

    def start_wrapper(self, node):
        if node not in self.wrappers:
            self.pipes[node] = self.observer.add(node)
            self.wrappers[node] = Wrapper(self.heirflow, self.folder / node, node, self.configuration(node))
        return self.wrappers[node].start()

    # -- what goes on -------------------------------------------------------------------------------------------------

    def status(self):
        return self.query("select heirflow.status(%s)", GROUP)[0][0] or {"heir": None, "members": []}

    def live(self):
        """Nodes in succession order."""
        return [member["node"] for member in self.status()["members"] if member["live"]]

    def heir(self):
        heir = self.status()["heir"]
        return heir and heir["node"]

    def tasks(self):
        """Runs, doubles and misses, and the seconds from the first to the last."""
        runs, seconds, first, last = self.query("select count(*), count(distinct second), min(second), max(second) from task_run")[0]
        span = last - first + 1 if runs else 0
        return runs, runs - seconds, span - seconds, span

    def logs(self):
        return "\n".join(f"--- {node}\n{wrapper.log()[-1500:]}" for node, wrapper in self.wrappers.items())

    def start(self):
        self.observer.start()
        self.start_servers()
        self.start_worker()
        with step(f"Starting the wrappers of {len(NODES)} nodes: {', '.join(NODES)}"):
            for number, node in enumerate(NODES, 1):
                self.start_wrapper(node)
                patiently(lambda: len(self.live()) == number, 30, lambda: f"{node} to register:\n{self.logs()}")
        with step(f"Waiting one lease ({self.lease_ms / 1000:g} s), as the first heir of a new group must"):
            patiently(self.observer.current, 60, lambda: f"a first scheduler:\n{self.logs()}")
        with step("Waiting for the first task to go from celery beat through RabbitMQ to the worker"):
            patiently(lambda: self.tasks()[0], 60, lambda: f"a first task:\n{self.logs()}")

    def stop(self):
        """Whatever happens: nothing that we started is left."""
        say("Stopping everything ... ", end="")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(Exception):
            for wrapper in self.wrappers.values():
                if wrapper.running():
                    wrapper.terminate()
            for wrapper in self.wrappers.values():
                wrapper.process.wait(5)
        keep = os.getpid()
        processes.end(lambda: processes.descendants(keep), 30)
        processes.reap_all()
        if self.observer.is_alive():
            self.observer.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        say("done.")


def show(demonstration):
    """The interface, until its user leaves it."""
    wrapper = demonstration.wrappers[demonstration.heir() or NODES[0]]
    say(f"""
{wrapper.node} is the heir. While you watch, try in another terminal:
  kill -9 {wrapper.pid:<8} its wrapper dies: the next node runs the scheduler at once
  kill -9 {wrapper.scheduler() or 0:<8} its scheduler dies: it runs again on the same node
  kill {wrapper.pid:<11} it hands over in peace
  HEIRFLOW_CONFIG={wrapper.config_path} {demonstration.heirflow} status
A wrapper that ended is started again after {RESTART_S} seconds, as systemd would.

Copy what you want to try, then press Enter to open the interface; q leaves it, and removes everything.""")
    sys.stdin.readline()
    interface = subprocess.Popen(
        [str(demonstration.build / "interface" / "heirflow-interface"), "--config", str(wrapper.config_path)],
        env=clean_environment(HEIRFLOW_CONFIG=str(wrapper.config_path)))
    ended = {}
    while interface.poll() is None:
        time.sleep(0.2)
        for node, wrapper in demonstration.wrappers.items():
            if not wrapper.running() and time.monotonic() - ended.setdefault(node, time.monotonic()) > RESTART_S:
                ended.pop(node)
                wrapper.start()
    runs, doubles, misses, span = demonstration.tasks()
    say(f"{len(demonstration.observer.lives)} schedulers one after the other, {len(demonstration.observer.overlaps)} at the same time; "
        f"{runs} task runs in {span} s, {doubles} doubles, {misses} misses")
    return 1 if demonstration.observer.overlaps or interface.returncode else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True, help="meson build folder")
    parser.add_argument("--folder", required=True, help="private folder, removed in the end")
    parser.add_argument("--lease-ms", type=int, default=6000)
    parser.add_argument("--drill", action="store_true", help="no interface: break things and measure")
    arguments = parser.parse_args()

    def interrupt(number, frame):
        raise KeyboardInterrupt
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    processes.become_subreaper()
    demonstration = Demonstration(arguments.build, arguments.folder, arguments.lease_ms)
    try:
        demonstration.start()
        if arguments.drill:
            from drill import drill
            return drill(demonstration)
        return show(demonstration)
    except KeyboardInterrupt:
        say("\nInterrupted.")
        return 130
    except (AssertionError, RuntimeError, OSError) as error:
        say(f"\n{error}")
        return 1
    finally:
        demonstration.stop()


if __name__ == "__main__":
    sys.exit(main())
