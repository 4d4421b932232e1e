"""Session ids from which any process can open the session again: sealed, and bound to its owner."""

import json
import secrets
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LONGEST: Final = 2_000  # characters of an id: proxies limit the headers of a request
_NONCE: Final = 12  # bytes
_PROGRAM: Final = ("name", "version")  # of the client, for the audit

Params = Mapping[str, Any]
"""The params of an initialize request."""


class SessionIds:
    """Makes and opens session ids. `key` returns the same key in every process."""

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._key = key  # called at each use, because a rotation renews it

    def seal(self, params: Params, owner: str) -> str | None:
        """Return an id that holds how the session began; None if that is too long."""
        program = params.get("clientInfo")
        kept = {
            "protocolVersion": params.get("protocolVersion"),
            "capabilities": params.get("capabilities"),
            "clientInfo": {name: program.get(name) for name in _PROGRAM}
            if isinstance(program, Mapping)
            else program,
        }
        nonce = secrets.token_bytes(_NONCE)
        plain = zlib.compress(json.dumps(kept, separators=(",", ":")).encode())
        sealed = nonce + AESGCM(self._key()).encrypt(nonce, plain, owner.encode())
        text = _encoded(sealed)
        return text if len(text) <= LONGEST else None

    def open(self, session_id: str, owner: str) -> Params | None:
        """Return how the session began; None for an id that is not sealed for this owner.

        An id has one spelling, although Python's base64 accepts several: an ended session would
        open again under another one.
        """
        if len(session_id) > LONGEST or not session_id.isascii():
            return None
        try:
            sealed = urlsafe_b64decode(session_id + "=" * (-len(session_id) % 4))
            plain = AESGCM(self._key()).decrypt(sealed[:_NONCE], sealed[_NONCE:], owner.encode())
        except (ValueError, InvalidTag):
            return None
        if _encoded(sealed) != session_id:
            return None
        params: Params = json.loads(zlib.decompress(plain))
        return params


def _encoded(sealed: bytes) -> str:
    return urlsafe_b64encode(sealed).decode().rstrip("=")
