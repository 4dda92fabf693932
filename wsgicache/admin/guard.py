"""Who may do what operators do: whoever sends the secret. Addresses prove nothing (ADM-02)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Final

from ..facts import SECRET_HEADER
from ..options import OptionError

SHORTEST: Final = 16
"""Characters of a secret that opens more than the key in Cache-Status."""


class Guard:
    """Knows the secret.

    Args:
        secret: the option `secret`.
        what: the option that needs it, for the error.

    Raises:
        OptionError: there is no secret, or one that can be guessed.
    """

    def __init__(self, secret: str | None, what: str) -> None:
        if secret is None or len(secret) < SHORTEST:
            raise OptionError(
                f"{what} needs a secret of at least {SHORTEST} characters: secret = "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        self._secret: Final = secret.encode("utf-8")

    def admits(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request brings the secret, as `Wsgicache-Secret` or as a bearer token (RFC 6750 §2.1).

        Compared in constant time.
        """
        given = environ.get(SECRET_HEADER)
        if given is None:
            scheme, _, token = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
            given = token.strip() if scheme.lower() == "bearer" else ""
        return self._is_secret(str(given).encode("latin-1", "replace"))

    def opens(self, text: str) -> bool:
        """Whether a text that somebody typed is the secret."""
        return self._is_secret(text.encode("utf-8", "replace"))

    def _is_secret(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self._secret)

    def key(self, purpose: str) -> bytes:
        """A key for signing, which tells nothing of the secret."""
        return hmac.digest(self._secret, purpose.encode("utf-8"), "sha256")
