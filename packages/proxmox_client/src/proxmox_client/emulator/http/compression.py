"""Bodies are compressed for clients that take it, as pveproxy does."""

import gzip
from functools import lru_cache
from typing import Final

from proxmox_client.emulator.http.messages import Request, Response

SMALLEST: Final = 1024
"""Bodies up to this many bytes go as they are."""


def compressed(request: Request | None, response: Response) -> tuple[bytes, list[tuple[str, str]]]:
    """The body to send and the headers that say how it was encoded."""
    accepted = request.headers.get("accept-encoding", "") if request else ""
    if len(response.body) <= SMALLEST or "gzip" not in accepted:
        return response.body, []
    return _gzip(response.body), [("Content-Encoding", "gzip")]


@lru_cache(maxsize=8)
def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)
