"""What a child does anew is done once, whoever forked it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "wsgicache"

BEGIN = """
import ctypes, os, sys, types

def child(make, body):
    pid = make()
    if pid == 0:
        try:
            body()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"

fork_in_c = ctypes.PyDLL(None).fork
ran = []
note = lambda: ran.append(os.getpid())
"""


def run(script):
    """Run a script in an interpreter of its own: a test process does not fork in C."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_python_forks():
    run("""
from wsgicache import forks
forks.in_child(note)
def body():
    assert ran == [os.getpid()]
    forks.check()
    assert ran == [os.getpid()]
    child(os.fork, grandchild)
def grandchild():
    assert len(ran) == 2 and ran[1] == os.getpid()
child(os.fork, body)
forks.check()
assert ran == []
""")


@pytest.mark.parametrize("wipes", [True, False])
def test_a_fork_that_nobody_tells_of_is_noticed_by_a_request(wipes):
    """Not every kernel can clear a page then."""
    run(
        f"""
import mmap
if not {wipes}:
    class Unable(mmap.mmap):
        def madvise(self, *given):
            raise OSError
    mmap.mmap = Unable
"""
        """
from wsgicache import WSGICache, forks
assert isinstance(forks._here, mmap.mmap) is (mmap.mmap.__name__ == "mmap")
from wsgicache.testing import Response, ScriptedApp, ask
cache = WSGICache(ScriptedApp(Response(body=b"page")))
forks.in_child(note)
def body():
    assert ran == []
    assert ask(cache, "/page").body == b"page"
    assert ran == [os.getpid()]
    assert ask(cache, "/other").body == b"page"
    assert ran == [os.getpid()]
child(fork_in_c, body)
"""
    )


@pytest.mark.parametrize("decorators", ["absent", "refuse", "work"])
def test_uwsgi_tells_its_workers(decorators):
    """Its master process loads the app and forks in C; what was to be called there is called as well."""
    run(f"""
decorators = {decorators!r}
uwsgi = sys.modules["uwsgi"] = types.ModuleType("uwsgi")
earlier = []
uwsgi.post_fork_hook = lambda: earlier.append(os.getpid())
given = sys.modules["uwsgidecorators"] = types.ModuleType("uwsgidecorators")
chain = [uwsgi.post_fork_hook]
if decorators == "absent":
    sys.modules["uwsgidecorators"] = None
elif decorators == "work":
    given.postfork = chain.append
    uwsgi.post_fork_hook = lambda: [function() for function in chain]
from wsgicache import forks
forks.in_child(note)
def body():
    uwsgi.post_fork_hook()
    assert ran == earlier == [os.getpid()]
child(fork_in_c, body)
""")


def test_the_master_of_uwsgi_runs_no_threads():
    """A thread that held a lock of the interpreter when it forks in C would leave the worker without it."""
    run("""
import threading, time
uwsgi = sys.modules["uwsgi"] = types.ModuleType("uwsgi")
uwsgi.worker_id = lambda: 0
from wsgicache.background import Refresher
from wsgicache.stores.near import near_store
from wsgicache.testing import SharedServer, SharedStore
refresher = Refresher(2, 10, time.time)
near = near_store(SharedStore(SharedServer()), 1_000_000, bound=1.0)
near.get(["/a"])
assert not refresher.submit("/a", lambda: True)
assert threading.active_count() == 1
uwsgi.worker_id = lambda: 1
near.get(["/a"])
assert refresher.submit("/a", lambda: True)
assert threading.active_count() > 1
near.close()
""")


def test_without_uwsgi_nothing_of_it_is_imported():
    run("""
import wsgicache.forks
assert "uwsgi" not in sys.modules and "uwsgidecorators" not in sys.modules
""")


def test_nobody_but_that_module_asks_python_alone():
    """uWSGI's workers would not hear of it. LMDB's file closes before a fork too, and finds out by itself."""
    asking = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if "os.register_at_fork" in file.read_text()
    }
    assert asking == {"forks.py", "stores/lmdbfile.py"}
