"""One RabbitMQ for all workers of a test run: the first that needs it starts a process that holds it."""
import json
import os
import pathlib
import select
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent / "provision"))
import processes  # noqa: E402
from processes import wait_for  # noqa: E402
from servers import RabbitMQ  # noqa: E402


def hold(folder, owner):
    """A broker for all workers of one test run: lives until the process `owner` is gone or we are told to end."""
    end_of_owner = os.pidfd_open(owner)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    processes.become_subreaper()
    broker = RabbitMQ(folder / "broker")
    try:
        broker.start()
        answer = folder / "answer.new"
        answer.write_text(json.dumps({"port": broker.port, "dist_port": broker.dist_port, "epmd_port": broker.epmd_port}))
        answer.rename(folder / "answer")
        select.select([end_of_owner], [], [])
    finally:
        broker.remove()
        processes.end(lambda: processes.descendants(os.getpid()))
        processes.reap_all()


class SharedBroker(RabbitMQ):
    """The view of a worker on the broker that hold keeps: it may be used, not stopped."""

    def __init__(self, folder, port, dist_port, epmd_port):
        self.home = folder / "broker" / "home"
        self.log_path = folder / "broker" / "log"
        self.port, self.dist_port, self.epmd_port = port, dist_port, epmd_port

    def start(self, wait=True):
        raise AssertionError("this broker is shared with other tests; use own_rabbitmq to break one")

    stop = kill = freeze = thaw = remove = start


def attend(folder, owner):
    """Starts the holder if nobody has yet (call under a lock), and waits for its broker."""
    answer = folder / "answer"
    if not (folder / "pid").exists():
        with open(folder / "holder.log", "ab") as log:
            holder = subprocess.Popen([sys.executable, __file__, str(folder), str(owner)],
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        (folder / "pid").write_text(str(holder.pid))
    pid = int((folder / "pid").read_text())
    wait_for(lambda: answer.exists() or not processes.alive(pid), 90, "the shared RabbitMQ")
    assert answer.exists(), f"no RabbitMQ:\n{(folder / 'holder.log').read_text()}"
    return SharedBroker(folder, **json.loads(answer.read_text())), pid


if __name__ == "__main__":
    hold(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
