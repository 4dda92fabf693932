"""WSGI middleware that caches whole responses of any Python web app."""

from ._version import __version__
from .cache import WSGICache
from .outcome import Outcome, Reason
from .rules import Rule
from .stores import Store

__all__ = ["Outcome", "Reason", "Rule", "Store", "WSGICache", "__version__"]
