"""What processes did to a site, written down, and the check that no request saw what was purged before.

The pages of a site have versions that only grow. A purge notes the versions as they were when it began, so
whatever begins after it has returned must be made from these versions or later ones:

- after a hard purge no answer may be older;
- after a soft purge nothing older may be served as fresh.

Times are of the machine's monotonic clock, which all its processes read alike.
"""

import json
from bisect import bisect_left
from dataclasses import asdict, dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Purged:
    """A purge that returned. `versions` are those of the pages that it covers, when it began."""

    began: float
    ended: float
    kind: str
    soft: bool
    versions: dict[str, int]


@dataclass(frozen=True)
class Asked:
    """A request that was answered."""

    began: float
    ended: float
    page: str
    version: int
    fresh: bool
    status: str


def write(file, event):
    """Append one event to an open file, at once: the process may be killed."""
    file.write(json.dumps([type(event).__name__, asdict(event)]) + "\n")
    file.flush()


def read(paths):
    """The events in files. A line that a killed process did not finish tells nothing."""
    kinds = {"Purged": Purged, "Asked": Asked}
    events = []
    for path in paths:
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                name, fields = json.loads(line)
                events.append(kinds[name](**fields))
    return events


def violations(events, slack=0.0):
    """Requests that saw what they must not, each with the purge that says so.

    Args:
        slack: seconds after a purge's return in which old answers are allowed.
    """
    floors = {}
    for soft in (False, True):
        by_page = {}
        for event in events:
            if isinstance(event, Purged) and event.soft is soft:
                for page, version in event.versions.items():
                    by_page.setdefault(page, []).append((event.ended + slack, version))
        floors[soft] = {page: _Floor(purges) for page, purges in by_page.items()}
    found = []
    for event in events:
        if isinstance(event, Asked):
            for soft in (False, True):
                floor = floors[soft].get(event.page)
                least = 0 if floor is None else floor.at(event.began)
                if event.version < least and (not soft or event.fresh):
                    found.append((event, f"{'soft' if soft else 'hard'} purge of version {least - 1}"))
    return found


class _Floor:
    """The least version that a request of one page may see, by the instant at which it begins."""

    def __init__(self, purges):
        purges.sort()
        self._ends = [end for end, _ in purges]
        self._least = list(accumulate((version for _, version in purges), max))

    def at(self, began):
        """What a request that begins then must see at least; at the very end of a purge it may be older."""
        position = bisect_left(self._ends, began)
        return self._least[position - 1] if position else 0
