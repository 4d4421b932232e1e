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


def accepts(secret: str, digits: str, when: float) -> bool:
    """Return whether the digits are valid now, or one period earlier or later."""
    valid = (code(secret, when + shift) for shift in (-PERIOD, 0, PERIOD))
    return any(hmac.compare_digest(candidate, digits) for candidate in valid)


def secret_of(uri: str) -> str:
    """Return the secret in an otpauth URI, or an empty string."""
    match = _SECRET.search(uri)
    return match[1] if match else ""
