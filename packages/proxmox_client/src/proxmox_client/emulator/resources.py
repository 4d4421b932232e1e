"""The rows of /cluster/resources, kept as JSON until something changes."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from proxmox_client.emulator.access.caller import Rights
from proxmox_client.emulator.state import measure
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest
from proxmox_client.emulator.state.load import STEP
from proxmox_client.emulator.state.storage import Storage

FORGOTTEN: Final = 300
"""Seconds after which nobody knows what the guests of a lost node do."""
_encode: Final = msgspec.json.Encoder().encode


class ResourceRows:
    """Rows of everything; those of guests are built once per measurement."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._rows: dict[int, tuple[int, bytes]] = {}

    def json(self, rights: Rights, kind: str | None) -> bytes:
        """The rows a caller may see, as a JSON list."""
        now = self._state.now
        rows: list[bytes] = []
        if kind in (None, "vm"):
            rows.extend(self._guests(rights, now))
        if kind is None:
            rows.extend(_encode(row) for row in self._pool_rows(rights))
        if kind in (None, "node"):
            rows.extend(_encode(row) for row in self._node_rows(rights, now))
        if kind in (None, "storage"):
            rows.extend(_encode(row) for row in self._storage_rows(rights))
        if kind is None or (kind == "sdn" and self._state.release < (9, 0)):
            rows.extend(_encode(row) for row in self._network_rows(rights))
        return b"[" + b",".join(rows) + b"]"

    def _guests(self, rights: Rights, now: float) -> list[bytes]:
        """The rows of the guests a caller may see, with the pools they may know of."""
        may_see = visibility(rights, self._state)
        row_of, lost = self._row, self._forgotten(now)
        phases = {node.name: node.number * 3 for node in self._state.nodes.values()}
        rows = {
            vmid: forgotten(guest) if guest.node in lost else row_of(guest, now, phases)
            for vmid, guest in self._state.guests.items()
            if may_see(guest)
        }
        for pool in self._state.pools.values():
            if rights.has(f"/pool/{pool.poolid}", "Pool.Audit"):
                mark = b"," + _encode({"pool": pool.poolid})[1:]
                for vmid in pool.vmids & rows.keys():
                    rows[vmid] = rows[vmid][:-1] + mark
        return list(rows.values())

    def _row(self, guest: Guest, now: float, phases: dict[str, int]) -> bytes:
        # Every node measures at its own second
        tick = int(now + phases[guest.node]) // STEP if guest.running else 0
        kept = self._rows.get(guest.vmid)
        if kept is not None and kept[0] == tick and guest.row is not None:
            return kept[1]
        if guest.row is None:
            guest.row = _encode(measure.fixed(guest, self._state))[:-1]
        row = guest.row + b"," + _encode(measure.moving(guest, self._state, now))[1:]
        self._rows[guest.vmid] = (tick, row)
        return row

    def _forgotten(self, now: float) -> set[str]:
        """The nodes that have not reported for so long that nobody knows about their guests."""
        nodes = self._state.nodes.values()
        return {node.name for node in nodes if not node.online and now - node.lost > FORGOTTEN}

    def _pool_rows(self, rights: Rights) -> Iterator[dict[str, Any]]:
        for pool in self._state.pools.values():
            if rights.has(f"/pool/{pool.poolid}", "Pool.Audit"):
                yield {"id": f"/pool/{pool.poolid}", "pool": pool.poolid, "type": "pool"}

    def _node_rows(self, rights: Rights, now: float) -> Iterator[dict[str, Any]]:
        for node in self._state.nodes.values():
            row: dict[str, Any] = {
                "id": node.id,
                "node": node.name,
                "type": "node",
                "status": "online" if node.online else "offline",
                "level": "",
            }
            if node.online:
                row["cgroup-mode"] = 2
            if rights.has(node.path, "Sys.Audit"):
                row |= measure.node(node, self._state, now)
            yield row

    def _storage_rows(self, rights: Rights) -> Iterator[dict[str, Any]]:
        for node in self._state.nodes:
            for storage in self._state.storages_on(node):
                if storage.enabled and rights.has_any(
                    storage.path, "Datastore.Audit", "Datastore.AllocateSpace"
                ):
                    yield self._storage(storage, node)

    def _storage(self, storage: Storage, node: str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": f"storage/{node}/{storage.name}",
            "node": node,
            "storage": storage.name,
            "type": "storage",
            "plugintype": storage.type,
            "content": ",".join(storage.content),
            "shared": int(storage.shared),
            "status": "available",
            "disk": storage.used(node),
            "maxdisk": storage.total,
        }
        place = self._state.nodes[node]
        lost = not place.online and self._state.now - place.lost > FORGOTTEN
        return row | {"status": "unknown"} if lost else row

    def _network_rows(self, rights: Rights) -> Iterator[dict[str, Any]]:
        is_new = self._state.release >= (9, 0)
        for node in self._state.nodes.values():
            if not node.online or not rights.has("/sdn/zones/localnetwork", "SDN.Audit"):
                continue
            if is_new:
                yield {
                    "id": f"network/{node.name}/zone/localnetwork",
                    "network": "localnetwork",
                    "network-type": "zone",
                    "node": node.name,
                    "status": "ok",
                    "type": "network",
                }
            else:
                yield {
                    "id": f"sdn/{node.name}/localnetwork",
                    "sdn": "localnetwork",
                    "node": node.name,
                    "status": "ok",
                    "type": "sdn",
                }


def forgotten(guest: Guest) -> bytes:
    """The row of a guest whose node has not reported for long."""
    return _encode(
        {
            "id": f"{guest.kind}/{guest.vmid}",
            "vmid": guest.vmid,
            "type": guest.kind.value,
            "node": guest.node,
            "status": "unknown",
        }
    )


def visibility(rights: Rights, state: ClusterState) -> Callable[[Guest], bool]:
    """Which guests a caller may see; asked once where one answer holds for all."""
    specific = {grant.path for grant in state.people.grants if grant.path.startswith("/vms/")}
    pooled = {vmid for pool in state.pools.values() for vmid in pool.vmids}
    everywhere = rights.has("/vms/0", "VM.Audit")

    def may_see(guest: Guest) -> bool:
        if guest.path in specific or (guest.vmid in pooled and not everywhere):
            return rights.has(guest.path, "VM.Audit")
        return everywhere

    return may_see
