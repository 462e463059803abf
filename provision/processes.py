"""Processes of the machine: who descends from whom, how to end them, how to wait for something. Starts nothing."""
import ctypes
import os
import signal
import socket
import time

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper():
    """Orphans of ours come to us, not to init, so that nothing a test started can escape."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def dies_with_us(command, signal_name="SIGKILL"):
    """The command, ended by the kernel when the thread that starts it ends."""
    return ["setpriv", "--pdeathsig", signal_name, *command]


def parents():
    """{pid: parent pid} of every process but zombies."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except OSError:
                continue
            if state != b"Z":
                found[int(entry)] = int(parent)
    return found


def descendants(root, table=None):
    """Pids below root, parents before their children."""
    table = parents() if table is None else table
    children = {}
    for pid, parent in table.items():
        children.setdefault(parent, []).append(pid)
    found, queue = [], list(children.get(root, []))
    while queue:
        pid = queue.pop(0)
        found.append(pid)
        queue += children.get(pid, [])
    return found


def alive(pid):
    """True unless the process is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().rstrip(b"\0").decode(errors="replace").split("\0")
    except OSError:
        return []


def send(pid, number):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def reap(pid):
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def reap_all():
    """Every dead child, adopted ones included; only once nobody waits for a child of ours any more."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def end(find, timeout=10):
    """SIGKILL for everything find() returns, until it returns nothing."""
    deadline = time.monotonic() + timeout
    while True:
        pids = find()
        if not pids:
            return
        for pid in pids:
            send(pid, signal.SIGKILL)
        for pid in pids:
            reap(pid)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {pids} do not die")
        time.sleep(0.005)


def wait_for(condition, timeout=10, what=None, interval=0.01):
    """Returns the first true value of condition(), or fails naming what was waited for."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            name = what() if callable(what) else what
            raise AssertionError(f"not within {timeout} s: {name or getattr(condition, '__name__', condition)}; last: {value!r}")
        time.sleep(interval)


reservations = []  # sockets that hold a port's name until this process ends


def free_port():
    """A loopback port that nobody else who asks here is given while this process lives, even when its server is down.

    Outside the range from which the kernel serves outgoing connections. The reservation is an abstract Unix socket, which
    leaves no file behind.
    """
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        low, high = map(int, file.read().split())
    while True:
        port = 10000 + int.from_bytes(os.urandom(2), "little") % 50000
        if low <= port <= high:
            continue
        name = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            try:
                name.bind(f"\0heirflow-port-{port}")
                probe.bind(("127.0.0.1", port))
            except OSError:
                name.close()
                continue
        reservations.append(name)
        return port
