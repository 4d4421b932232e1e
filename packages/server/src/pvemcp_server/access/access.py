"""Access control as a whole: its parts, opened together."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from pvemcp_server.access.admins import Admins
from pvemcp_server.access.authentication import KeyAuthenticator
from pvemcp_server.access.budgets import DestructiveBudgets
from pvemcp_server.access.clusters import ClusterConfigs
from pvemcp_server.access.external import ExternalAdmins
from pvemcp_server.access.keys import Keys
from pvemcp_server.access.limits import CallLimits, FairTurns, RateLimiter
from pvemcp_server.access.roles import Roles
from pvemcp_server.access.sealed_state import SealedStates
from pvemcp_server.access.second_factors import SecondFactors
from pvemcp_server.access.service_tokens import ServiceTokens
from pvemcp_server.access.sessions import Sessions
from pvemcp_server.store import Store
from pvemcp_server.store.background import housekeeping, ticks

FLUSH_SECONDS = 5
log = logging.getLogger(__name__)


class Access:
    """Keys and roles of callers, administrators and their sessions, clusters and their tokens."""

    def __init__(self, store: Store, external: ExternalAdmins) -> None:
        self.external = external
        self.roles = Roles(store)
        self.keys = Keys(store)
        self.authenticator = KeyAuthenticator(
            store, admits=lambda admin: admin.enabled and external.admits(admin)
        )
        self.limits = CallLimits(store.shared_limits)
        self.begun_sign_ins = RateLimiter("begun at the issuer", store.shared_limits)
        self.audit_reads = FairTurns(2)  # pages of the audit that administrators read
        self.verifications = FairTurns(1)  # apart: one takes as long as the audit is
        self.budgets = DestructiveBudgets(store)
        self.clusters = ClusterConfigs(store)
        self.second_factors = SecondFactors(store)
        self.admins = Admins(store, external, self.second_factors)
        self.sealed_states = SealedStates(store)
        self.service_tokens = ServiceTokens(store, external)
        self.sessions = Sessions(store, external)

    async def run_housekeeping(self, stop: anyio.Event) -> None:
        """Flush and clean up every few seconds, and a last time after `stop` is set."""
        async for _ in ticks(stop, FLUSH_SECONDS):
            try:
                await self.authenticator.flush()
                await self.admins.flush()
                await self.sessions.remove_expired()
            except Exception:
                log.warning("Uses of keys and failed sign-ins could not be stored", exc_info=True)


@asynccontextmanager
async def open_access(
    store: Store, external: ExternalAdmins | None = None
) -> AsyncIterator[Access]:
    """Open access control with its housekeeping, which stores what is buffered.

    Without `external` only administrators with a password may sign in.
    """
    access = Access(store, external or ExternalAdmins())
    await access.roles.prepare()
    async with housekeeping(access.run_housekeeping):
        yield access
