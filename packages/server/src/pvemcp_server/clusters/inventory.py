"""What a cluster holds, as one Proxmox identity sees it.

Refreshed on demand, shared by all callers of that identity, never by others.
"""

import asyncio
from collections.abc import Callable, Hashable
from contextvars import Context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from time import monotonic
from typing import Any

import proxmox_client
from proxmox_client import Client
from proxmox_client.api import resources as resources_api
from proxmox_client.api.resources import (
    GuestResource,
    NodeResource,
    PoolResource,
    StorageResource,
)
from pvemcp_server.access.model import Resources

# What leaves us without an answer, so that an older one is better than none
SILENCE = (
    proxmox_client.Unreachable,
    proxmox_client.DeadlineExceeded,
    proxmox_client.NodeUnreachable,
)


@dataclass(frozen=True)
class InventoryView:
    """The answer of /cluster/resources at one moment. `stale` says why it could not be renewed."""

    taken: float  # seconds on the monotonic clock
    taken_at: datetime
    guests: tuple[GuestResource, ...]
    nodes: tuple[NodeResource, ...]
    storages: tuple[StorageResource, ...]
    pools: tuple[PoolResource, ...]
    stale: str = ""
    derived: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was worked out from it, kept as long as it is and never for another identity."""

    @classmethod
    def of(cls, resources: resources_api.Resources, asked: float) -> "InventoryView":
        """`asked` is when the request left: a change made later is not in it for certain."""
        return cls(
            taken=asked,
            taken_at=datetime.now(UTC),
            guests=tuple(resources.guests),
            nodes=tuple(resources.nodes),
            storages=tuple(resources.storages),
            pools=tuple(resources.pools),
        )

    @property
    def age(self) -> float:
        """Seconds since Proxmox answered."""
        return monotonic() - self.taken

    @cached_property
    def by_vmid(self) -> dict[int, GuestResource]:
        return {guest.vmid: guest for guest in self.guests}

    @cached_property
    def by_node(self) -> dict[str, NodeResource]:
        return {node.node: node for node in self.nodes}

    def within(self, scope: Resources) -> "InventoryView":
        """The part of it that `scope` covers; the same object for the same scope."""
        if scope.everything:
            return self
        key = ("within", scope, self.stale)
        if key not in self.derived:
            self.derived[key] = self._part(scope)
        part: InventoryView = self.derived[key]
        return part

    def _part(self, scope: Resources) -> "InventoryView":
        return InventoryView(
            taken=self.taken,
            taken_at=self.taken_at,
            guests=tuple(one for one in self.guests if covers_guest(scope, one)),
            nodes=tuple(one for one in self.nodes if scope.covers_node(one.node)),
            storages=tuple(
                one for one in self.storages if scope.covers_storage(one.storage, node=one.node)
            ),
            pools=tuple(one for one in self.pools if scope.covers_pool(one.pool)),
            stale=self.stale,
        )


def covers_guest(scope: Resources, guest: GuestResource) -> bool:
    return scope.covers_guest(
        guest.vmid, node=guest.node, pool=guest.pool or "", tags=guest.tag_list
    )


@dataclass
class Inventory:
    """The latest InventoryView of a cluster and identity; concurrent callers share one request."""

    pve: Client
    freshness: Callable[[], float]  # seconds a snapshot is taken for current
    patience: float = 15.0  # seconds to wait for a cluster that has never answered
    short_patience: float = 5.0  # the same when an older snapshot would do
    glance: float = 1.0  # the same when the last attempt was in vain
    quiet: float = 5.0  # seconds during which a silent cluster is not waited for at all
    _latest: InventoryView | None = None
    _refreshing: asyncio.Task[InventoryView] | None = None
    _asked: float = -1.0  # when the running refresh was sent
    _written: float = -1.0  # when something was last changed through us
    _trouble: proxmox_client.ProxmoxError | None = None  # why it was silent, until it answers
    _quiet_until: float = -1.0

    async def view(self) -> InventoryView:
        """The current snapshot; the last one, marked stale, when Proxmox does not answer."""
        latest = self._latest
        if latest and latest.age < self.freshness() and latest.taken > self._written:
            return latest
        try:
            return await self._renewed()
        except SILENCE as error:
            if latest is None:
                raise
            return replace(latest, stale=str(error))

    @property
    def silent(self) -> bool:
        """Whether the cluster left the last attempt without an answer."""
        return self._trouble is not None

    @property
    def last_seen(self) -> datetime | None:
        """When the cluster last answered."""
        return self._latest.taken_at if self._latest else None

    def invalidate(self) -> None:
        """Something was changed: what was read before now is no longer current."""
        self._written = monotonic()

    async def aclose(self) -> None:
        """Stop asking."""
        if self._refreshing:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    async def _renewed(self) -> InventoryView:
        """A new snapshot; a cluster that was silent is asked again, but no longer waited for."""
        if self._trouble and monotonic() < self._quiet_until:
            raise self._trouble
        patience = self._patience
        try:
            async with asyncio.timeout(patience):
                return await asyncio.shield(self._refresh())
        except TimeoutError:
            silence = f"{self.pve.name} did not answer within {patience:g} s"
            first = proxmox_client.DeadlineExceeded(silence)
            raise self._silent(self._trouble or first) from None
        except SILENCE as error:
            raise self._silent(error) from error

    @property
    def _patience(self) -> float:
        if self._trouble:
            return self.glance
        return self.short_patience if self._latest else self.patience

    def _silent(self, trouble: proxmox_client.ProxmoxError) -> proxmox_client.ProxmoxError:
        self._trouble, self._quiet_until = trouble, monotonic() + self.quiet
        return trouble

    def _refresh(self) -> asyncio.Task[InventoryView]:
        running = self._refreshing
        if running is None or running.done() or self._asked < self._written:
            self._asked = monotonic()
            # An empty context: the deadline of whoever asks first is not that of the others
            running = asyncio.create_task(
                self._fetch(self._asked), name="inventory refresh", context=Context()
            )
            running.add_done_callback(_looked_at)
            self._refreshing = running
        return running

    async def _fetch(self, asked: float) -> InventoryView:
        fetched = InventoryView.of(await self.pve.cluster.resources(), asked)
        self._trouble = None
        if self._latest is None or fetched.taken >= self._latest.taken:
            self._latest = fetched
        return fetched


def _looked_at(refresh: asyncio.Task[InventoryView]) -> None:
    """Its waiters may all have left: then nobody else takes note of how it ended."""
    if not refresh.cancelled():
        refresh.exception()
