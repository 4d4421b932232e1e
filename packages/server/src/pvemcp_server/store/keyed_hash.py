"""Keyed hashes (HMAC-SHA-256), with the set-up of each key cached.

The set-up takes longer than hashing a short input.
"""

import hmac
from functools import lru_cache


def keyed_hash(key: bytes, data: bytes) -> bytes:
    """Return the HMAC-SHA-256 of the data under the key, 32 bytes."""
    state = _initial_state(key).copy()
    state.update(data)
    return state.digest()


@lru_cache(64)
def _initial_state(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod="sha256")
