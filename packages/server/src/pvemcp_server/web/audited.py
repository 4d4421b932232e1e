"""What an entry of the audit is about: the action, and the guests with their names."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pvemcp_server.audit import Entry
from pvemcp_server.clusters import Clusters
from pvemcp_server.errors import CallError, UnknownName
from pvemcp_server.store.audit_search import GUEST, GUESTS

SHOWN_GUESTS: Final = 3
LONGEST: Final = 60  # characters of a value
WORDS: Final = {  # arguments that name the action, in the order of their words
    "action": "{}",
    "method": "{}",
    "path": "{}",
    "snapshot_name": "snapshot {}",
    "disk": "{}",
    "size": "to {}",
    "volid": "{}",
    "backup": "{}",
    "filename": "{}",
    "service": "{}",
    "argv": "{}",
    "node": "on {}",
    "storage": "on {}",
    "target_node": "to {}",
    "target_storage": "to {}",
    "name": "{}",
    "role": "role {}",
    "dry_run": "dry run",
}


@dataclass(frozen=True)
class Guest:
    """A guest; its name is the last one known, and empty without one."""

    vmid: int
    name: str


@dataclass(frozen=True)
class Audited:
    """The action of an entry in a few words, and its first guests."""

    action: str
    guests: list[Guest]
    further: int  # guests that are not shown


async def audited(clusters: Clusters, entries: Iterable[Entry]) -> dict[int, Audited]:
    """Return what each entry was about by its seq. Proxmox is not asked."""
    names: dict[str, Mapping[int, str]] = {}
    found = {}
    for entry in entries:
        vmids = _vmids(entry.arguments)
        if vmids and entry.cluster and entry.cluster not in names:
            names[entry.cluster] = await _guest_names(clusters, entry.cluster)
        known = names.get(entry.cluster or "", {})
        guests = [Guest(vmid, known.get(vmid, "")) for vmid in vmids[:SHOWN_GUESTS]]
        found[entry.seq] = Audited(
            _action(entry.arguments), guests, max(0, len(vmids) - SHOWN_GUESTS)
        )
    return found


async def _guest_names(clusters: Clusters, cluster: str) -> Mapping[int, str]:
    try:
        view = (await clusters.connection(cluster)).inventory.latest
    except (UnknownName, CallError):  # removed since, or several clusters
        return {}
    return {guest.vmid: guest.name for guest in view.guests} if view else {}


def _vmids(arguments: Mapping[str, Any]) -> list[int]:
    many = arguments.get(GUESTS)
    values = [*map(arguments.get, GUEST), *(many if isinstance(many, list) else ())]
    return list(dict.fromkeys(vmid for value in values if (vmid := _vmid(value)) is not None))


def _vmid(value: Any) -> int | None:
    """Return the number that a client sent, also as a text; a guest may be named instead."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,10}", value):
        return int(value)
    return value if type(value) is int else None


def _action(arguments: Mapping[str, Any]) -> str:
    words = []
    for name, template in WORDS.items():
        value = arguments.get(name)
        if isinstance(value, list):
            value = " ".join(map(str, value))
        if isinstance(value, str | int) and value not in ("", False):
            text = str(value)
            cut = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
            words.append(template.format(cut))
    query = arguments.get("query")
    if isinstance(query, dict) and isinstance(query.get("from"), str):
        words.append(f"from {query['from'][:LONGEST]}")
    return " ".join(words)
