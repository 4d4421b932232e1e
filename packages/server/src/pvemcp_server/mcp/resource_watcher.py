"""Notices changes of resources that somebody has subscribed to, by what the inventory says of them.

Figures of usage change all the time and count as no change. Proxmox is asked once for each
cluster and identity in an interval, and only while somebody is subscribed.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from proxmox_client import ProxmoxError
from proxmox_client.api.resources import GuestResource, NodeResource
from pvemcp_server.access.model import Caller
from pvemcp_server.clusters import InventoryView
from pvemcp_server.errors import CallError, StateUnavailable
from pvemcp_server.mcp.elicitation import Silent
from pvemcp_server.mcp.notifications import NotificationBus
from pvemcp_server.mcp.resources import Place, find
from pvemcp_server.pipeline.pipeline import Pipeline

MOST_PER_KEY: Final = 200  # addresses watched at a time
PAUSE_SECONDS: Final = 5.0  # after a failure
USAGE: Final = frozenset(
    {"uptime", "cpu", "memory", "memory_host", "disk"}
    | {"disk_read", "disk_write", "network_in", "network_out"}
)

log = logging.getLogger(__name__)

Facts = Hashable | None  # None: there is no such thing for this caller


def facts_of(one: GuestResource | NodeResource | None) -> Facts:
    """All that is known of it but how busy it is."""
    if one is None:
        return None
    return tuple(getattr(one, name) for name in one.__struct_fields__ if name not in USAGE)


def _of_cluster(view: InventoryView, _values: Mapping[str, str]) -> Facts:
    guests = Counter((one.type, one.status) for one in view.guests)
    nodes = [(one.node, one.status) for one in view.nodes]
    storages = [(one.storage, one.node, one.status) for one in view.storages]
    return frozenset(guests.items()), frozenset(nodes), frozenset(storages)


def _of_node(view: InventoryView, values: Mapping[str, str]) -> Facts:
    return facts_of(view.by_node.get(values["node"]))


def _of_guest(view: InventoryView, values: Mapping[str, str]) -> Facts:
    vmid = values["vmid"]
    return facts_of(view.by_vmid.get(int(vmid)) if vmid.isdecimal() and len(vmid) < 12 else None)


# By name of the family. The others could be watched only by asking Proxmox for each of them
KNOWN: Final[Mapping[str, Callable[[InventoryView, Mapping[str, str]], Facts]]] = {
    "cluster": _of_cluster,
    "node": _of_node,
    "guest": _of_guest,
}


class NoAnswer(Exception):
    """The cluster does not answer now, which says nothing of what is in it."""


@dataclass
class Watcher:
    """Compares what it knows of each watched address with what the inventory says now."""

    pipeline: Pipeline
    notifications: NotificationBus
    _known: dict[tuple[str, str], Facts] = field(default_factory=dict)  # by key and address

    async def run(self) -> None:
        """Looks after every renewal of the inventory, until cancelled."""
        while True:
            try:
                settings = await self.pipeline.settings.current()
                await asyncio.sleep(settings.inventory_freshness_seconds)
                await self.look()
            except StateUnavailable:
                await asyncio.sleep(PAUSE_SECONDS)  # the store itself tells of it, once
            except Exception:
                log.exception("Could not look after watched resources")
                await asyncio.sleep(PAUSE_SECONDS)

    async def accepted(self, caller: Caller, uris: Iterable[str]) -> list[str]:
        """The addresses whose changes this caller will be told; what is known now is kept."""
        watched = self.notifications.watched().get(caller.key_id, set())
        found: list[str] = []
        for uri in dict.fromkeys(uris):
            if len(watched.union(found, [uri])) > MOST_PER_KEY:
                break
            if await self._begun(caller, uri):
                found.append(uri)
        return found

    async def _begun(self, caller: Caller, uri: str) -> bool:
        """Whether there is such a thing for this caller; then what it is now is remembered."""
        try:
            facts = await self._facts(caller, uri)
        except NoAnswer:
            return False
        if facts is not None:
            self._known.setdefault((caller.key_id, uri), facts)
        return facts is not None

    async def look(self) -> None:
        """Tell of each watched resource that is not as it was."""
        watched = self.notifications.watched()
        self._known = {
            (key, uri): facts
            for (key, uri), facts in self._known.items()
            if uri in watched.get(key, ())
        }
        callers = [await self.notifications.find(key_id) for key_id in watched]
        await asyncio.gather(
            *(self._compare(one, uri) for one in callers if one for uri in watched[one.key_id])
        )

    async def _compare(self, caller: Caller, uri: str) -> None:
        try:
            facts = await self._facts(caller, uri)
        except NoAnswer:
            return
        before = self._known.setdefault((caller.key_id, uri), facts)
        if facts != before:
            self._known[caller.key_id, uri] = facts
            await self.notifications.updated(caller.key_id, uri)

    async def _facts(self, caller: Caller, uri: str) -> Facts:
        """What the inventory says of that address, as far as the caller may read it."""
        found = find(uri)
        if found is None or found[0].name not in KNOWN:
            return None
        place, values = found
        view = await self._view(caller, place, values["cluster"])
        return None if view is None else KNOWN[place.name](view, values)

    async def _view(self, caller: Caller, place: Place, cluster: str) -> InventoryView | None:
        """The cluster as the caller sees it with the tool that reads the place."""
        tool = self.pipeline.tools.get(place.tool)
        if tool is None or not caller.may_call(tool.name, tool.effect):
            return None
        call = await self.pipeline.open(tool, caller, Silent())
        try:
            view = await (await call.cluster(cluster)).inventory_view()
        except CallError:
            return None
        except (ProxmoxError, TimeoutError):
            raise NoAnswer from None
        if view.stale:
            raise NoAnswer
        return view
