"""Bodies that go into files, and what is left of the files."""

import os

from wsgi_helpers import Body, new_cache

from wsgicache import Rule

BYTES = [("Content-Type", "application/octet-stream"), ("Cache-Control", "max-age=600")]
SMALL = 1000
"""What is kept in memory in these tests, bytes."""


def pattern(size, seed=0):
    """Bytes of which no two places look alike soon."""
    unit = b"".join([(number * 2654435761 + seed).to_bytes(8, "big") for number in range(1024)])
    return (unit * (size // len(unit) + 1))[:size]


class Download:
    """An app whose body comes in chunks, and that counts its calls."""

    def __init__(self, body, chunk=300, fields=(), announced=True, status="200 OK", lazy=True):
        self.body = body
        self.chunk = chunk
        self.fields = [*BYTES, *fields]
        if announced:
            self.fields.append(("Content-Length", str(len(body))))
        self.status = status
        self.lazy = lazy
        self.calls = 0
        self.bodies = []

    def chunks(self):
        return [self.body[at : at + self.chunk] for at in range(0, len(self.body), self.chunk)]

    def __call__(self, environ, start_response):
        self.calls += 1
        start_response(self.status, list(self.fields))
        if not self.lazy:
            return self.chunks()
        self.bodies.append(Body(self.chunks()))
        return self.bodies[-1]


def big_cache(app, directory, **options):
    """A cache that keeps more than `SMALL` bytes in files below a directory."""
    options = {"spool_bytes": SMALL, "spool_dir": str(directory), "max_body_bytes": 1_000_000, **options}
    if "store" in options and "://" not in str(options["store"]):
        options.pop("spool_dir")
    return new_cache(app, **options)


def files(directory):
    """The body files anywhere below a directory."""
    return sorted(
        os.path.join(where, name)
        for where, _, names in os.walk(directory)
        for name in names
        if name.endswith(".body")
    )


def open_files(directory):
    """How many files below a directory this process has open."""
    there = os.path.realpath(directory)
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        found += target.startswith(there) and ".body" in target
    return found


DOWNLOADS = [Rule("/downloads/*", max_body_bytes=500_000)]
