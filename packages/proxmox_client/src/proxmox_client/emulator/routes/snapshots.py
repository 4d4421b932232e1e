"""Snapshots: the list and what is known of one."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.routing import Call, route
from proxmox_client.emulator.state.guest import Guest, Kind, Snapshot


@route("GET", "/nodes/{node}/qemu/{vmid}/snapshot", "/nodes/{node}/lxc/{vmid}/snapshot")
def snapshots(call: Call) -> list[dict[str, Any]]:
    """GET …/snapshot: unordered, with the present as its last entry."""
    guest = call.guest
    rows = [_row(guest, snapshot) for snapshot in guest.snapshots.values()]
    current: dict[str, Any] = {
        "name": "current",
        "description": "You are here!",
        "running": int(guest.running),
        "digest": guest.digest,
    }
    if guest.parent:
        current["parent"] = guest.parent
    return [*rows, current]


@route(
    "GET",
    "/nodes/{node}/qemu/{vmid}/snapshot/{snapname}/config",
    "/nodes/{node}/lxc/{vmid}/snapshot/{snapname}/config",
)
def snapshot_config(call: Call) -> dict[str, Any]:
    """GET …/snapshot/{snapname}/config."""
    snapshot = find(call.guest, call.params["snapname"])
    shown = {**snapshot.config, "snaptime": snapshot.time}
    extra = {"parent": snapshot.parent, "description": snapshot.description}
    return shown | {key: value for key, value in extra.items() if value}


@route(
    "PUT",
    "/nodes/{node}/qemu/{vmid}/snapshot/{snapname}/config",
    "/nodes/{node}/lxc/{vmid}/snapshot/{snapname}/config",
)
def describe(call: Call) -> None:
    """PUT …/snapshot/{snapname}/config."""
    find(call.guest, call.params["snapname"]).description = call.get("description", "")


def find(guest: Guest, name: str) -> Snapshot:
    """A snapshot of a guest, or the error its absence is."""
    if name not in guest.snapshots:
        raise ApiError(f"snapshot '{name}' does not exist")
    return guest.snapshots[name]


def _row(guest: Guest, snapshot: Snapshot) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": snapshot.name,
        "description": snapshot.description,
        "snaptime": snapshot.time,
    }
    if guest.kind is Kind.QEMU:
        row["vmstate"] = int(snapshot.with_ram)
    return row | ({"parent": snapshot.parent} if snapshot.parent else {})
