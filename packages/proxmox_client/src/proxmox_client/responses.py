"""Responses of a host: limits of head and body, and those that say that it cannot serve requests.

Such a host is as unavailable as one that refuses connections. pveproxy may answer while the
services behind it do not: pmxcfs is stopped, pvedaemon restarts, or the node asked about cannot be
reached. A proxy in front of Proxmox may answer instead of it.
"""

import re
import ssl
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import httpx2 as httpx

MOST_HEAD_BYTES: Final = 16 * 1024  # that of Proxmox has a few hundred
_READ_COST: Final = 64  # bytes that a read counts for at least: it costs time, however short it is
_GZIP: Final = zlib.MAX_WBITS | 16
_MOST_PIECES: Final = 1_000  # and one more for each KiB: a chunk costs time, however short it is
# refused before the request was dispatched, so certainly not carried out (PVE/HTTPServer.pm)
_NOT_DISPATCHED = re.compile(r"RPCEnvironment init request failed")
# the cluster file system of the host does not answer (PVE/IPCC.xs), or its mount is dead
_FILE_SYSTEM = re.compile(
    r"ipcc_send_rec\[\d+\] failed|/etc/pve\b.*Transport endpoint is not connected"
)
_GATEWAY = {502, 503, 504}
_NOT_CONNECTED = 595  # of the statuses 595 to 599, the only one before anything was sent


@dataclass(slots=True)
class _Head:
    """A head that is awaited, with the bytes that were read for it."""

    received: int = 0

    def too_long(self) -> Exception:
        """Return the error of a head that has all the bytes that it may have."""
        return httpx.RemoteProtocolError(
            f"the answer does not begin within {MOST_HEAD_BYTES >> 10} KiB of headers"
        )


_awaited: ContextVar[_Head | None] = ContextVar("proxmox_client_awaited_head", default=None)


@contextmanager
def limited_head() -> Iterator[None]:
    """Limit what a task reads from a `LimitedObject` or `PlainTransport` inside: one head.

    Before a response, a server may send informational ones (`100 Continue`), which h11 parses
    without end. A TLS connection hands out what it has received without a pause for other tasks,
    so a server that sends nothing else would stop the event loop, and with it the timeout of the
    request; one without TLS pauses, but parses 64 KiB of them at a time. httpx has no such limit.
    A head that goes on is httpx.RemoteProtocolError; the read that completes it may have more.
    Inside, nothing but the head may be read: a body counts as well.
    """
    token = _awaited.set(_Head())
    try:
        yield
    finally:
        _awaited.reset(token)


class LimitedObject(ssl.SSLObject):
    """The TLS connection of contexts with `limit_heads`."""

    def read(self, *args: Any, **named: Any) -> Any:
        """Read as SSLObject does, within the limit of the head that the task awaits."""
        head = _awaited.get()
        if head is None:
            return super().read(*args, **named)
        if head.received >= MOST_HEAD_BYTES:
            raise head.too_long()
        data: Any = super().read(*args, **named)
        length = data if isinstance(data, int) else len(data)  # a number with a buffer
        head.received += max(length, _READ_COST)
        return data


def limit_heads(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return the context, whose connections keep to `limited_head` from now on."""
    context.sslobject_class = LimitedObject
    return context


async def read_within_head(read: Callable[[int], Awaitable[bytes]], most: int) -> bytes:
    """Return what `read` returns for at most `most` bytes, within the head that the task awaits."""
    head = _awaited.get()
    if head is None:
        return await read(most)
    if head.received >= MOST_HEAD_BYTES:
        raise head.too_long()
    data = await read(min(most, MOST_HEAD_BYTES))
    head.received += max(len(data), _READ_COST)
    return data


class Response(NamedTuple):
    """A response before decoding; `reason` is the text of the status line."""

    status: int
    reason: str
    body: bytes


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
        try:
            body += unzip.decompress(piece, most + 1 - len(body)) if unzip else piece
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from error
        if unzip and unzip.unused_data:
            raise httpx.DecodingError("more follows the end of the compressed answer")
        if max(received, len(body)) > most:
            return None
    return bytes(body)


class Outage(NamedTuple):
    """What a response says about its host, or about the node behind it.

    `certain` is false if the response may also be an error of the request itself; `undone` is
    true if a write was certainly not carried out.
    """

    reason: str
    certain: bool
    undone: bool = False


def outage_of(response: Response) -> Outage | None:
    """Return the outage that a response reports; None for an answer of Proxmox."""
    status, reason, body = response
    text = f"{reason} {body[:1000].decode(errors='replace')}" if status >= 300 else ""
    if _NOT_DISPATCHED.search(text):
        return Outage(f"its cluster file system is down: {reason}", certain=True, undone=True)
    if _FILE_SYSTEM.search(text):
        return Outage(f"its cluster file system is down: {reason}", certain=True)
    trimmed = body.strip()
    if trimmed[:1] == b"<":
        return Outage(f"a web page answers, not Proxmox (status {status})", certain=True)
    if status in _GATEWAY:
        return Outage(f"status {status} {reason}".strip(), certain=True)
    # every answer is a JSON object
    if status < 300 and not (trimmed[:1] == b"{" and trimmed[-1:] == b"}"):
        return Outage("its answer is incomplete, or no JSON", certain=True)
    if 595 <= status <= 599:
        return Outage(f"{status} {reason}", certain=False, undone=status == _NOT_CONNECTED)
    if status == 500 and not trimmed:
        return Outage(f"{status} {reason}", certain=False)
    return None
