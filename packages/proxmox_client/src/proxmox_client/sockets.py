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
        self.waiting = 0  # requests without a place
        self.idle: dict[Idle, None] = {}  # to be closed when places run out, idle longest first
        self._places = FairSemaphore(most)

    async def take(self) -> None:
        """Take a place for a new socket; wait until one is free."""
        if self.used >= self.most and self.idle:
            next(iter(self.idle)).close_idle()
        self.waiting += 1
        try:
            await self._places.__aenter__()
        finally:
            self.waiting -= 1
        self.used += 1

    async def give_back(self, places: int) -> None:
        """Give back the places of sockets that were closed."""
        for _ in range(places):
            self.used -= 1
            await self._places.__aexit__()
