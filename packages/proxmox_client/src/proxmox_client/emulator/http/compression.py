"""Response compression, as in pveproxy."""

import gzip
from functools import lru_cache
from typing import Final

from proxmox_client.emulator.http.messages import Request, Response

MIN_BYTES: Final = 1024
"""Bodies up to this size are not compressed."""


def compress_body(
    request: Request | None, response: Response
) -> tuple[bytes, list[tuple[str, str]]]:
    """Return the body, compressed if the client accepts gzip, and its encoding headers."""
    accepted_encodings = request.headers.get("accept-encoding", "") if request else ""
    if len(response.body) <= MIN_BYTES or "gzip" not in accepted_encodings:
        return response.body, []
    return _gzip(response.body), [("Content-Encoding", "gzip")]


@lru_cache(maxsize=8)
def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)
