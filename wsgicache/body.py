"""Bodies: bytes, or the name of a file that holds them. Pure: who opens, writes and removes the files is
`wsgicache.stores.spool`.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Any, Final

_NAME: Final = re.compile(r"[0-9a-f]{32}\.body")


def is_file_name(name: str) -> bool:
    """Whether the file of a body may be called so; no other is opened or removed, whatever a store says."""
    return _NAME.fullmatch(name) is not None


class FileBody:
    """A body in a file, immutable, and true and as long as bytes are.

    Args:
        name: the file's, without a directory.
        size: bytes.
        tag: the strong ETag of the bytes, as `make_etag` makes it.
        directory: where the file is; "" until whoever read the name from a store says so.
        keeper: while it lives, the file stays; None where somebody else sees to that.
    """

    __slots__ = ("directory", "keeper", "name", "size", "tag")

    def __init__(self, name: str, size: int, tag: str, directory: str = "", keeper: Any = None) -> None:
        self.name: Final = name
        self.size: Final = size
        self.tag: Final = tag
        self.directory = directory
        self.keeper = keeper

    @property
    def path(self) -> str:
        """The whole name of the file."""
        return f"{self.directory}/{self.name}"

    def __len__(self) -> int:
        return self.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileBody) and (self.name, self.size) == (other.name, other.size)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<FileBody {self.name}, {self.size} bytes>"


Body = bytes | FileBody


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a body in a file, from `start` to before `stop`."""

    start: int
    stop: int


def new_digest() -> Any:
    """What an ETag is made of, piece by piece.

    96 bits of SHA-1: it need not withstand an adversary, who could only collide with himself.
    """
    return hashlib.sha1(usedforsecurity=False)


def etag_of(digest: Any) -> str:
    """The strong ETag for what a digest was fed with."""
    return f'"{urlsafe_b64encode(digest.digest()[:12]).decode("ascii")}"'


def make_etag(body: Body) -> str:
    """A strong ETag for a body (RFC 9110 §8.8.3): equal bytes, equal tag, in every process."""
    if isinstance(body, FileBody):
        return body.tag
    digest = new_digest()
    digest.update(body)
    return etag_of(digest)
