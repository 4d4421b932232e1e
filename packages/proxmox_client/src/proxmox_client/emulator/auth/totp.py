"""Time-based one-time passwords (RFC 6238)."""

import base64
import hashlib
import hmac
import re
import struct
from typing import Final

PERIOD: Final = 30
_SECRET = re.compile(r"[?&]secret=([A-Za-z2-7=]+)")


def code(secret: str, when: float) -> str:
    """Return the six digits of a base32 secret at a time."""
    padded = secret.upper() + "=" * (-len(secret) % 8)
    counter = struct.pack(">Q", int(when) // PERIOD)
    digest = hmac.digest(base64.b32decode(padded), counter, hashlib.sha1)
    start = digest[-1] & 15
    number = int.from_bytes(digest[start : start + 4]) & 0x7FFFFFFF
    return f"{number % 1_000_000:06d}"


def period_of(secret: str, digits: str, when: float) -> int:
    """Return the period of a code that is valid now, or one period earlier or later; else 0."""
    for shifted in (when - PERIOD, when, when + PERIOD):
        if hmac.compare_digest(code(secret, shifted).encode(), digits.encode()):
            return int(shifted) // PERIOD
    return 0


def secret_of(uri: str) -> str:
    """Return the secret in an otpauth URI, or an empty string."""
    match = _SECRET.search(uri)
    return match[1] if match else ""
