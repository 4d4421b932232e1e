"""All of access, opened together."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from pvemcp_server.access.admins import Admins
from pvemcp_server.access.authentication import KeyAuthenticator
from pvemcp_server.access.clusters import ClusterConfigs
from pvemcp_server.access.keys import Keys
from pvemcp_server.access.limits import CallLimits
from pvemcp_server.access.roles import Roles
from pvemcp_server.access.sessions import Sessions
from pvemcp_server.store import Store
from pvemcp_server.store.background import housekeeping, rounds

FLUSH_SECONDS = 5
log = logging.getLogger(__name__)


class Access:
    """Keys and roles of callers; administrators and their sessions; clusters and their tokens."""

    def __init__(self, store: Store) -> None:
        self.roles = Roles(store)
        self.keys = Keys(store)
        self.gate = KeyAuthenticator(store)
        self.limits = CallLimits()
        self.clusters = ClusterConfigs(store)
        self.admins = Admins(store)
        self.sessions = Sessions(store)

    async def keep_house(self, stop: anyio.Event) -> None:
        """Ends by the event, not by being cancelled: the last uses are written down as well."""
        async for _ in rounds(stop, FLUSH_SECONDS):
            try:
                await self.gate.flush()
                await self.sessions.sweep()
            except Exception:
                log.warning("Could not write down the use of keys", exc_info=True)


@asynccontextmanager
async def open_access(store: Store) -> AsyncIterator[Access]:
    """Access with its housekeeping: what is noted lazily is written every few seconds."""
    access = Access(store)
    await access.roles.prepare()
    async with housekeeping(access.keep_house):
        yield access
