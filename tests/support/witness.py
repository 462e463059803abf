"""Reads what the witnesses (witness.c) wrote: runs, overlaps and gaps of schedulers."""
import dataclasses
import pathlib


@dataclasses.dataclass
class Run:
    """One start of a scheduler with all its processes; times in seconds of CLOCK_BOOTTIME."""

    run: str
    node: str
    term: str
    start: float
    end: float
    roles: dict  # role: (first, last, pid)

    @property
    def key(self):
        return (self.node, self.term, self.run)


class Witness:
    """A folder of witnesses. `command()` is the scheduler command to configure."""

    def __init__(self, program, folder):
        self.program, self.folder = program, pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o1777)

    def command(self, *options):
        return [str(self.program), str(self.folder), *options]

    def lines(self):
        for path in self.folder.iterdir():
            for line in path.read_text().splitlines():
                words = line.split()
                if len(words) == 6:
                    yield int(words[0]) / 1e9, int(words[1]), words[2], words[3], words[4], words[5]

    def runs(self):
        """Every run in the order of their starts."""
        runs = {}
        for at, pid, node, term, role, run in self.lines():
            entry = runs.setdefault(run, Run(run, node, term, at, at, {}))
            entry.start, entry.end = min(entry.start, at), max(entry.end, at)
            first, last, _ = entry.roles.get(role, (at, at, pid))
            entry.roles[role] = (min(first, at), max(last, at), pid)
        return sorted(runs.values(), key=lambda run: run.start)

    def nodes(self):
        return [run.node for run in self.runs()]

    def overlaps(self):
        """Pairs of runs that lived at the same time: must be empty."""
        runs = self.runs()
        return [(a, b) for i, a in enumerate(runs) for b in runs[i + 1:] if b.start <= a.end]

    def gaps(self):
        """Seconds without a scheduler between one run and the next."""
        runs = self.runs()
        return [b.start - a.end for a, b in zip(runs, runs[1:])]

    def latest(self):
        runs = self.runs()
        return max(runs, key=lambda run: run.start) if runs else None

    def running_on(self):
        """Node of the newest run if it still bears witness."""
        import time
        latest = self.latest()
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        return latest.node if latest and now - latest.end < 0.1 else None
