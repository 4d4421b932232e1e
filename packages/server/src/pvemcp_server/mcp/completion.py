"""What could come next while somebody types an argument: names that this caller may see."""

from collections.abc import Iterable, Mapping
from typing import Final

import mcp_types as types

from proxmox_client import ProxmoxError
from pvemcp_server.clusters import InventoryView
from pvemcp_server.errors import CallError
from pvemcp_server.tables.registry import tables
from pvemcp_server.toolkit.call import Call

MOST: Final = 100  # values in one answer, as the protocol has it
# A caller sees of these names what this tool would show
TOOLS: Final[Mapping[str, str]] = {
    "cluster": "ListClusters",
    "node": "ListNodes",
    "target": "ListNodes",
    "vmid": "ListVms",
    "storage": "ListStorage",
    "table": "GetQuerySchema",
}


async def complete(call: Call, argument: str, typed: str, cluster: str | None) -> list[str]:
    """All names for the argument that contain what was typed, the likeliest first."""
    if argument == "cluster":
        return _matching({name: name for name in await call.reachable()}, typed)
    if argument == "table":
        return _matching({name: name for name in tables()}, typed)
    found: dict[str, str] = {}
    try:
        for one in await call.all_clusters(cluster or None):
            found |= _names(argument, await one.inventory_view())
    except (CallError, ProxmoxError):
        return []  # nobody is helped by an error while typing
    return _matching(found, typed)


def answer(values: list[str]) -> types.CompleteResult:
    completion = types.Completion(
        values=values[:MOST], total=len(values), has_more=len(values) > MOST
    )
    return types.CompleteResult(completion=completion)


def _names(argument: str, view: InventoryView) -> dict[str, str]:
    """Values, each with the text that is searched."""
    if argument == "vmid":
        return {str(guest.vmid): f"{guest.vmid} {guest.name}" for guest in view.guests}
    if argument == "storage":
        return {one.storage: one.storage for one in view.storages}
    return {one.node: one.node for one in view.nodes}


def _matching(names: Mapping[str, str], typed: str) -> list[str]:
    wanted = typed.casefold()

    def rank(value: str) -> tuple[bool, Iterable[object]]:
        begins = value.casefold().startswith(wanted)
        return not begins, (int(value), "") if value.isdecimal() else (0, value)

    return sorted((v for v, text in names.items() if wanted in text.casefold()), key=rank)
