"""Values as bytes. The only module of the package that imports pickle, and it signs what it pickles.

Whoever can write to a shared store must not be able to run code in the workers that read it. So:

- What comes back with identical types travels as MessagePack: None, bool, int, float, str, bytes, list,
  dict, and, as extensions, tuple, set, frozenset, date, datetime, timedelta, Decimal, UUID, Markup,
  responses and HTTP errors.
- Everything else is pickled and signed with the app's `SECRET_KEY` (`SECRET_KEY_FALLBACKS` are accepted);
  without one it is refused. What is not signed is never unpickled, unless `CACHE_READ_UNSIGNED` says so
  for the time of a migration.
- What never leaves the process needs no signature.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import IO, Any, Final
from uuid import UUID

import msgpack
from cachelib.serializers import (
    BaseSerializer,
    FileSystemSerializer,
    RedisSerializer,
    SimpleSerializer,
    UWSGISerializer,
)
from flask import Response
from itsdangerous import BadSignature, Signer
from markupsafe import Markup

from .forms import Raised, error_form, error_from, response_form, response_from

Keys = Callable[[], Sequence[str | bytes]]

_MAGIC: Final = b"\xc1W"  # 0xC1 begins neither MessagePack nor pickle
_PLAIN: Final = _MAGIC + b"m"
_SIGNED: Final = _MAGIC + b"s"
_CACHELIB_PICKLE: Final = b"!"
_BARE_PICKLE: Final = b"\x80"
_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_MAX_DEPTH: Final = 64

log = logging.getLogger("wsgicache.flask")


class Refused(TypeError):
    """A value that could only be pickled, where there is no key to sign it with."""


def no_keys() -> Sequence[str | bytes]:
    """The keys of a backend that belongs to no app."""
    return ()


# --- what travels as MessagePack --------------------------------------------------------------------


class _Unplain(TypeError):
    """The value, or something in it, would not come back as it went."""


def _instant_form(value: datetime) -> list[Any]:
    if value.tzinfo not in (None, UTC):
        raise _Unplain
    return [value.isoformat(), value.fold]


def _form(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def made(value: Any) -> Any:
        form = make(value)
        if form is None:
            raise _Unplain
        return form

    return made


_Pair = tuple[int, Callable[[Any], Any], Callable[[Any], Any]]
_EXTENSIONS: Final[dict[type, _Pair]] = {
    tuple: (1, list, tuple),
    set: (2, list, set),
    frozenset: (3, list, frozenset),
    int: (4, str, int),
    datetime: (5, _instant_form, lambda form: datetime.fromisoformat(form[0]).replace(fold=form[1])),
    date: (6, date.isoformat, date.fromisoformat),
    timedelta: (7, lambda d: [d.days, d.seconds, d.microseconds], lambda form: timedelta(*form)),
    Decimal: (8, str, Decimal),
    UUID: (9, lambda value: value.bytes, lambda form: UUID(bytes=form)),
    Markup: (10, str.__str__, Markup),
    Raised: (11, _form(lambda raised: error_form(raised.error)), lambda form: Raised(error_from(form))),
}
_RESPONSE: Final[_Pair] = (12, _form(response_form), response_from)
_READERS: Final = {code: read for code, _, read in [*_EXTENSIONS.values(), _RESPONSE]}


def _extend(value: Any) -> msgpack.ExtType:
    pair = _RESPONSE if isinstance(value, Response) else _EXTENSIONS.get(type(value))
    if pair is None:
        raise _Unplain(f"{type(value).__qualname__} does not travel as plain data")
    code, form, _ = pair
    return msgpack.ExtType(code, _pack(form(value)))


def _unextend(code: int, data: bytes) -> Any:
    return _READERS[code](_unpack(data))


def _check(value: Any, depth: int = 0) -> None:
    """Refuse what MessagePack would change on the way, such as a bytearray, which comes back as bytes."""
    kind = type(value)
    if kind in _SCALARS:
        return
    if depth > _MAX_DEPTH:
        raise _Unplain
    if kind is dict:
        for key, item in value.items():
            _check(key, depth + 1)
            _check(item, depth + 1)
    elif kind in (list, tuple, set, frozenset):
        for item in value:
            _check(item, depth + 1)
    elif kind not in _EXTENSIONS and not isinstance(value, Response):
        raise _Unplain(f"{kind.__qualname__} does not travel as plain data")


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, default=_extend, strict_types=True)
    return packed


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, ext_hook=_unextend, strict_map_key=False)


def plain_bytes(value: Any) -> bytes | None:
    """A value as MessagePack; None where it would not come back with identical types."""
    try:
        _check(value)
        return _pack(value)
    except (_Unplain, ValueError, OverflowError, RecursionError, UnicodeError):
        return None


# --- serializers ------------------------------------------------------------------------------------


class SafeSerializer(BaseSerializer):
    """MessagePack, else signed pickle, else refused.

    Args:
        keys: gives the signing keys, the oldest first; read at each use, because apps set them late.
        read_unsigned: also read what Flask-Caching wrote. Only for a migration, on a trusted store.
    """

    def __init__(self, keys: Keys = no_keys, read_unsigned: bool = False) -> None:
        self._keys = keys
        self.read_unsigned = read_unsigned
        self._warned = False

    def dumps(self, value: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> bytes:
        """A value as bytes.

        Raises:
            Refused: it can only be pickled, and there is no key to sign it with.
        """
        packed = plain_bytes(value)
        if packed is not None:
            return _PLAIN + packed
        keys = self._keys()
        if not keys:
            raise Refused(
                f"a value of type {type(value).__qualname__} can only be pickled, and a pickle must be "
                "signed: set the SECRET_KEY of the app, or cache plain data (str, list, dict, …), or choose "
                "another CACHE_SERIALIZER"
            )
        return _SIGNED + self._signer(keys).sign(pickle.dumps(value, protocol))

    def loads(self, bvalue: bytes) -> Any:
        """The value that `dumps` wrote; None, which is a miss, for what nobody with a key wrote."""
        try:
            return self._read(bvalue)
        except BadSignature:
            self._warn_once("a value with a bad signature was not read")
        except Exception as error:
            self._warn_once(f"a value could not be read ({type(error).__name__}: {error})")
        return None

    def _read(self, data: bytes) -> Any:
        if data.startswith(_PLAIN):
            return _unpack(data[len(_PLAIN) :])
        if data.startswith(_SIGNED):
            keys = self._keys()
            if not keys:  # itsdangerous would verify with an empty key, which everybody has
                raise BadSignature("there is no SECRET_KEY")
            signed = self._signer(keys).unsign(data[len(_SIGNED) :])
            return pickle.loads(signed)  # noqa: S301 - the signature is ours
        return self._read_foreign(data)

    def _read_foreign(self, data: bytes) -> Any:
        if not data.startswith((_CACHELIB_PICKLE, _BARE_PICKLE)):
            return None
        if self.read_unsigned:
            return pickle.loads(data.removeprefix(_CACHELIB_PICKLE))  # noqa: S301 - asked for
        self._warn_once(
            "an unsigned pickle was not read; CACHE_READ_UNSIGNED=True reads it, see docs/flask.md"
        )
        return None

    def _signer(self, keys: Sequence[str | bytes]) -> Signer:
        given: Any = list(keys)
        return Signer(given, salt="wsgicache.flask", key_derivation="hmac", digest_method=sha256)

    def _warn_once(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("%s", what)

    def dump(self, value: Any, f: IO[bytes], protocol: int = pickle.HIGHEST_PROTOCOL) -> None:
        """Write a value to a file; see `dumps`."""
        f.write(self.dumps(value, protocol))

    def load(self, f: IO[bytes]) -> Any:
        """Read a value from a file; see `loads`."""
        return self.loads(f.read())


class SafeFileSerializer(SafeSerializer, FileSystemSerializer):
    """For files."""


class SafeUWSGISerializer(SafeSerializer, UWSGISerializer):
    """For uWSGI's cache."""


class SafeDigitsSerializer(SafeSerializer, RedisSerializer):
    """For servers that count: an int is stored as digits, and foreign bytes come back as they are."""

    def dumps(self, value: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> bytes:
        """A value as bytes; see `SafeSerializer.dumps`."""
        if type(value) is int:
            return b"%d" % value
        return super().dumps(value, protocol)

    def loads(self, value: bytes | None) -> Any:
        """The value that `dumps` wrote, or bytes that somebody else did."""
        return None if value is None else super().loads(value)

    def _read_foreign(self, data: bytes) -> Any:
        if data.startswith(_CACHELIB_PICKLE):
            return super()._read_foreign(data)
        try:
            return int(data)
        except ValueError:
            return data


class MemorySerializer(SimpleSerializer):
    """For this process's own memory: the bytes never leave it, so they need no signature."""

    def dumps(self, value: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> bytes:
        """A copy of a value.

        Raises:
            TypeError, pickle.PicklingError: the value cannot be copied.
        """
        return pickle.dumps(value, protocol)

    def loads(self, bvalue: bytes) -> Any:
        """A new copy of the value."""
        return pickle.loads(bvalue)  # noqa: S301 - this process wrote it
