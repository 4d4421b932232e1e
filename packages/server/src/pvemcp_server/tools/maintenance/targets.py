"""Which of the nodes that a guest can go to it moves to: by processors, space and memory.

The choice depends on figures that change slowly, so that a plan stays the same while its user
decides: of the nodes with enough free memory, the one whose running guests may use the least.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from pvemcp_server.tables import Guest
from pvemcp_server.toolkit.room import readable
from pvemcp_server.tools.maintenance.facts import HA_MAINTENANCE, MoveFacts
from pvemcp_server.tools.maintenance.placement import Placement, ha_targets, is_moved_back


class Targets:
    """Chooses a node for each guest, the largest guests first, and counts what they take there.

    `allowed` are the nodes that guests may be moved to, `promised` the memory that guests running
    on a node may use, and `models` the processors of nodes, where these are known.
    """

    def __init__(
        self,
        facts: MoveFacts,
        *,
        allowed: AbstractSet[str],
        promised: Mapping[str, int],
        models: Mapping[str, str],
    ) -> None:
        self.nodes: dict[int, str] = {}  # the choice, by VMID
        self.obstacles: dict[int, str] = {}  # why a guest has none
        self.memory: dict[str, int] = {}  # what the chosen guests may use, by node
        self._facts, self._ha = facts, facts.ha
        self._placed = dict(facts.ha.node_of) if facts.ha else {}
        self._models = models
        self._processors = {row.node: row.cpu_total for row in facts.nodes or ()}
        in_maintenance = facts.ha.in_maintenance if facts.ha else frozenset()
        known = [
            row
            for row in facts.nodes or ()
            if row.memory_total and row.memory_usage is not None and row.status == "online"
        ]
        self._allowed = allowed - in_maintenance
        self.free = {row.node: row.memory_total - row.memory_usage for row in known}
        self._unpromised = {row.node: row.memory_total - promised.get(row.node, 0) for row in known}
        self._space = {
            (row.storage, row.node): row.disk_free or 0
            for row in facts.storages or ()
            if row.disk_total
        }

    def choose(self, placed: Iterable[Placement], guests: Mapping[int, Guest]) -> None:
        """Choose for all of these guests."""
        by_size = sorted(placed, key=lambda each: (-_promised(guests[each.vmid]), each.vmid))
        for each in by_size:
            row = guests[each.vmid]
            target, obstacle = self._choice(each, row)
            if obstacle:
                self.obstacles[each.vmid] = obstacle
            else:
                self._take(each, row, target)

    def _choice(self, guest: Placement, row: Guest) -> tuple[str, str]:
        """Return the node for a guest, or why it has none."""
        if guest.obstacle:
            return "", guest.obstacle
        if self._ha is None and row.ha_state:
            return "", "its HA rules could not be read"
        names = list(guest.targets)
        if self._ha and guest.managed and guest.by_ha:  # others of its rules have a new node by now
            names = ha_targets(self._ha, guest.managed, self._facts.node, names, self._placed)
        for fits, obstacle in self._conditions(guest, row):
            if not (names := [name for name in names if fits(name)]):
                return "", obstacle
        target = min(names, key=lambda name: (-self._unpromised[name], name))
        if self._is_moved_back(guest, target):
            command = HA_MAINTENANCE.format(self._facts.node)
            return "", f"HA prefers its node and would move it back: run `{command}` to move it"
        return target, ""

    def _conditions(
        self, guest: Placement, row: Guest
    ) -> Sequence[tuple[Callable[[str], bool], str]]:
        """Return what its node has to be and have, and the obstacle if none is so."""
        memory, model = _memory(row), self._models.get(self._facts.node)
        compares = guest.cpu_is_host and row.status == "running" and model is not None
        copied = " and ".join(
            f"{readable(size)} on {storage}" for storage, size in guest.copies.items()
        )
        return (
            (
                lambda name: name in self._allowed,
                "it can go to none of the nodes that this call may use",
            ),
            (
                lambda name: name in self.free,
                "the free memory of the nodes it can go to is not known",
            ),
            (
                lambda name: (self._processors.get(name) or 0) >= guest.processors,
                f"no node it can go to has {guest.processors} processors",
            ),
            (
                lambda name: not compares or self._models.get(name, model) == model,
                "its CPU type is host, and the nodes it can go to have other processors",
            ),
            (
                lambda name: self._has_space(guest, name),
                f"no node it can go to has {copied} free for its disks",
            ),
            (
                lambda name: self.free[name] >= memory,
                f"no node it can go to has {readable(memory)} of memory free",
            ),
        )

    def _has_space(self, guest: Placement, node: str) -> bool:
        return all(
            self._space.get((storage, node), size) >= size for storage, size in guest.copies.items()
        )

    def _is_moved_back(self, guest: Placement, target: str) -> bool:
        return bool(
            self._ha
            and guest.managed
            and guest.by_ha
            and is_moved_back(self._ha, guest.managed, self._facts.node, target, self._placed)
        )

    def _take(self, guest: Placement, row: Guest, target: str) -> None:
        """Count what the guest takes on its node, and let HA rules see it there."""
        self.nodes[guest.vmid] = target
        promised = _promised(row)
        self.memory[target] = self.memory.get(target, 0) + promised
        self.free[target] -= _memory(row)
        self._unpromised[target] -= promised
        for storage, size in guest.copies.items():
            if (storage, target) in self._space:
                self._space[storage, target] -= size
        if self._ha and guest.managed:
            self._placed[guest.vmid] = target


def _promised(row: Guest) -> int:
    """Return the memory that a guest may use where it goes."""
    return (row.memory_max or 0) if row.status == "running" else 0


def _memory(row: Guest) -> int:
    """Return the memory that has to be free for it; a container uses less than its limit."""
    used = row.memory_usage if row.type == "lxc" else None
    return _promised(row) if used is None else min(used, _promised(row))
