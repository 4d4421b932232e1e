"""The inventory: the cached `/cluster/resources` of a cluster, as one Proxmox identity sees it.

It is refreshed on demand and shared by all callers of that identity, never with another one.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextvars import Context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

import proxmox_client
from proxmox_client import BackupServer, Client
from proxmox_client.api.backup_server import DatastoreUsage
from proxmox_client.api.resources import (
    GuestResource,
    NodeResource,
    PoolResource,
    StorageResource,
)
from proxmox_client.api.resources import Resources as ClusterResources
from pvemcp_server.access.model import Resources
from pvemcp_server.clusters.explain import reason_of
from pvemcp_server.clusters.kept_configs import KeptConfigs

T = TypeVar("T")
# Errors after which an older answer is better than none
NO_ANSWER = (
    proxmox_client.Unreachable,
    proxmox_client.DeadlineExceeded,
    proxmox_client.NodeUnreachable,
    proxmox_client.UnexpectedAnswer,
)

POOLED: Final = ("guests", "nodes", "storages", "pools")  # rows that compare by their values
BUSY_SECONDS = 0.1  # by which a timeout comes late if this process was busy

_QUOTES: Final = ("'", '"')
_OF_GUESTS: Final = ("qemu/", "lxc/", "guest/", *_QUOTES)


@dataclass(frozen=True)
class InventoryView:
    """An answer of /cluster/resources. `stale` is the reason why it could not be refreshed.

    `is_delayed` if that is a lack of time here, and no sign that the cluster does not answer.

    That of a backup server has its datastores, and nothing else.
    """

    taken: float  # when the request was sent, on the monotonic clock: later changes may be missing
    taken_at: datetime
    guests: tuple[GuestResource, ...]
    nodes: tuple[NodeResource, ...]
    storages: tuple[StorageResource, ...]
    pools: tuple[PoolResource, ...]
    stale: str = ""
    is_delayed: bool = False
    malformed: tuple[str, ...] = ()  # rows and values that could not be decoded
    datastores: tuple[DatastoreUsage, ...] = ()
    derived: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)
    """A cache of values derived from this view, with the view's lifetime and identity."""

    @cached_property
    def by_vmid(self) -> dict[int, GuestResource]:
        """The guests by VMID."""
        return {guest.vmid: guest for guest in self.guests}

    @cached_property
    def by_node(self) -> dict[str, NodeResource]:
        """The nodes by name."""
        return {node.node: node for node in self.nodes}

    @cached_property
    def offline_nodes(self) -> frozenset[str]:
        """The nodes that have left the cluster. All others are asked, whatever their status."""
        return frozenset(node.node for node in self.nodes if node.is_offline)

    @cached_property
    def nodes_without_statistics(self) -> frozenset[str]:
        """The members whose statistics are missing, and with them the state of their guests."""
        return frozenset(node.node for node in self.nodes if node.lacks_statistics)

    @property
    def may_lack_guests(self) -> bool:
        """Whether a whole row is malformed that may be a guest's: its name is none of others."""
        rows = (what for what in self.malformed if " of " not in what or what.startswith(_QUOTES))
        return any("/" not in row or row.startswith(_OF_GUESTS) for row in rows)

    @property
    def doubt(self) -> str:
        """What an error about an unknown name adds if a part of the inventory is not readable."""
        return ", of whose inventory a part is malformed: it may exist" if self.malformed else ""

    def within(self, scope: Resources) -> "InventoryView":
        """Return the part that `scope` covers; the same object for the same scope."""
        key = ("within", scope, self.stale)
        if key not in self.derived:
            self.derived[key] = InventoryView(
                taken=self.taken,
                taken_at=self.taken_at,
                guests=tuple(guest for guest in self.guests if covers_guest(scope, guest)),
                nodes=tuple(node for node in self.nodes if scope.covers_node(node.node)),
                storages=tuple(
                    storage
                    for storage in self.storages
                    if scope.covers_storage(storage.storage, node=storage.node)
                ),
                pools=tuple(pool for pool in self.pools if scope.covers_pool(pool.pool)),
                stale=self.stale,
                is_delayed=self.is_delayed,
                malformed=self.malformed,
                datastores=tuple(
                    usage for usage in self.datastores if scope.covers_storage(usage.store)
                ),
            )
        part: InventoryView = self.derived[key]
        return part


