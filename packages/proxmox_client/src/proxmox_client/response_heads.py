"""A limit on the head of a response, which httpx does not have.

Before a response, a server may send informational ones (`100 Continue`): h11 parses them without
end. A TLS connection hands out what it has received without a pause for other tasks, so a server
that sends nothing else would stop the event loop, and with it the timeout of the request.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import httpx2 as httpx

MOST_BYTES: Final = 16 * 1024  # that of Proxmox has a few hundred
_READ_COST: Final = 64  # bytes that a read counts for at least: it costs time, however short it is


class _Head:
    """The bytes that are read until a head is complete."""

    def __init__(self) -> None:
        self._bytes = 0

    def check(self) -> None:
        if self._bytes >= MOST_BYTES:
            raise httpx.RemoteProtocolError(
                f"the answer does not begin within {MOST_BYTES >> 10} KiB of headers"
            )

    def count(self, received: int) -> None:
        self._bytes += max(received, _READ_COST)


_awaited: ContextVar[_Head | None] = ContextVar("_awaited", default=None)


@contextmanager
def limited_head() -> Iterator[None]:
    """Limit what a task reads from a `LimitedObject` inside: the head of one response.

    A head that goes on is httpx.RemoteProtocolError. The read that completes it may have more.
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
        head.check()
        data: Any = super().read(*args, **named)
        head.count(data if isinstance(data, int) else len(data))  # a number with a buffer
        return data


def limit_heads(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return the context, whose connections keep to `limited_head` from now on."""
    context.sslobject_class = LimitedObject
    return context
