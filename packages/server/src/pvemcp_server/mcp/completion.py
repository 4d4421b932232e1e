"""Completion of arguments: names that this caller may see."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import mcp_types as types

from proxmox_client.properties import whole_number
from pvemcp_server.clusters import InventoryView, outcome_of
from pvemcp_server.query.sources import granted_catalog
from pvemcp_server.toolkit.call import Call

MOST: Final = 100  # values in one response, by the specification
# The tool of each argument: a caller gets the names that this tool would show
TOOLS: Final[Mapping[str, str]] = {
    "cluster": "ListClusters",
    "node": "ListNodes",
    "target": "ListNodes",
    "vmid": "ListVms",
    "storage": "ListStorage",
    "table": "GetQuerySchema",
}


async def complete(call: Call, argument: str, typed: str, cluster: str | None) -> list[str]:
    """Return all names for the argument that contain the typed text, the likeliest first."""
    if argument == "cluster":
        return _matching({name: name for name in await call.reachable()}, typed)
    if argument == "table":
        catalog = granted_catalog(call.caller, await call.source.kinds())
        return _matching({name: name for name in catalog.tables}, typed)
    names: dict[str, str] = {}
    opened = await outcome_of(call.all_clusters(cluster or None), "names to complete")
    if isinstance(opened, Exception):
        return []  # an error does not help a user who is still typing
    views = await asyncio.gather(
        *(outcome_of(each.inventory_view(), f"names of {each.name}") for each in opened)
    )
    for view in views:
        if not isinstance(view, Exception):
            names |= _names(argument, view)
    return _matching(names, typed)


def complete_result(values: list[str]) -> types.CompleteResult:
    """Return the first MOST values, with their total."""
    completion = types.Completion(
        values=values[:MOST], total=len(values), has_more=len(values) > MOST
    )
    return types.CompleteResult(completion=completion)


def _names(argument: str, view: InventoryView) -> dict[str, str]:
    """Return the values, each with the text that is searched."""
    if argument == "vmid":
        return {str(guest.vmid): f"{guest.vmid} {guest.name}" for guest in view.guests}
    if argument == "storage":
        return {row.storage: row.storage for row in view.storages}
    return {row.node: row.node for row in view.nodes}


def _matching(names: Mapping[str, str], typed: str) -> list[str]:
    part = typed.casefold()

    def rank(value: str) -> tuple[bool, Iterable[object]]:
        begins = value.casefold().startswith(part)
        number = whole_number(value)
        return not begins, (0, value) if number is None else (number, "")

    return sorted((v for v, text in names.items() if part in text.casefold()), key=rank)
