"""How long the tests wait for what must happen, and a call on a thread that hands back what it got.

Only a fault makes them wait that long.
"""

import threading

PATIENCE = 60.0
"""Seconds: many times what anything takes on a machine that is busy with other things."""


class Call:
    """A call on a thread of its own, whose result or exception is fetched later."""

    def __init__(self, function, *args, **kwargs):
        self._result = None
        self._error = None
        self._call = lambda: function(*args, **kwargs)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    @property
    def running(self):
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    def result(self, timeout=PATIENCE):
        """What the call returned, or raise what it raised."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError("the call did not end")
        if self._error is not None:
            raise self._error
        return self._result
