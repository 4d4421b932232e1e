"""Turns of connections: how much of what clients have sent is parsed before tasks continue."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from pvemcp_server.store.key_format import KEY_LIKE

KNOWN_AT_ONCE: Final = 4  # connections in one turn of the event loop
STRANGERS_AT_ONCE: Final = 1

KnowsKey = Callable[[str], bool]


def knows_none(_text: str) -> bool:
    """Return False: all clients wait in one queue."""
    return False


class Turns:
    """Two queues of connections that wait until what they have read is parsed.

    asyncio would let every connection that has sent something parse it before any task continues,
    so that hundreds of them multiply the time of each step of a call. Clients that have used a
    valid key on their connection, or present one that is in use, have a queue of their own, which
    strangers cannot fill.
    """

    def __init__(self, knows_key: KnowsKey = knows_none) -> None:
        self._knows_key = knows_key
        self._known: deque[Callable[[], None]] = deque()
        self._strangers: deque[Callable[[], None]] = deque()
        self._is_due = False

    def knows(self, sent: bytes) -> bool:
        """Return whether what a connection has sent contains a key that is in use.

        It decides only how soon that is parsed; the gate checks the key of each request.
        """
        match = KEY_LIKE.search(sent.decode("latin-1"))
        return match is not None and self._knows_key(match[0])

    def wait(self, parse: Callable[[], None], *, known: bool) -> None:
        """Call `parse` when it is its turn."""
        (self._known if known else self._strangers).append(parse)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._is_due = False
        for queue, most in (
            (self._known, KNOWN_AT_ONCE),
            (self._strangers, STRANGERS_AT_ONCE),
        ):
            for _ in range(min(most, len(queue))):
                queue.popleft()()
        if not self._is_due and (self._known or self._strangers):
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._next)
