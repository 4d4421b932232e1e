"""Where the guests of a node can go: by storages, devices, HA rules or groups."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

from proxmox_client.api.configs import GuestDisk
from proxmox_client.api.guests import BothConfigs
from proxmox_client.properties import whole_number
from pvemcp_server.tables import HaResource
from pvemcp_server.toolkit.node_bound import bound_devices, bound_drive, clone_base, mapped_devices
from pvemcp_server.tools.maintenance.facts import HighAvailability, MoveFacts

_FAILED: Final = ("error", "fence", "recovery")
_FOLLOWED: Final = "started"  # the requested state in which the HA manager moves a guest
_RUNNING: Final = frozenset({"running"})


@dataclass(frozen=True)
class Placement:
    """A guest of the node: the nodes it can go to, or why it cannot."""

    vmid: int
    name: str
    type: str
    managed: HaResource | None
    targets: tuple[str, ...]  # for HA only those of the highest priority
    obstacle: str  # why it cannot move; empty if it can
    copies: Mapping[str, int]  # bytes of its local disks, which move with it, by storage
    cpu_is_host: bool
    processors: int  # that a virtual machine starts with; 0 for a container
    has_mapped_devices: bool

    @property
    def label(self) -> str:
        return f"{self.vmid} {self.name}".strip()

    @property
    def by_ha(self) -> bool:
        """Whether the HA manager moves it."""
        return self.managed is not None and self.managed.requested_state == _FOLLOWED

    @property
    def copied(self) -> int:
        """Bytes of local disks that move with it."""
        return sum(self.copies.values())


def placements(facts: MoveFacts, states: AbstractSet[str] = _RUNNING) -> list[Placement] | None:
    """Return the guests of the node in these states, if there are nodes to move them to.

    None if their configurations, or the other nodes, are not known.
    A guest whose own configuration was not read is left out; a note says so.
    """
    if facts.is_alone or facts.is_offline:
        return []
    if not facts.covers_all or None in (facts.guests, facts.configs, facts.nodes, facts.storages):
        return None
    rows = {row.vmid: row for row in facts.guests or () if row.status in states}
    managed = {row.vmid: row for row in facts.ha.resources} if facts.ha else {}
    places = _Places(facts)
    return [
        _place(facts, places, rows[guest.vmid], both, managed.get(guest.vmid))
        for guest, both in facts.configs or ()
        if guest.vmid in rows
    ]


def by_room(facts: MoveFacts, names: Iterable[str]) -> list[str]:
    """Return the nodes by their free memory, the most first; unknown figures come last."""
    free = {
        row.node: row.memory_total - row.memory_usage
        for row in facts.nodes or ()
        if row.memory_total and row.memory_usage is not None
    }
    return sorted(names, key=lambda name: (-free.get(name, -1), name))


class _Places:
    """The other nodes, those with the most free memory first, and the storages of all nodes."""

    def __init__(self, facts: MoveFacts) -> None:
        rows = facts.storages or ()
        others = [
            row.node
            for row in facts.nodes or ()
            if row.node != facts.node and row.status != "offline"
        ]
        self.others = by_room(facts, others)
        self.shared = {row.storage: row.shared for row in rows if row.node == facts.node}
        # a node without statistics has its storages, as far as is known
        blind = {row.node for row in facts.nodes or () if row.status == "unknown"}
        self._available = {
            (row.storage, row.node) for row in rows if row.is_available or row.node in blind
        }

    def with_storages(self, names: AbstractSet[str]) -> list[str]:
        """Return the other nodes that have all of these storages."""
        return [
            node for node in self.others if all((name, node) in self._available for name in names)
        ]


def _place(
    facts: MoveFacts, places: _Places, row: Any, both: BothConfigs[Any], managed: HaResource | None
) -> Placement:
    disks = [disk for disk in both.disks if disk.storage and disk.media != "cdrom"]
    local = [disk for disk in disks if places.shared.get(disk.storage or "") is False]
    names = {disk.storage for disk in disks if disk.storage}
    copies = dict[str, int]()
    for disk in local:
        copies[disk.storage or ""] = copies.get(disk.storage or "", 0) + (disk.size or 0)
    targets = places.with_storages(names)
    obstacle = "; ".join(_obstacles(both, places.shared, local, managed))
    if not obstacle and not targets:
        obstacle = f"no other node has {', '.join(sorted(names))}"
    if not obstacle and facts.ha and managed and managed.requested_state == _FOLLOWED:
        targets = ha_targets(facts.ha, managed, facts.node, targets)
        obstacle = "" if targets else "its HA rules allow no other node now"
    return Placement(
        vmid=row.vmid,
        name=row.name,
        type=row.type,
        managed=managed,
        targets=() if obstacle else tuple(targets),
        obstacle=obstacle,
        copies=copies,
        cpu_is_host=(getattr(both.current, "cpu", None) or "").partition(",")[0] == "host",
        processors=(both.current.cores or 1) * getattr(both.current, "sockets", 0),
        has_mapped_devices=bool(mapped_devices(both.current.raw | both.pending.raw)),
    )


def _obstacles(
    both: BothConfigs[Any],
    shared: Mapping[str, bool],
    local: Sequence[GuestDisk],
    managed: HaResource | None,
) -> Iterator[str]:
    """Yield what binds the guest to the node."""
    if managed and managed.state in _FAILED:
        yield f"HA reports {managed.state}"
    if devices := sorted({*bound_devices(both.current.raw), *bound_devices(both.pending.raw)}):
        yield f"devices of the node: {', '.join(devices)}"
    for drive in both.disks:
        if obstacle := bound_drive(drive, shared=shared.get(drive.storage or "")):
            yield obstacle.text
    if clones := [disk.id for disk in local if clone_base(disk)]:
        yield f"linked clones on a local storage: {', '.join(clones)}"


def ha_targets(
    ha: HighAvailability,
    managed: HaResource,
    node: str,
    targets: Iterable[str],
    placed: Mapping[int, str] | None = None,
) -> list[str]:
    """Return to which of these nodes the HA manager may move a guest that is on `node`.

    `placed` are the nodes of guests by VMID, if not those where they are now.

    Of the nodes that a rule or a group names, those of the highest priority. Guests of a positive
    resource affinity go where the others of it are, unless these are on `node` as well.
    """
    allowed = [each for each in targets if each not in ha.in_maintenance]
    node_of = ha.node_of if placed is None else placed
    for rule in ha.rules:
        if not rule.enabled or managed.vmid not in rule.vmids:
            continue
        if rule.type == "node-affinity":
            allowed = _preferred(allowed, rule.nodes, strict=bool(rule.strict))
            continue
        elsewhere = {
            node_of[vmid]
            for vmid in rule.vmids
            if vmid != managed.vmid and node_of.get(vmid, node) != node
        }
        if rule.affinity == "negative":
            allowed = [each for each in allowed if each not in elsewhere]
        elif elsewhere:
            allowed = [each for each in allowed if each in elsewhere]
    for group in ha.groups:
        if group.group == managed.group:
            allowed = _preferred(allowed, group.nodes, strict=group.restricted)
    return allowed


def is_moved_back(
    ha: HighAvailability,
    managed: HaResource,
    node: str,
    target: str,
    placed: Mapping[int, str] | None = None,
) -> bool:
    """Return whether the HA manager would move the guest from `target` back to `node` (failback).

    It does so if its rules or group prefer `node`, as long as that is in no maintenance.
    """
    if managed.failback is False or any(
        group.group == managed.group and group.no_failback for group in ha.groups
    ):
        return False
    return target not in ha_targets(ha, managed, node, [target, node], placed)


def _preferred(allowed: Sequence[str], named: Iterable[str], *, strict: bool) -> list[str]:
    """Return the allowed nodes of the highest priority; all if none is named and not strict."""
    priorities = {
        name: whole_number(value) or 0 for name, _, value in (n.partition(":") for n in named)
    }
    possible = [name for name in allowed if name in priorities]
    if not possible:
        return [] if strict else list(allowed)
    highest = max(priorities[name] for name in possible)
    return [name for name in possible if priorities[name] == highest]
