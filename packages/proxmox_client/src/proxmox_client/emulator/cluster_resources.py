"""The rows of /cluster/resources, with a cache of encoded guest rows."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from proxmox_client.emulator.access.principal import Rights
from proxmox_client.emulator.state import metrics
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest
from proxmox_client.emulator.state.load import STEP
from proxmox_client.emulator.state.node import Node
from proxmox_client.emulator.state.storage import Storage

_encode: Final = msgspec.json.Encoder().encode


class ClusterResources:
    """The rows of guests, nodes, storages, pools and networks.

    Guest rows are encoded once per measurement (every STEP seconds): with 10,000 guests, encoding
    them for each request would dominate. The part that does not depend on the time is cached in
    `Guest.row` until `Guest.touch()`; the whole row is cached here by VMID, with its tick.
    """

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._rows: dict[int, tuple[int, bytes]] = {}

    def json(self, rights: Rights, kind: str | None, receiver: Node) -> bytes:
        """Return the rows that the principal may see, as a JSON list of the receiving node."""
        now = self._state.now
        rows: list[bytes] = []
        if kind in (None, "vm"):
            rows.extend(self._guests(rights, receiver, now))
        if kind is None:
            rows.extend(_encode(row) for row in self._pool_rows(rights, receiver, now))
        if kind in (None, "node"):
            rows.extend(_encode(row) for row in self._node_rows(rights, receiver, now))
        if kind in (None, "storage"):
            rows.extend(_encode(row) for row in self._storage_rows(rights, receiver))
        if kind is None or (kind == "sdn" and self._state.release < (9, 0)):
            rows.extend(_encode(row) for row in self._network_rows(rights))
        return b"[" + b",".join(rows) + b"]"

    def _guests(self, rights: Rights, receiver: Node, now: float) -> list[bytes]:
        """Return the encoded guest rows; the pool is added if the principal may audit it."""
        may_see, silent = guest_filter(rights, self._state), self._silent_nodes(receiver, now)
        phases = {node.name: node.number * 3 for node in self._state.nodes.values()}
        rows = {
            vmid: unknown_guest(guest, self._state)
            if guest.node in silent
            else self._guest_row(guest, now, phases)
            for vmid, guest in self._state.guests.items()
            if may_see(guest)
        }
        for pool in self._state.pools.values():
            if rights.has(f"/pool/{pool.poolid}", "Pool.Audit"):
                suffix = b"," + _encode({"pool": pool.poolid})[1:]
                for vmid in pool.vmids & rows.keys():
                    rows[vmid] = rows[vmid][:-1] + suffix
        return list(rows.values())

    def _guest_row(self, guest: Guest, now: float, phases: dict[str, int]) -> bytes:
        # Each node measures at its own second
        tick = int(now + phases[guest.node]) // STEP if guest.running else 0
        cached = self._rows.get(guest.vmid)
        if cached is not None and cached[0] == tick and guest.row is not None:
            return cached[1]
        if guest.row is None:
            guest.row = _encode(metrics.guest_attributes(guest, self._state))[:-1]
        row = guest.row + b"," + _encode(metrics.guest_metrics(guest, self._state, now))[1:]
        self._rows[guest.vmid] = (tick, row)
        return row

    def _silent_nodes(self, receiver: Node, now: float) -> set[str]:
        """Return the nodes of which the receiving node has no statistics."""
        nodes = self._state.nodes.values()
        return {node.name for node in nodes if not node.has_statistics(receiver, now)}

    def _pool_rows(self, rights: Rights, receiver: Node, now: float) -> Iterator[dict[str, Any]]:
        may_see, silent = guest_filter(rights, self._state), self._silent_nodes(receiver, now)
        for pool in self._state.pools.values():
            if rights.has(f"/pool/{pool.poolid}", "Pool.Audit"):
                guests = [
                    self._state.guests[vmid] for vmid in pool.vmids & self._state.guests.keys()
                ]
                running = [
                    guest
                    for guest in guests
                    if guest.running and guest.node not in silent and may_see(guest)
                ]
                row = {"id": f"/pool/{pool.poolid}", "pool": pool.poolid, "type": "pool"}
                yield row | (_sums(running, self._state, now) if running else {})

    def _node_rows(self, rights: Rights, receiver: Node, now: float) -> Iterator[dict[str, Any]]:
        for node in self._state.nodes.values():
            row: dict[str, Any] = {
                "id": node.id,
                "node": node.name,
                "type": "node",
                "status": node.status(receiver, now),
            }
            if node.has_statistics(receiver, now):
                row["level"] = ""
            if node.is_member or node.has_statistics(receiver, now):
                row["cgroup-mode"] = 2
            if rights.has(node.path, "Sys.Audit"):
                row |= metrics.node_metrics(node, self._state, receiver, now)
            yield row

    def _storage_rows(self, rights: Rights, receiver: Node) -> Iterator[dict[str, Any]]:
        silent = self._silent_nodes(receiver, self._state.now)
        for node in self._state.nodes:
            for storage in self._state.storages_on(node):
                if storage.enabled and rights.has_any(
                    storage.path, "Datastore.Audit", "Datastore.AllocateSpace"
                ):
                    yield _storage_row(storage, node, is_known=node not in silent)

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


def _sums(running: list[Guest], state: ClusterState, now: float) -> dict[str, Any]:
    """Return the usage of the running guests of a pool; its CPU usage is their weighted mean."""
    used = [metrics.guest_usage(guest, now) for guest in running]
    cpus = [state.cpus_of(guest) for guest in running]
    load = sum(row["cpu"] * own for row, own in zip(used, cpus, strict=True))
    return {
        "uptime": max(row["uptime"] for row in used),
        "mem": sum(row["mem"] for row in used),
        "maxmem": sum(guest.memory for guest in running),
        "cpu": load / max(1, sum(cpus)),
        "maxcpu": sum(cpus),
    }


def _storage_row(storage: Storage, node: str, *, is_known: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": f"storage/{node}/{storage.name}",
        "node": node,
        "storage": storage.name,
        "type": "storage",
        "plugintype": storage.type,
        "content": ",".join(storage.content),
        "shared": int(storage.shared),
        "status": "unknown",
    }
    if not is_known or storage.failure_on(node):
        return row
    return row | {"status": "available", "disk": storage.used(node), "maxdisk": storage.total}


def unknown_guest(guest: Guest, state: ClusterState) -> bytes:
    """Return the encoded row of a guest without statistics: what the configuration shows."""
    row = {
        "id": f"{guest.kind}/{guest.vmid}",
        "vmid": guest.vmid,
        "type": guest.kind.value,
        "node": guest.node,
        "status": "unknown",
    }
    return _encode(row | metrics.guest_labels(guest, state))


def guest_filter(rights: Rights, state: ClusterState) -> Callable[[Guest], bool]:
    """Return a function that says whether the principal may see a guest.

    Only guests with an ACL entry of their own or in a pool are checked one by one; one check
    of a path without either answers for all others.
    """
    specific = {entry.path for entry in state.user_config.acl if entry.path.startswith("/vms/")}
    pooled = {vmid for pool in state.pools.values() for vmid in pool.vmids}
    everywhere = rights.has("/vms/0", "VM.Audit")

    def may_see(guest: Guest) -> bool:
        if guest.path in specific or (guest.vmid in pooled and not everywhere):
            return rights.has(guest.path, "VM.Audit")
        return everywhere

    return may_see
