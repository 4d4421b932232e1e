"""Notices changes of subscribed resources by comparing them with the cached inventory.

Usage figures change all the time and are ignored. Proxmox is asked once per cluster and identity
in each interval, and only while a client is subscribed.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from proxmox_client.api.resources import GuestResource, NodeResource
from proxmox_client.properties import whole_number
from pvemcp_server.access.model import Caller
from pvemcp_server.clusters import InventoryView, outcome_of
from pvemcp_server.errors import CallError, StateUnavailable
from pvemcp_server.mcp.elicitation import SilentConversation
from pvemcp_server.mcp.notifications import NotificationBus
from pvemcp_server.mcp.resources import ResourceFamily, find
from pvemcp_server.pipeline.pipeline import Pipeline

MOST_WATCHED: Final = 200  # URIs of a key at a time, or of all connections of a user
RETRY_SECONDS: Final = 5.0  # after a failure
USAGE: Final = frozenset(
    {"uptime", "cpu", "memory", "memory_host", "disk"}
    | {"disk_read", "disk_write", "network_in", "network_out"}
)

log = logging.getLogger(__name__)

Facts = Hashable | None  # None: no such resource for this caller


def facts_of(resource: GuestResource | NodeResource | None) -> Facts:
    """Return all fields but the usage figures."""
    if resource is None:
        return None
    return tuple(
        getattr(resource, name) for name in resource.__struct_fields__ if name not in USAGE
    )


def _of_cluster(view: InventoryView, _values: Mapping[str, str]) -> Facts:
    guests = Counter((guest.type, guest.status) for guest in view.guests)
    nodes = [(node.node, node.status) for node in view.nodes]
    storages = [(row.storage, row.node, row.status) for row in view.storages]
    return frozenset(guests.items()), frozenset(nodes), frozenset(storages)


def _of_node(view: InventoryView, values: Mapping[str, str]) -> Facts:
    return facts_of(view.by_node.get(values["node"]))


def _of_guest(view: InventoryView, values: Mapping[str, str]) -> Facts:
    vmid = whole_number(values["vmid"])
    return facts_of(None if vmid is None else view.by_vmid.get(vmid))


# By name of the family. Others could be watched only by a request to Proxmox for each resource
FACTS: Final[Mapping[str, Callable[[InventoryView, Mapping[str, str]], Facts]]] = {
    "cluster": _of_cluster,
    "node": _of_node,
    "guest": _of_guest,
}


class ClusterUnavailable(Exception):
    """The cluster does not answer, so nothing is known about changes in it."""


@dataclass
class ResourceWatcher:
    """Compares the last known facts of each watched URI with the inventory."""

    pipeline: Pipeline
    notifications: NotificationBus
    _facts: dict[tuple[str, str], Facts] = field(default_factory=dict)  # by key id and URI
    _written: asyncio.Event = field(default_factory=asyncio.Event)

    def written(self) -> None:
        """Compare soon: a write to Proxmox was sent, by this process or another one."""
        self._written.set()

    async def run(self) -> None:
        """Compare once per renewal of the inventory, and after writes, until cancelled."""
        while True:
            try:
                settings = await self.pipeline.settings.current()
                with suppress(TimeoutError):
                    async with asyncio.timeout(settings.inventory_freshness_seconds):
                        await self._written.wait()
                self._written.clear()
                await self.compare_all()
            except StateUnavailable:
                await asyncio.sleep(RETRY_SECONDS)  # the store logs this itself, once
            except Exception:
                log.exception("Watched resources could not be compared")
                await asyncio.sleep(RETRY_SECONDS)

    async def accepted(self, caller: Caller, uris: Iterable[str]) -> list[str]:
        """Return the URIs that will be watched for this caller; their facts are recorded now."""
        watched = self.notifications.watched().get(caller.key_id, set())
        left = MOST_WATCHED - self.notifications.number_watched(caller.holder)
        accepted: list[str] = []
        for uri in dict.fromkeys(uris):
            if len({*accepted, uri} - watched) > left:
                break
            try:
                facts = await self._current(caller, uri)
            except ClusterUnavailable:
                continue
            if facts is not None:
                self._facts.setdefault((caller.key_id, uri), facts)
                accepted.append(uri)
        return accepted

    async def compare_all(self) -> None:
        """Notify subscribers of each watched resource that has changed."""
        watched = self.notifications.watched()
        self._facts = {
            (key_id, uri): facts
            for (key_id, uri), facts in self._facts.items()
            if uri in watched.get(key_id, ())
        }
        callers = [await self.notifications.find(key_id) for key_id in watched]
        await asyncio.gather(
            *(
                self._compare(caller, uri)
                for caller in callers
                if caller
                for uri in watched[caller.key_id]
            )
        )

    async def _compare(self, caller: Caller, uri: str) -> None:
        try:
            facts = await self._current(caller, uri)
        except ClusterUnavailable:
            return
        before = self._facts.setdefault((caller.key_id, uri), facts)
        if facts != before:
            self._facts[caller.key_id, uri] = facts
            await self.notifications.updated(caller.key_id, uri)

    async def _current(self, caller: Caller, uri: str) -> Facts:
        """Return the facts as far as the caller may read them; raise ClusterUnavailable."""
        match = find(uri)
        if match is None or match[0].name not in FACTS:
            return None
        family, values = match
        view = await self._view(caller, family, values["cluster"])
        return None if view is None else FACTS[family.name](view, values)

    async def _view(
        self, caller: Caller, family: ResourceFamily, cluster: str
    ) -> InventoryView | None:
        """Return the inventory as the caller sees it with the family's tool."""
        tool = self.pipeline.tools.get(family.tool)
        if tool is None or not caller.may_call(tool):
            return None
        call = await self.pipeline.open(tool, caller, SilentConversation())
        try:
            opened = await call.cluster(cluster)
        except CallError:
            return None
        view = await outcome_of(opened.inventory_view(), f"watched resources of {cluster}")
        if isinstance(view, Exception) or view.stale:
            raise ClusterUnavailable
        return view
