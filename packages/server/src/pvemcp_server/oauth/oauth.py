"""OAuth as a whole: its parts, and the housekeeping of all processes."""

import logging
from typing import Final

import anyio

from pvemcp_server.audit import Audit
from pvemcp_server.oauth.clients import Clients
from pvemcp_server.oauth.tokens import Tokens
from pvemcp_server.store import Store
from pvemcp_server.store.background import ticks

CLEAN_SECONDS: Final = 60
log = logging.getLogger(__name__)


class OAuth:
    """The embedded authorization server's state: clients and tokens."""

    def __init__(self, store: Store, audit: Audit) -> None:
        self.clients = Clients(store)
        self.tokens = Tokens(store, audit)

    async def run_housekeeping(self, stop: anyio.Event) -> None:
        """Remove what has expired, every minute until `stop` is set."""
        async for _ in ticks(stop, CLEAN_SECONDS):
            try:
                await self.tokens.remove_expired()
                await self.clients.remove_unused()
            except Exception:
                log.warning("Expired tokens and clients could not be removed", exc_info=True)
