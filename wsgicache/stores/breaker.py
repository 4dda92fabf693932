"""A circuit breaker: a store that does not answer is not asked for a while.

The first call that fails costs its deadline; then nothing is asked until the pause is over. Then one caller
asks, while all others still do without, and what it finds decides. Pauses double up to a limit.

    with breaker.call():          # raises StoreError at once while the circuit is open
        answer = client.mget(...)

Only the trouble named in `trouble` opens it: a server that answers, if only to refuse, is there.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ..forks import in_child
from . import StoreError

log: Final = logging.getLogger("wsgicache")

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 5.0

_dice: Final = random.Random()  # noqa: S311 - of our own: whoever seeds the module's must not see us draw


class CircuitOpen(StoreError):
    """The store did not answer a moment ago, so it is not asked."""


class Breaker:
    """Watches the calls to one server or group of servers.

    Args:
        name: what people call it, without secrets: `redis://cache.example:6379`.
        trouble: the exceptions that say that nobody answers.
        clock: monotonic seconds.
        lost: what the log says when the circuit is opened, between the name and the error.
        effect: what it says follows from that.
        found: what it says when the circuit is closed again.
    """

    def __init__(
        self,
        name: str,
        trouble: tuple[type[BaseException], ...],
        clock: Callable[[], float] = time.monotonic,
        *,
        lost: str = "does not answer",
        effect: str = "pages come from the app until it does",
        found: str = "answers again",
    ) -> None:
        self.name = name
        self._trouble = trouble
        self.clock = clock
        self._lost, self._effect, self._found = lost, effect, found
        self.opened = 0
        """How often the circuit was opened."""
        self._reset()
        _breakers.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._open_until = 0.0
        self._pause = FIRST_PAUSE
        self.is_open = False
        """Whether the last call found nobody. A plain attribute, for those that ask it at each hit."""

    @contextmanager
    def call(self, *, insist: bool = False) -> Iterator[None]:
        """Around a call to the server.

        Args:
            insist: ask even so, such as for a purge that somebody waits for.

        Raises:
            CircuitOpen: it is not to be asked now.
            StoreError: what the call raised, of `trouble`, with the name of the server.
        """
        probe = self.is_open and not insist
        if probe:
            self.enter()
        try:
            yield
        except self._trouble as error:
            self.fail(error, probe=probe)
            raise StoreError(f"{self.name}: {type(error).__name__}: {error}") from error
        except Exception:
            if probe:
                self.succeed()
            raise
        if self.is_open:
            self.succeed()

    def enter(self) -> None:
        """Before a call, where the circuit is open: the caller is the one that asks, or is refused.

        Raises:
            CircuitOpen: it is not to be asked now.
        """
        with self._lock:
            if not self.is_open:
                return
            now = self.clock()
            if now < self._open_until:
                raise CircuitOpen(f"{self.name} {self._lost}; it is not asked for a while")
            # The others go on without; should this call never end, the next pause lets another ask.
            self._open_until = now + self._pause

    def is_paused(self) -> bool:
        """Whether nobody is to ask now."""
        return self.is_open and self.clock() < self._open_until

    def fail(self, error: BaseException, *, probe: bool = False) -> None:
        """A call found nobody.

        Pauses double while probe after probe fails; the circuit that is opened anew begins with the first.

        Args:
            probe: it was made because the pause was over. What fails beside, or was under way when the
                circuit was opened, says nothing new.
        """
        with self._lock:
            was_open = self.is_open
            if was_open and not probe:
                return
            self._pause = min(LONGEST_PAUSE, self._pause * 2) if was_open else FIRST_PAUSE
            self._open_until = self.clock() + self._pause * _dice.uniform(0.9, 1.1)
            if was_open:
                return
            self.is_open = True
            self.opened += 1
        log.warning("%s %s (%s: %s); %s", self.name, self._lost, type(error).__name__, error, self._effect)

    def succeed(self) -> None:
        """A call was answered."""
        with self._lock:
            if not self.is_open:
                return
            self.is_open = False
        log.warning("%s %s", self.name, self._found)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


_breakers: Final[weakref.WeakSet[Breaker]] = weakref.WeakSet()


def _after_fork() -> None:
    for breaker in list(_breakers):
        breaker._after_fork()


in_child(_after_fork)
