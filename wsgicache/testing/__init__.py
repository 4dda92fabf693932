"""What tests of a cache need, shipped so that a third-party store or an integration can prove itself.

`FakeClock` is turned by hand, `ScriptedApp` says what it was asked and answers as it was told (held back at
a gate where a race is to be decided), `ask` makes one request as a server would, `FailingStore` fails on
demand, a `SharedServer` is reached by the `SharedStore` of each cache as by processes of their own, and
`StoreContract` is the suite that every store passes. Nothing here imports pytest: whoever runs the contract
has it, whoever only asks for a page need not.
"""

from __future__ import annotations

from .apps import Environ, FakeClock, Gate, Headers, Response, ScriptedApp
from .contract import StoreContract
from .requests import Reply, ask, make_environ, run
from .shared import SharedServer, SharedStore
from .stores import FailingStore

__all__ = [
    "Environ",
    "FailingStore",
    "FakeClock",
    "Gate",
    "Headers",
    "Reply",
    "Response",
    "ScriptedApp",
    "SharedServer",
    "SharedStore",
    "StoreContract",
    "ask",
    "make_environ",
    "run",
]
