"""Bodies of responses, read and decompressed up to a size."""

import zlib
from typing import Final

import httpx2 as httpx

_GZIP: Final = zlib.MAX_WBITS | 16
_MOST_PIECES: Final = 1_000  # and one more for each KiB: a chunk costs time, however short it is


async def read_body(response: httpx.Response, most: int) -> bytes | None:
    """Return the body; None when it is longer than `most` bytes, compressed or not.

    Raise httpx.DecodingError for a body that is compressed in another way than once by gzip, the
    only coding that is asked for. httpx itself decodes up to five codings, one over the other, and
    goes on after the end of the compressed data; a few hundred bytes keep its decoders, and so the
    event loop, busy for hours without a byte of output that could be counted. Raise
    httpx.RemoteProtocolError for a body in thousands of tiny chunks, which keep it busy as well.
    """
    coding = response.headers.get("content-encoding", "").strip().lower() or "identity"
    if coding not in ("gzip", "identity"):
        raise httpx.DecodingError(f"the answer has the coding {coding[:40]!r}")
    unzip = zlib.decompressobj(_GZIP) if coding == "gzip" else None
    body, received, pieces = bytearray(), 0, 0
    assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - of an async transport
    async for piece in response.stream:
        received, pieces = received + len(piece), pieces + 1
        if pieces > _MOST_PIECES + received // 1024:
            raise httpx.RemoteProtocolError("the answer comes in thousands of tiny chunks")
        body += _unzipped(unzip, piece, most + 1 - len(body)) if unzip else piece
        if max(received, len(body)) > most:
            return None
    return bytes(body)


def _unzipped(unzip: "zlib._Decompress", piece: bytes, most: int) -> bytes:
    """Return at most so many bytes; raise httpx.DecodingError."""
    try:
        content = unzip.decompress(piece, most)
    except zlib.error as error:
        raise httpx.DecodingError(str(error)) from error
    if unzip.unused_data:
        raise httpx.DecodingError("more follows the end of the compressed answer")
    return content
