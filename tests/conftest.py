"""What all tests share: how hypothesis draws, what the garbage collector has to look at, and Ctrl-C.

`--hypothesis-profile=search` draws anew in each run, and more: for whoever looks for faults, not for a run
that has to tell whether a change broke something.
"""

import gc
import signal
import warnings

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, and no clock: that a machine is busy is no fault of the code.
_PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("search", derandomize=False, max_examples=2000, **_PATIENT)
settings.register_profile("suite", derandomize=True, database=None, **_PATIENT)
settings.load_profile("suite")

# A shell starts what runs in the background with SIGINT ignored, and the servers that tests start would
# inherit it; some are to be ended by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collect without a look for garbage, and then leave out of all looks what stays until the end.

    Many thousand tests, their parameters and the modules they import are millions of objects: a `gc.collect`
    in a test went through all of them in a second or more.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        leave_out()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """The same at the end of each module: pytest keeps something of every test."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        leave_out()
    return result


def leave_out():
    """Look for garbage, and never again at what is none.

    What is found open here was left by some test of a module that is over: to blame the next one would not
    help. Each test is still blamed for what is found while it runs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Tell how to have this order again: the header that would is left out by -q."""
    seed = terminalreporter.config.getoption("randomly_seed", None)
    if isinstance(seed, int):
        terminalreporter.write_line(f"--randomly-seed={seed}")
