"""What the next heir inherits: files copied, stored, put in place; and whatever is wrong with them stops no succession."""
import hashlib
import os
import pathlib
import signal
import subprocess
import time

import pytest

from conftest import wait_for

# Keeps a state file as schedulers do: reads it at its start, notes the term, writes it anew.
SCHEDULER = """
import os, signal, sys, time
path, quick = sys.argv[1], len(sys.argv) > 2
def write(text):
    with open(path + '.tmp', 'w') as file:
        file.write(text)
    os.replace(path + '.tmp', path)
def stop(*_):
    write(state + ' stopped')
    sys.exit()
signal.signal(signal.SIGTERM, stop)
state = (open(path).read() + ' ' if os.path.exists(path) else '') + 'term' + os.environ['HEIRFLOW_TERM']
write(state)
print('state:', state, flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def node(wrapper, database, folder):
    """node("ada"): a wrapper whose scheduler keeps its state in node.state, which is inherited."""
    def make(name, wait=True, start=True, script=SCHEDULER, **more):
        home = folder / name
        home.mkdir()
        home.chmod(0o777)
        scheduler = {"estate": [str(home / "state")], "estate_interval_ms": 200} | more.pop("scheduler", {})
        made = wrapper(name, database=database, command=["/usr/bin/python3", "-c", script, str(home / "state")],
                       scheduler=scheduler, start=start, **({"lease_ms": 2000} | more))
        made.home, made.state = home, home / "state"
        if start and wait:
            made.wait_for_event("standby")
        return made

    # every node has its own path here, as if of its own disk; to the group it is one
    def shared(name, **more):
        made = node_at(make, name, **more)
        return made
    return shared


def node_at(make, name, **more):
    return make(name, **more)


def news(database, event):
    return database.query("select node, reason, data from news where event = %s order by sequence", event)
