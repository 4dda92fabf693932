"""A cache and the backend it has for one app: naming, failure, expiry, versions, flights."""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from time import time as wall_clock
from typing import Any, Final, TypeVar
from uuid import uuid4

import cachelib
from flask import Flask

from ..forks import in_child
from .backends.base import BaseCache, abilities_of
from .envelope import Envelope, opened
from .flights import Deadline, Flights
from .prefixes import JOURNAL, Prefixes
from .settings import Config, has_own_prefix

T = TypeVar("T")

_OURS: Final = (TypeError, ValueError, NotImplementedError)
_LEASE: Final = "_wsgicache_lease_"
_LOCK_SECONDS: Final = 5
_LOCK_PAUSE: Final = 0.01
_LOCK_REFUSALS: Final = 20
"""So often a backend may neither take the lock nor have one, before it is one that takes nothing."""
_JOURNAL_AGE: Final = 1.0
"""Seconds for which the purged prefixes are taken as known where reading a second key is dear."""

stale_found: ContextVar[list[Envelope] | None] = ContextVar("stale_found", default=None)
"""Where a look-up leaves what is stale but may still be answered; None where nobody wants it."""

log = logging.getLogger("wsgicache.flask")


class Unavailable(RuntimeError):
    """The backend did not do what must not fail silently, such as a purge."""


