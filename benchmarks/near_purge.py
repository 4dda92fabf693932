"""How soon other processes are past a purge, through the near tier; and how long `wait=True` takes.

    python benchmarks/near_purge.py redis://localhost/0 --processes 4 --purges 300

Each process stands for a worker: it has a near tier and does nothing else, so this is the time of the message
and of following the journal, on a machine with room to spare. Purges that follow each other within the pause
of the heartbeat are followed together, at its end: see what `--pause 0.001` does. All read the same monotonic
clock (Linux).
"""

from __future__ import annotations

import argparse
import bisect
import multiprocessing
import statistics
import threading
import time
from typing import Any

from wsgicache.journal import Kind, Purge
from wsgicache.stores import StoreOptions, open_store
from wsgicache.stores.near import near_store

BOUND = 1.0


class Watch:
    """Notes when the journal was followed to each number."""

    def __init__(self, near: Any) -> None:
        self._near = near
        self.moved_at: dict[int, float] = {}
        near.watch(self.moved)

    def moved(self) -> None:
        now = time.monotonic()
        self.moved_at.setdefault(self._near.mark_of("").seq, now)


def open_near(url: str) -> Any:
    near = near_store(open_store(url, StoreOptions(memo_bytes=0, timeout=2.0)), bound=BOUND)
    near.get([])
    return near


def worker(url: str, pipe: Any) -> None:
    """Follow until told to stop, then tell when each purge was followed."""
    near = open_near(url)
    watch = Watch(near)
    pipe.send("ready")
    pipe.recv()
    near.close()
    pipe.send(watch.moved_at)


def measure(
    url: str, processes: int, purges: int, pause: float, wait: bool
) -> tuple[list[float], list[float]]:
    """Seconds from a purge's return until each other process is past it, and that each purge took."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(processes)]
    workers = [context.Process(target=worker, args=(url, there), daemon=True) for _, there in pipes]
    for process in workers:
        process.start()
    for here, _ in pipes:
        here.recv()
    near = open_near(url)
    threading.Event().wait(4 * BOUND)  # until the register of near tiers is old enough to be believed
    returned, took = {}, []
    for _ in range(purges):
        start = time.monotonic()
        mark = near.append([Purge(Kind.URL, "p/a")], time.time())
        if wait:
            near.settle()
        returned[mark.seq] = time.monotonic()
        took.append(returned[mark.seq] - start)
        threading.Event().wait(pause)
    threading.Event().wait(BOUND)
    delays = []
    for here, _ in pipes:
        here.send("stop")
        moved_at = here.recv()
        followed = sorted(moved_at)
        for seq, at in returned.items():  # one beat may follow several purges
            first = bisect.bisect_left(followed, seq)
            if first < len(followed):
                delays.append(max(0.0, moved_at[followed[first]] - at))
    for process in workers:
        process.join()
    near.close()
    return delays, took


def show(label: str, seconds: list[float]) -> None:
    seconds = sorted(seconds)
    numbers = [statistics.median(seconds), seconds[int(len(seconds) * 0.99)], seconds[-1]]
    print(f"{label:45}" + "".join([f"{number * 1000:10.3f}" for number in numbers]), f"{len(seconds):8}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--purges", type=int, default=300)
    parser.add_argument("--pause", type=float, default=0.06, help="seconds between two purges")
    args = parser.parse_args()
    print(f"{'milliseconds':45}    median       99%       max   values")
    for wait in (False, True):
        delays, took = measure(args.url, args.processes, args.purges, args.pause, wait)
        name = "purge(wait=True)" if wait else "purge"
        show(f"{name}: takes", took)
        show(f"{name}: others past it after its return", delays)


if __name__ == "__main__":
    main()
