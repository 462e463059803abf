"""Says on standard error what goes on, so that nobody wonders during a long step."""
import contextlib
import sys
import time

from processes import wait_for


def say(*words, end="\n"):
    with contextlib.suppress(OSError):  # a closed terminal is no reason to leave servers behind
        print(*words, end=end, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(what):
    """Says that something goes on, and how long it took."""
    started = time.monotonic()
    say(f"{what} ... ", end="")
    yield
    say(f"done ({time.monotonic() - started:.1f} s)")


def patiently(condition, timeout, what):
    """wait_for with a dot each second; an error that says what was waited for."""
    started, dots = time.monotonic(), [0]

    def asked():
        if time.monotonic() - started > dots[0] + 1:
            dots[0] += 1
            say(".", end="")
        return condition()
    return wait_for(asked, timeout, what)
