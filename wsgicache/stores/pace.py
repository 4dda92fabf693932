"""How soon something may be done again: a few times at once, then once in each pause. Pure."""

from __future__ import annotations

from typing import Final


class Pace:
    """Turns in time. Not thread-safe: one thread takes them.

    Args:
        pause: seconds between two turns, once the first few are taken.
        at_once: turns that may be taken without a pause after a quiet time.
    """

    def __init__(self, pause: float, at_once: int) -> None:
        self._pause: Final = pause
        self._ahead: Final = (at_once - 1) * pause
        self._even = float("-inf")
        """When as many turns will have been due as were taken."""

    def turn(self, now: float) -> float:
        """Take the next turn.

        Args:
            now: monotonic seconds.

        Returns:
            Seconds until then; 0 if it is now.
        """
        begins = max(now, self._even - self._ahead)
        self._even = max(begins, self._even) + self._pause
        return begins - now
