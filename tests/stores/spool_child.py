"""A process that uses files of bodies and does as its standard input says; it dies with it."""

import os
import signal
import sys
from pathlib import Path

from wsgicache.stores.spool import Spool
from wsgicache.testing import ask

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "wsgi")]

from big_helpers import Download, big_cache, pattern


def main(kind, directory):
    if kind == "writer":  # one that is killed in the middle
        spool = Spool(1_000_000, Path(directory), shared=True)
        writer = spool.begin()
        writer.write(b"half of it")
    elif kind == "claimer":  # one that has said how much it is going to write
        writer = Spool(1_000_000, Path(directory), shared=True).begin(400_000)
    elif kind == "private":
        cache = big_cache(Download(pattern(5000)), directory)
        ask(cache, "/f")
    else:  # a worker over LMDB
        store = f"lmdb://{directory}/db?max_bytes=8MB"
        cache = big_cache(Download(pattern(50_000, seed=7)), directory, store=store)
    print("ready", flush=True)
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "ask":
            reply = ask(cache, rest[0])
            print(reply.is_hit, len(reply.body), reply.body == pattern(50_000, seed=7), flush=True)
        elif word == "purge":
            cache.purge(rest[0])
            print("purged", flush=True)
        elif word == "die":
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
