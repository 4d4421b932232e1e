"""Responses decompressed as they arrive, in pieces of a bounded size."""

import zlib
from collections.abc import AsyncIterator, Iterator

import httpx2 as httpx

__all__ = ["ENCODINGS", "decoded"]

ENCODINGS = "gzip, deflate"
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_PIECE = 1 << 20


async def decoded(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the body; raise httpx.DecodingError unless it is compressed once, as was requested.

    httpx itself decodes up to five encodings, one over the other, and goes on after the end of the
    compressed data: a few hundred bytes of a server would keep the bridge busy for hours.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower() or "identity"
    if encoding not in ("gzip", "deflate", "identity"):
        raise httpx.DecodingError(f"the response has the encoding {encoding[:40]!r}")
    unzip = None if encoding == "identity" else zlib.decompressobj(_GZIP_OR_ZLIB)
    async for data in response.aiter_raw():
        for piece in (data,) if unzip is None else _pieces(unzip, data):
            yield piece


def _pieces(unzip: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    try:
        while piece := unzip.decompress(data, _PIECE):
            yield piece
            data = unzip.unconsumed_tail
    except zlib.error as error:
        raise httpx.DecodingError(str(error)) from error
    if unzip.unused_data:
        raise httpx.DecodingError("more follows the end of the compressed response")
