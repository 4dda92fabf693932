"""What keeps a near tier true: one thread per process that follows the journal, another that hears of purges.

The first reads the marks of all parts of a store a few times within the bound, and at once when the second
says so; where purges come thick and fast, those of a moment together. A part trusts its copies for the bound,
counted from the instant at which a mark was asked for, so it does not matter whether a message was lost, a
connection broke, or this thread got no turn: then trust runs out by itself.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from ..forks import will_fork
from ..journal import new_id
from . import AtOnce, Store, StoreError
from .abreast import Behind, follow
from .pace import Pace
from .rollcall import Post, announce, answer, has_roll

log: Final = logging.getLogger("wsgicache")

BEATS: Final = 3
"""Marks are read so many times within the bound."""

RETRY: Final = 1.0
"""Seconds after which a beat is tried again that failed, if the next one is not due before: somebody may be
waiting for the answer to a call."""

STANDING: Final = 3
"""An entry in the register stands for so many times the bound, and is renewed after one."""

PAUSE: Final = 0.025
"""Seconds between two beats that messages cause: each asks the store, in every process that hears them."""

AT_ONCE: Final = 2
"""Beats that need not wait for that: for a purge after a quiet time, and for who waits for everybody then."""

_SHORTEST: Final = 20
"""The pause is no longer than the bound divided by this."""

_PATIENCE: Final = 2.0
"""Seconds that `stop` waits for the thread, which may be waiting for the store."""


class Part(Behind, Protocol):
    """What a heartbeat needs of a store that it keeps true."""

    def follow(self) -> None:
        """Read the mark and follow the journal to it."""
        ...

    def doubt(self) -> None:
        """Trust no copy until a mark has been read that is asked for from now on."""
        ...


class Heartbeat:
    """Follows the journals of one store, all its parts, for as long as one of them is used.

    Args:
        remote: the store itself.
        bound: seconds for which copies may be trusted after a mark was asked for.
        steady: monotonic seconds.

    Attributes:
        standing: monotonic instant up to which others know that this process holds copies; without that
            nothing may be trusted.
        started: whether the threads run in this process, or need not any more.
        failures: how often the journal could not be followed.
    """

    def __init__(self, remote: Store, bound: float, steady: Callable[[], float]) -> None:
        self.remote: Final = remote
        self.bound: Final = bound
        self.failures = 0
        self._steady = steady
        self._parts: list[weakref.ref[Part]] = []
        self._at_once: Final[AtOnce | None] = getattr(remote, "at_once", None)
        self._reset()

    def _reset(self) -> None:
        self.who = new_id()
        self.post = Post()
        self.standing = float("-inf")
        self.started = False
        self._lost = True
        self._renew_at = float("-inf")
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._pace = Pace(min(PAUSE, self.bound / _SHORTEST), AT_ONCE)

    def add(self, part: Part) -> None:
        """Keep this true as well."""
        post = self.post
        self._parts.append(weakref.ref(part, lambda gone: post.arrived.set()))  # to look who is left

    # --- the threads -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, if nobody has in this process, and it is not one that others will be forked from."""
        if will_fork():
            return
        with self._lock:
            if self.started:
                return
            self.started = True
            try:
                self._start_threads()
            except RuntimeError:
                pass  # the interpreter is about to end: the store is asked each time

    def _start_threads(self) -> None:
        thread = threading.Thread(target=self._run, name="wsgicache near", daemon=True)
        thread.start()
        self._thread = thread
        listen = getattr(self.remote, "listen", None)
        if listen is not None:
            job = (listen, self.post.poke, self._stopped, self.bound)
            threading.Thread(target=_listen, args=job, name="wsgicache push", daemon=True).start()

    def stop(self) -> None:
        """End, for good; the copies are not trusted any more."""
        with self._lock:
            self.started = True  # nobody need start it
            thread, self._thread = self._thread, None
            self._stopped.set()
            self.post.arrived.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE)
        self.standing = float("-inf")
        for part in self._living().values():
            part.doubt()
        if thread is not None and has_roll(self.remote):
            self._leave(self.remote)

    def _leave(self, remote: Any) -> None:
        try:
            remote.attend(self.who, 0.0)
        except StoreError:
            pass  # it goes by itself

    def _run(self) -> None:
        while self._goes_on():
            self._read_post()  # before the marks are read: what comes later is followed once more
            pause = self.bound / BEATS
            self._heed(self._steady() + (pause if self.beat() else min(pause, RETRY)))
        self._stopped.set()  # the other thread too

    def _goes_on(self) -> bool:
        return not self._stopped.is_set() and bool(self._living())

    def _heed(self, due: float) -> None:
        """Follow what messages tell of until a beat of all parts is due, or one of them asks for that."""
        arrived = self.post.arrived
        while self._goes_on() and (left := due - self._steady()) > 0 and arrived.wait(left):
            self._stopped.wait(self._pace.turn(self._steady()))  # what comes until then is followed together
            moved = self._read_post()
            if moved is None:
                return
            if moved:
                self.beat(moved)

    def _read_post(self) -> frozenset[int] | None:
        self.post.arrived.clear()
        return self.post.news()

    def _living(self, only: frozenset[int] | None = None) -> dict[int, Part]:
        parts = [(number, ref()) for number, ref in enumerate(self._parts) if only is None or number in only]
        return {number: part for number, part in parts if part is not None}

    # --- one beat ----------------------------------------------------------------------------------

    def beat(self, moved: frozenset[int] | None = None) -> bool:
        """Follow every journal to where it stands, then answer who called before.

        Args:
            moved: follow only the journals of these parts, by number, and answer nobody; None: all.

        Returns:
            Whether all that was done.
        """
        calls = [] if moved is not None else self.post.calls()  # before the marks are read
        done = all([self._tried(self._stand), self._followed(self._living(moved))])
        if not done or not all([self._tried(self._answer, call) for call in calls]):
            self.post.put_back(calls)
            return False
        return True

    def _followed(self, parts: Mapping[int, Part]) -> bool:
        """Have parts follow their journals, together where the store can; whether they have."""
        if self._at_once is None or len(parts) < 2:
            return all([self._tried(part.follow) for part in parts.values()])
        now = self._steady()
        try:
            failures = follow(self._at_once, parts, self._at_once.marks(parts), now)
        except Exception as error:
            self._failed(error)
            return False
        for failure in failures.values():
            self._failed(failure)
        return not failures

    def _answer(self, call: str) -> None:
        answer(self.remote, call, self.who)

    def _tried(self, job: Callable[..., None], *args: str) -> bool:
        """Do one thing; the others do not depend on it, and trust runs out by itself."""
        try:
            job(*args)
        except Exception as error:
            self._failed(error)
            return False
        return True

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if not isinstance(error, StoreError):
            log.error("the near tier could not follow its store", exc_info=error)

    def _stand(self) -> None:
        """Have others know that this process holds copies; before it trusts any of them."""
        now = self._steady()
        if now < self._renew_at and not self._lost:
            return
        lost, self._lost = self._lost, False
        try:
            announce(self.remote, self.bound)
            if has_roll(self.remote):
                self._attend(self.remote)
        except BaseException:
            self._lost |= lost
            raise
        self._renew_at = now + self.bound
        with self._lock:
            if not (self._lost or self._stopped.is_set()):
                self.standing = now + STANDING * self.bound

    def _attend(self, remote: Any) -> None:
        remote.attend(self.who, STANDING * self.bound)

    def introduce(self) -> None:
        """The store may have lost who was there: say so again, at once, and trust nothing before."""
        with self._lock:
            self._lost = True
            self.standing = float("-inf")
        self.post.poke()

    @property
    def place(self) -> tuple[Post | None, str]:
        """Where this process hears answers, and its name in the register; (None, "") if it is not there."""
        heard = self._thread is not None and hasattr(self.remote, "listen")
        return (self.post, self.who) if heard and self._steady() < self.standing else (None, "")

    def after_fork(self) -> None:
        """In a forked child: the threads are the parent's, and so is the name in the register."""
        stopped = self._stopped.is_set()
        self._reset()
        if stopped:
            self.stop()


def _listen(
    listen: Callable[[Callable[[str], None], threading.Event], None],
    poke: Callable[[str], None],
    stopped: threading.Event,
    pause: float,
) -> None:
    """Hear messages until it is over, whatever happens meanwhile."""
    while not stopped.is_set():
        try:
            listen(poke, stopped)
        except StoreError:
            pass  # the bound holds without messages
        except Exception:
            log.exception("the near tier does not hear of purges for a moment")
        stopped.wait(pause)