class Link:
    """What a cache keeps for one app.

    Args:
        app: the app.
        config: its `CACHE_…` keys.
        backend: gives the backend, which tests replace.
    """

    def __init__(self, app: Flask, config: Config, backend: Callable[[], Any]) -> None:
        self._app = weakref.ref(app)  # a cache that outlives its apps must not keep them
        self.config = config
        self._backend = backend
        made = backend()
        self.abilities = abilities_of(made)
        self._shared, self._batch = self.abilities.shared, self.abilities.batch
        self.flights = Flights()
        self.prefixes = Prefixes(_own_prefix(made, config))
        self.safe_views = bool(config["CACHE_SAFE_VIEWS"])
        self.wait_timeout = float(config["CACHE_WAIT_TIMEOUT"])
        self._raises = config["CACHE_ON_ERROR"] == "raise"
        self._retry_after = float(config["CACHE_RETRY_AFTER"])
        self._failures = getattr(made, "failures", (Exception,))
        self._refusals = getattr(made, "refusals", ())
        self._down_until = 0.0
        self._warn_again = 0.0
        self._failed = 0
        self._journal_read = 0.0
        self._purging = threading.Lock()
        self._lease_seconds = math.ceil(config["CACHE_LEASE"]) if self._leases() else 0
        self.is_foreign = not isinstance(made, BaseCache)
        """Whether the backend is cachelib's or somebody's own: it may mean something else by timeouts."""
        self.collapses = not isinstance(made, cachelib.NullCache)
        """Whether waiting for others can help: what keeps nothing has nothing to give to who waits."""
        self.now: Callable[[], float] = wall_clock
        _all.add(self)

    @property
    def backend(self) -> Any:
        """The backend."""
        return self._backend()

    @property
    def default_timeout(self) -> int:
        """Seconds for values that are set without a timeout."""
        return int(getattr(self._backend(), "default_timeout", 300))

    @property
    def app(self) -> Flask:
        """The app.

        Raises:
            ReferenceError: it is gone.
        """
        app = self._app()
        if app is None:
            raise ReferenceError("the app of this cache is gone")
        return app

    def _leases(self) -> bool:
        return self.abilities.leases

    def after_fork(self) -> None:
        """In a forked child: whoever held the lock does not exist."""
        self._purging = threading.Lock()

    # --- failure -----------------------------------------------------------------------------------

    @property
    def is_down(self) -> bool:
        """Whether the backend failed a moment ago and is not asked again yet."""
        return self._down_until != 0.0 and monotonic() < self._down_until

    def guarded(self, call: Callable[[], T], otherwise: T) -> T:
        """Call the backend; when it fails, `otherwise`, and for a while it is not asked again."""
        if self.is_down:
            return otherwise
        try:
            return call()
        except Exception as error:
            if not self.is_failure(error) or self._raises:
                raise
            self.note_failure(error)
            return otherwise

    def is_failure(self, error: Exception) -> bool:
        """Whether an error is the server's, not the caller's."""
        if self._failures == (Exception,):
            return not isinstance(error, _OURS)
        return isinstance(error, self._failures)

    def note_failure(self, error: Exception) -> None:
        """Log that the backend failed, and leave it alone for a while.

        A server that answers, if only to refuse (out of memory, read-only), is there: what it still has is
        worth asking for.
        """
        self._failed += 1
        now = monotonic()
        if isinstance(error, self._refusals):
            if now >= self._warn_again:
                self._warn_again = now + self._retry_after
                log.warning("the cache backend refused (%s: %s)", type(error).__name__, error)
            return
        self._down_until = now + self._retry_after
        log.warning(
            "the cache backend failed (%s: %s); going on without it for %.1f s",
            type(error).__name__, error, self._retry_after,
        )  # fmt: skip

    def insisted(self, call: Callable[[], T]) -> T:
        """Call the backend for what must not fail silently.

        Raises:
            Unavailable: it failed.
        """
        try:
            return call()
        except Exception as error:
            if not self.is_failure(error):
                raise
            self.note_failure(error)
            raise Unavailable(
                f"the cache backend failed ({type(error).__name__}: {error}); nothing was purged, so stale "
                "values may be served: try again when it is back"
            ) from error

    @contextmanager
    def insisting(self) -> Iterator[None]:
        """What is done inside by way of `guarded` must not fail silently; a lost server is asked again.

        Raises:
            Unavailable: something failed meanwhile.
        """
        self._down_until = 0.0
        before = self._failed
        yield
        if self._failed != before:
            raise Unavailable(
                "the cache backend could not be reached: nothing was forgotten, so stale values may be "
                "served; try again when it is back"
            )

    # --- reading -----------------------------------------------------------------------------------

    def read(self, key: str) -> Any:
        """What is stored for a key, as it is stored; the purged prefixes are read along."""
        prefixes = self.prefixes
        if not self._shared:
            return self._backend().get(key if prefixes.plain else prefixes.name(key))
        if not self._batch:
            self.learn(_JOURNAL_AGE)
            return self._backend().get(prefixes.name(key))
        if not prefixes.plain:
            return self.read_many([key])[0]
        journal, found = self._backend().get_many(JOURNAL, key)
        return found if journal is None else self.read_many([key])[0]

    def read_many(self, keys: Sequence[str]) -> list[Any]:
        """What is stored for keys, in one round trip where the backend can."""
        prefixes = self.prefixes
        backend = self._backend()
        if not self.abilities.shared:
            return list(backend.get_many(*[prefixes.name(key) for key in keys]))
        if not self.abilities.batch:
            self.learn(_JOURNAL_AGE)
            return list(backend.get_many(*[prefixes.name(key) for key in keys]))
        names = [prefixes.name(key) for key in keys]
        journal, *found = backend.get_many(prefixes.journal_name(), *names)
        if self._adopt(journal):
            names = [prefixes.name(key) for key in keys]
            found = backend.get_many(*names)
        return list(found)

    def learn(self, max_age: float = 0.0) -> None:
        """Read the purged prefixes, unless that was done less than `max_age` seconds ago."""
        if self.abilities.shared and monotonic() - self._journal_read >= max_age:
            self._adopt(self._backend().get(self.prefixes.journal_name()))

    def _adopt(self, journal: Any) -> bool:
        self._journal_read = monotonic()
        if journal is None and not self.prefixes.generations:
            return False
        news = self.prefixes.adopt(journal)
        if news and journal is None:
            name, backend = self.prefixes.journal_name(), self._backend()
            if not backend.add(name, self.prefixes.generations, 0):
                self.prefixes.adopt(backend.get(name))  # another worker was first
        return news

    def name(self, key: str) -> str:
        """The text under which a key is kept; what was purged lately is asked for."""
        if self.abilities.shared:
            self.learn(_JOURNAL_AGE)
        return self.prefixes.name(key)

    def names(self, keys: Iterable[str]) -> list[str]:
        """The texts under which keys are kept, certain to be today's."""
        self.learn()
        return [self.prefixes.name(key) for key in keys]

    # --- envelopes ---------------------------------------------------------------------------------

    def good(self, stored: Any, known: Mapping[str, Any] | None = None) -> Any:
        """The value of what is stored: None if its versions have moved on or it is stale."""
        envelope = opened(stored)
        if envelope is None:
            return stored
        if not self.is_current(envelope, known):
            return None
        if envelope.is_fresh(self.now()):
            return envelope.value
        box = stale_found.get()
        if box is not None:
            box.append(envelope)
        return None

    def is_current(self, envelope: Envelope, known: Mapping[str, Any] | None = None) -> bool:
        """Whether no version key of an envelope has moved on; those that are not known are read."""
        tokens = dict(known or {})
        missing = [key for key, _ in envelope.births if key not in tokens]
        if missing:
            tokens.update(zip(missing, self.read_many(missing), strict=True))
        return envelope.is_current(tokens)

    # --- versions ----------------------------------------------------------------------------------

    def born(self, tokens: Mapping[str, Any], timeout: int | None) -> dict[str, str]:
        """The tokens of version keys, made where they are missing."""
        made: dict[str, str] = {}
        for key, token in tokens.items():
            made[key] = token if isinstance(token, str) else self._first_token(key, timeout)
        return made

    def _first_token(self, key: str, timeout: int | None) -> str:
        token, name = new_token(), self.name(key)
        if self._backend().add(name, token, timeout):
            return token
        theirs = self._backend().get(name)
        return theirs if isinstance(theirs, str) else token

    def renew(self, births: Mapping[str, str], timeout: int | None) -> None:
        """Let version keys live as long as what was just stored under them."""
        backend = self._backend()
        touch = getattr(backend, "touch", None)
        for key, token in births.items():
            name = self.name(key)
            if touch is not None:
                touch(name, timeout)
            elif backend.get(name) == token:
                backend.set(name, token, timeout)

    def forget_versions(self, keys: Iterable[str]) -> None:
        """Give version keys new tokens: whatever was born under the old ones is gone.

        They are not deleted, because some clients say of a lost server what they say of an absent key.

        Raises:
            OSError: the backend did not take one.
        """
        for name in self.names(keys):
            kept = self._backend().set(name, new_token())
            if kept is not None and not kept:
                raise OSError("the backend did not keep a version")

    def purge_prefix(self, prefix: str) -> None:
        """Give a prefix a new generation: every key below it has a new name.

        Raises:
            OSError: the backend did not take it.
        """
        with self._purging, self._alone(f"{self.prefixes.journal_name()}_lock"):
            self.learn()
            generations = self.prefixes.purged(prefix)
            if self._shared and not self._backend().set(self.prefixes.journal_name(), generations, 0):
                raise OSError("the backend did not keep the purged prefixes")
            self.prefixes.adopt(generations)

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Alone among workers, where the backend can say so: of two who read and write, one would lose.

        Raises:
            OSError: others did not let go in time.
        """
        if not (self.abilities.shared and self.abilities.atomic_add):
            yield
            return
        token, deadline, refused = new_token(), Deadline(_LOCK_SECONDS + 1.0), 0
        while not (got := self._taken(name, token, _LOCK_SECONDS)):
            refused += got is None  # or whoever had it let go between the two questions
            if refused > _LOCK_REFUSALS:
                raise OSError("the backend takes nothing")
            if not deadline.left:
                raise OSError(f"other workers have held {name!r} for {_LOCK_SECONDS} s")
            time.sleep(_LOCK_PAUSE)
        try:
            yield
        finally:
            self._backend().release(name, token)

    # --- leases ------------------------------------------------------------------------------------

    def lease(self, key: str) -> str | None:
        """A token for being the one worker that computes a key; "" where leases are off or fail."""
        if not self._lease_seconds or self.is_down:
            return ""
        token = new_token()
        try:
            got = self._taken(self.prefixes.name(f"{_LEASE}{key}"), token, self._lease_seconds)
        except Exception as error:
            self.note_failure(error)
            return ""
        return token if got else None if got is False else ""

    def _taken(self, name: str, token: str, seconds: int) -> bool | None:
        """Whether a token could be left under a name; False: somebody else's is there.

        None: nobody's is there and ours is not taken. A backend that is full, or lost with a client that
        raises nothing, keeps nobody waiting.
        """
        backend = self._backend()
        for _ in range(2):
            if backend.add(name, token, seconds):
                return True
            if backend.get(name) is not None:
                return False
        return None

    def release(self, key: str, token: str) -> None:
        """Give a lease back."""
        if token and not self.is_down:
            name = self.prefixes.name(f"{_LEASE}{key}")
            try:
                self._backend().release(name, token)
            except Exception as error:
                self.note_failure(error)  # it runs out by itself

    def was_deleted(self, key: str, name: str, token: str, taken: float) -> bool:
        """Whether a key was deleted, by itself or by a prefix, while its value was being computed.

        Args:
            name: the text under which it was kept when the computation began.
            token: of the lease under which it was computed, which a delete breaks; "" where there is none.
            taken: monotonic instant at which the lease was taken. One that has run out says nothing.
        """
        if not self._shared or self.is_down:
            return False  # in one process flights see to it
        says = bool(token) and monotonic() - taken < self._lease_seconds
        try:
            if says:
                (held,) = self.read_many([f"{_LEASE}{key}"])  # the deleted prefixes are read along
                broken = held != token
            else:
                self.learn(_JOURNAL_AGE)
                broken = False
        except Exception as error:
            self.note_failure(error)
            return False
        return broken or self.prefixes.name(key) != name

    def break_leases(self, keys: Iterable[str]) -> None:
        """After deleting keys: what any worker is computing for them must not be stored."""
        if self._lease_seconds:
            for key in keys:
                self._backend().delete(self.prefixes.name(f"{_LEASE}{key}"))


_all: weakref.WeakSet[Link] = weakref.WeakSet()


def _after_fork() -> None:
    for link in list(_all):
        link.after_fork()


in_child(_after_fork)


def new_token() -> str:
    """A token that no version key ever had."""
    return uuid4().hex[:16]


def _own_prefix(backend: Any, config: Config) -> Any:
    """The chosen key prefix, for backends that do not put one before their keys themselves."""
    if not has_own_prefix(config) or hasattr(backend, "key_prefix"):
        return ""
    return config["CACHE_KEY_PREFIX"]
