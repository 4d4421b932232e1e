"""Limits of connections: how many are open, and in which order their bytes are parsed."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from ipaddress import ip_network
from time import monotonic
from typing import Final, Protocol

from pvemcp_server.http.hosts import Networks, is_within
from pvemcp_server.networks import network_of
from pvemcp_server.open_files import file_limit, shares
from pvemcp_server.store.key_format import KEY_LIKE

MOST_PER_ADDRESS: Final = 256
MOST_HELD: Final = 32 << 20  # bytes of strangers' requests that are not answered, in total
WARN_SECONDS: Final = 60.0
KNOWN_AT_ONCE: Final = 4  # connections in one turn of the event loop
STRANGERS_AT_ONCE: Final = 1
LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1"))

KnowsKey = Callable[[str, str], bool]
log = logging.getLogger(__name__)


class Evictable(Protocol):
    """A connection that can be closed at once."""

    def evict(self) -> None: ...


class ConnectionLimits:
    """The open connections of a process.

    At a limit, the connection that has waited longest for its client (for a head, the rest of a
    body, or that it reads its response) is closed in favour of the new one. So stalled clients
    cannot keep others out, and a request whose client keeps up is never interrupted. Only when no
    connection waits, the new one is refused. In the same order those are closed that hold bytes of
    strangers' requests, while these are more than `most_held` in total. Many clients may share the
    addresses in `shared`: loopback and trusted proxies.
    """

    def __init__(
        self,
        total: int,
        per_address: int,
        shared: Networks = LOOPBACK,
        *,
        most_held: int = MOST_HELD,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.total = total
        self.per_address = per_address
        self.stopping = False  # each connection ends with its present or next response
        self._shared = shared
        self._most_held = most_held
        self._clock = clock
        self._open: dict[Evictable, str] = {}  # with the counted address, if it is
        self._count: Counter[str] = Counter()
        self._waiting: dict[Evictable, None] = {}  # in the order in which they began to wait
        self._held: Counter[Evictable] = Counter()  # bytes of the request of a stranger
        self._held_in_total = 0
        self._warned = -WARN_SECONDS

    def open(self, connection: Evictable, address: str) -> bool:
        """Count a new connection, which waits for its client; return False when it is refused."""
        is_shared = not address or is_within(address, self._shared)
        counted = "" if is_shared else network_of(address)
        admitted = True
        if counted and self._count[counted] >= self.per_address:
            admitted = self._evict(counted)
        elif len(self._open) >= self.total:
            admitted = self._evict("")
        if admitted:
            self._open[connection] = counted
            self._count[counted] += 1
            self._waiting[connection] = None
        return admitted

    def close(self, connection: Evictable) -> None:
        """Forget a connection; one that was not admitted is ignored."""
        counted = self._open.pop(connection, None)
        self._waiting.pop(connection, None)
        self._held_in_total -= self._held.pop(connection, 0)
        if counted is not None:
            self._count[counted] -= 1
            if not self._count[counted]:
                del self._count[counted]

    def wait(self, connection: Evictable) -> None:
        """Mark a connection as waiting for its client, from now on."""
        self._waiting.pop(connection, None)
        if connection in self._open:
            self._waiting[connection] = None

    def work(self, connection: Evictable) -> None:
        """Mark a connection as working for its client, which sent a whole request."""
        self._waiting.pop(connection, None)

    def hold(self, connection: Evictable, size: int) -> None:
        """Count the bytes of a stranger's request, which are kept until it is answered."""
        if connection in self._open:
            self._held_in_total += size - self._held[connection]
            self._held[connection] = size
        if self._held_in_total > self._most_held:
            self._warn(f"{self._most_held >> 20} MiB of requests")
            for each in [each for each in self._waiting if self._held[each]]:
                self.close(each)
                each.evict()
                if self._held_in_total <= self._most_held:
                    break

    def _evict(self, counted: str) -> bool:
        """Close the longest waiting connection, of this address if one is given."""
        self._warn(f"{self.per_address} of {counted}" if counted else f"{self.total} in total")
        for connection in self._waiting:
            if not counted or self._open[connection] == counted:
                self.close(connection)
                connection.evict()
                return True
        return False

    def _warn(self, limit: str) -> None:
        if self._clock() - self._warned >= WARN_SECONDS:
            self._warned = self._clock()
            log.warning("All connections are in use (%s); waiting ones are closed", limit)


def connection_limits(proxies: Networks) -> ConnectionLimits:
    """Return the limits of this process, which leave files free for everything else."""
    total = shares(file_limit()).from_clients
    return ConnectionLimits(total, min(MOST_PER_ADDRESS, total // 2), (*LOOPBACK, *proxies))


def knows_none(_text: str, _address: str) -> bool:
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

    def knows(self, sent: bytes, address: str) -> bool:
        """Return whether what a connection has sent contains a key that is in use at its address.

        Behind a proxy that is the proxy's address, so a key with an allow-list waits among
        strangers there. It decides only how soon the bytes are parsed: the gate checks the key.
        """
        match = KEY_LIKE.search(sent.decode("latin-1"))
        return match is not None and self._knows_key(match[0], address)

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
