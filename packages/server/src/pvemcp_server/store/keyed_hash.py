"""Keyed hashes: HMAC-SHA-256, begun once for each key, for beginning costs more than the rest."""

import hmac
from functools import lru_cache


def keyed(key: bytes, data: bytes) -> bytes:
    """The HMAC-SHA-256 of the data under the key, 32 bytes."""
    begun = _begun(key).copy()
    begun.update(data)
    return begun.digest()


@lru_cache(64)
def _begun(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod="sha256")