def covers_guest(scope: Resources, guest: GuestResource) -> bool:
    """Return whether the scope covers the guest."""
    return scope.covers_guest(
        guest.vmid, node=guest.node, pool=guest.pool or "", tags=guest.tag_list
    )


class ShareRows(Protocol):
    """Keeps equal rows of several accounts once."""

    def shared(self, rows: Iterable[T]) -> tuple[T, ...]:
        """Return the rows, with known ones in place of equal ones."""


class ShareFetches(Protocol):
    """Fetches the inventory of an identity once for all processes."""

    async def view(
        self, fetch: Callable[[float], Awaitable[InventoryView]], sent: float, oldest: float
    ) -> InventoryView:
        """Return a view that was taken after `oldest`, by `fetch` or by another process."""


@dataclass(eq=False)
class Inventory:
    """The latest InventoryView of a cluster and identity; concurrent callers share one request.

    A view is current while it is younger than `freshness` and its request was sent after the last
    write through this server (`invalidate`). The times are compared instead of versions as in
    `VersionedCache`, because a view also expires by age, and is still used as a stale answer.

    Circuit breaker: a refresh has a timeout. After a failure further callers get the old view, or
    the error, at once for `retry_after` seconds. The request itself is not cancelled by a timeout,
    so a slow answer still updates the view. The next attempt waits for `retry_timeout` only.
    """

    client: Client | BackupServer
    freshness: Callable[[], float]  # seconds for which a view is current
    timeout: float = 15.0  # seconds to wait for a cluster that has never answered
    short_timeout: float = 5.0  # the same when there is an older view to return
    retry_timeout: float = 1.0  # the same after a failed attempt
    retry_after: float = 5.0  # seconds after a failed attempt during which no call waits
    search_after: float = 60.0  # seconds after a search for a host with quorum, until the next
    reads: Counter[str] = field(default_factory=Counter)  # "cached", "refreshed" or "stale"
    new_context: Callable[[], Context] = Context  # of a refresh: not that of its first caller
    configs: KeptConfigs = field(default_factory=KeptConfigs)
    pool: ShareRows | None = None  # if other accounts may see the same rows
    fleet: ShareFetches | None = None  # if other processes may read it
    failure: proxmox_client.ProxmoxError | None = None  # of the last attempt, until an answer
    _latest: InventoryView | None = None
    _refreshing: asyncio.Task[InventoryView] | None = None
    _sent: float = -1.0  # when the running refresh was sent
    _written: float = -1.0  # when something was last changed through this server
    _retry_at: float = -1.0
    _search_at: float = -1.0

    async def view(self) -> InventoryView:
        """Return a current view; or the latest one, marked stale, if Proxmox does not answer."""
        latest = self._latest
        oldest = max(monotonic() - self.freshness(), self._written)
        if latest and latest.taken > oldest:
            self.reads["cached"] += 1
            return latest
        try:
            refreshed = await self._refreshed()
        except NO_ANSWER as error:
            self.reads["stale"] += 1
            if latest is None:
                raise
            delayed = isinstance(error, proxmox_client.Delayed)
            return replace(latest, stale=reason_of(error), is_delayed=delayed)
        self.reads["refreshed"] += 1
        return refreshed

    @property
    def last_seen(self) -> datetime | None:
        """When the cluster last answered."""
        return self._latest.taken_at if self._latest else None

    @property
    def latest(self) -> InventoryView | None:
        """The latest view, however old, without asking Proxmox; None before the first one."""
        return self._latest

    @property
    def written(self) -> float:
        """When something was last changed through this server, on the monotonic clock.

        Also by other accounts: their writes end no view, which lasts seconds only.
        """
        return max(self._written, self.client.written)

    def invalidate(self) -> None:
        """Mark every view that was requested until now as outdated, after a write."""
        self._written = monotonic()

    async def aclose(self) -> None:
        """Cancel the running refresh."""
        if self._refreshing:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    async def _refreshed(self) -> InventoryView:
        """Return the view of the running request, or of a new one if it is older than a write."""
        if self.failure and monotonic() < self._retry_at:
            raise self.failure
        if self.failure:
            timeout = self.retry_timeout
        else:
            timeout = self.short_timeout if self._latest else self.timeout
        running = self._refreshing
        if running is None or running.done() or self._sent < self._written:
            self._sent = monotonic()
            # a new context: the deadline of the first caller must not apply to the others
            sent, fleet = self._sent, self.fleet
            work = self._fetch(sent) if fleet is None else self._shared(fleet, sent)
            running = asyncio.create_task(
                work, name="inventory refresh", context=self.new_context()
            )
            # retrieve the exception, which asyncio would log if every caller has timed out
            running.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._refreshing = running
        began, seconds = monotonic(), timeout
        while True:
            ends = monotonic() + seconds
            try:
                async with asyncio.timeout(seconds):
                    return await asyncio.shield(running)
            except TimeoutError:
                # while this process was busy, an answer may have come that it has not read yet
                if (seconds := monotonic() - ends) < BUSY_SECONDS:
                    raise self._timed_out(timeout, began) from None
            except proxmox_client.Delayed:
                raise
            except NO_ANSWER as error:
                raise self._failed(error) from error

    def _timed_out(self, timeout: float, began: float) -> proxmox_client.ProxmoxError:
        """Return the error of a refresh that takes too long: a delay here proves no silence."""
        name, answers = self.client.name, self.client.answers(began)
        reason = self.client.delay(began)
        known = None if isinstance(self.failure, proxmox_client.Delayed) else self.failure
        if reason and (answers or known is None):
            message = f"The inventory of {name} did not come within {timeout:g} s: {reason}"
            delayed = proxmox_client.Delayed(message)
            # a cluster that is slow makes no later call wait; our own queue is worth the wait
            return self._failed(delayed) if answers else delayed
        if known is None:
            self.client.note_silence(timeout)
        first = proxmox_client.DeadlineExceeded(f"{name} did not answer within {timeout:g} s")
        return self._failed(known or first)

    def _failed(self, error: proxmox_client.ProxmoxError) -> proxmox_client.ProxmoxError:
        self.failure, self._retry_at = error, monotonic() + self.retry_after
        return error

    async def _shared(self, fleet: ShareFetches, sent: float) -> InventoryView:
        """Return the view that another process has fetched, or fetch it for all."""
        oldest = max(sent - self.freshness(), self._written)
        view = await fleet.view(self._fetch, sent, oldest)
        if self.pool is not None:
            rows: dict[str, Any] = {n: self.pool.shared(getattr(view, n)) for n in POOLED}
            view = replace(view, **rows)
        self.failure = None
        if self._latest is None or view.taken >= self._latest.taken:
            self._latest = view
        return view

    async def _fetch(self, sent: float) -> InventoryView:
        resources, malformed = await self._resources()
        offline = sum(node.is_offline for node in resources.nodes)
        # the host that answered may be in a partition without quorum
        if offline and offline * 2 >= len(resources.nodes) and await self._has_moved():
            resources, malformed = await self._resources()
        rows = self.pool.shared if self.pool else tuple
        fetched = InventoryView(
            taken=sent,
            taken_at=datetime.now(UTC),
            guests=rows(resources.guests),
            nodes=rows(resources.nodes),
            storages=rows(resources.storages),
            pools=rows(resources.pools),
            malformed=tuple(malformed),
            datastores=tuple(resources.datastores),
        )
        self.failure = None
        if self._latest is None or fetched.taken >= self._latest.taken:
            self._latest = fetched
        return fetched

    async def _resources(self) -> tuple[ClusterResources, list[str]]:
        with proxmox_client.tolerate_malformed() as malformed:
            if isinstance(self.client, BackupServer):
                datastores = await self.client.datastores()
                return ClusterResources([], [], [], [], [], datastores), malformed
            return await self.client.cluster.resources(), malformed

    async def _has_moved(self) -> bool:
        """Return whether another host has quorum, so that it is asked from now on.

        Hosts that are down answer late: they are looked for once in `search_after` seconds only.
        """
        if monotonic() < self._search_at or isinstance(self.client, BackupServer):
            return False
        self._search_at = monotonic() + self.search_after
        try:
            return await self.client.cluster.find_quorum()
        except proxmox_client.ProxmoxError:
            return False  # without Sys.Audit, or time: the answer at hand is better than none
