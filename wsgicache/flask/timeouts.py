"""One meaning of a timeout for every backend.

| given | meaning |
| --- | --- |
| `None` | the default timeout of the backend |
| `0` | never expires |
| negative | expired at once: nothing is kept |
| `timedelta`, `float` | seconds, rounded up |
| a string of digits | seconds, as configuration files and templates write them |
"""

from __future__ import annotations

import math
import random
from datetime import timedelta

from .. import early

Timeout = int | float | str | timedelta | None


def seconds(timeout: int | float | str | timedelta) -> int:
    """A timeout in whole seconds.

    Raises:
        TypeError: it is no number, timedelta or string of digits.
    """
    if isinstance(timeout, timedelta):
        return math.ceil(timeout.total_seconds())
    if isinstance(timeout, str):
        try:
            return int(timeout)
        except ValueError:
            raise TypeError(f"timeout {timeout!r} is no number of seconds") from None
    if isinstance(timeout, int | float):
        return math.ceil(timeout)
    raise TypeError(f"timeout must be a number or a datetime.timedelta, not {type(timeout).__name__}")


def normalize_timeout(timeout: Timeout) -> int | None:
    """A timeout in whole seconds; None stays None, which means the default.

    Raises:
        TypeError: it is no number, timedelta or string of digits.
    """
    return None if timeout is None else seconds(timeout)


def shortened(timeout: int, jitter: int) -> int:
    """A timeout made shorter by up to `jitter` seconds and by half at most, so that entries made together
    expire apart: what the option `jitter` does for pages.

    What never expires or is expired already stays so.
    """
    return early.shortened(timeout, 0, jitter, random.random())  # noqa: S311 - spreads load, hides nothing
