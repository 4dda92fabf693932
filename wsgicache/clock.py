"""The engine's clock: wall time that notices when it was set.

Lifetimes are counted in wall-clock seconds, which an administrator or NTP may move. The monotonic clock
tells how far it moved: where the wall clock went back, what this process holds would look younger than
it is, so it is dropped (TIM-01).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

TOLERANCE: Final = 1.0
"""Seconds by which the two clocks may drift apart before that counts as a step."""


class Clock:
    """Reads the wall clock and watches it.

    `shift` is the difference `steady() - wall()` as it was when the two were last compared in earnest.

    Args:
        wall: seconds since the epoch; None means the system's clock.
        stepped_back: called when the wall clock was found to have gone back.
    """

    def __init__(self, wall: Callable[[], float] | None, stepped_back: Callable[[], None]) -> None:
        self.wall: Callable[[], float] = time.time if wall is None else wall
        self.steady: Callable[[], float] = time.monotonic if wall is None else wall
        self._stepped_back = stepped_back
        self._anchor()

    def _anchor(self) -> None:
        self.shift = self.steady() - self.wall()

    def now(self) -> float:
        """The wall clock, after a look at how it moved since the last time."""
        now = self.wall()
        lag = self.steady() - now - self.shift
        if lag > TOLERANCE:
            self._anchor()
            self._stepped_back()
        elif abs(lag) > TOLERANCE / 2:  # set forth, or drifted: some systems slew one clock only
            self._anchor()
        return now

    def check(self, steady: float) -> None:
        """What the hit path asks once a second: did the wall clock move since `now()` last looked?

        Args:
            steady: the monotonic clock, just read.

        Raises:
            LookupError: it did, forth or back, or drifted, or the machine slept.
        """
        if abs(steady - self.wall() - self.shift) > TOLERANCE / 2:
            raise LookupError("the wall clock was set")
