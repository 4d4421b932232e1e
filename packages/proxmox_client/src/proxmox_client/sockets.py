"""The bound of open sockets that all clients of a process share."""

import sys
from typing import Protocol

from proxmox_client.limits import FairSemaphore


class Idle(Protocol):
    """Connections that no request uses."""

    def close_idle(self) -> None:
        """Close them, and give their places back afterwards."""


class SocketBudget:
    """Places for the open sockets of several clients; requesters get free ones in turn.

    A client keeps the place of a socket while it keeps the socket for its next request. When no
    place is free, the connections that have been idle longest are closed in favour of the request,
    and it waits.
    """

    def __init__(self, most: int = sys.maxsize) -> None:
        self.most = most
        self.used = 0
        self._places = FairSemaphore(most)
        self._idle: dict[Idle, None] = {}  # idle longest first

    @property
    def is_short(self) -> bool:
        """Whether requests wait for a place."""
        return self._places.has_waiting

    async def take(self) -> None:
        """Take a place for a new socket; wait until one is free."""
        if self.used >= self.most and self._idle:
            next(iter(self._idle)).close_idle()
        await self._places.__aenter__()
        self.used += 1

    async def give_back(self, places: int) -> None:
        """Give back the places of sockets that were closed."""
        for _ in range(places):
            self.used -= 1
            await self._places.__aexit__()

    def mark_idle(self, connections: Idle) -> None:
        """Offer these connections to be closed when places run out."""
        self._idle[connections] = None

    def mark_busy(self, connections: Idle) -> None:
        """Withdraw that offer."""
        self._idle.pop(connections, None)
