"""Snapshots: the list, what is known of one, and what can be done with it."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.routes.power import PREFIX, both
from proxmox_client.emulator.state.guest import Guest, Kind, Snapshot
from proxmox_client.emulator.work import snapshots as work_of


@route("GET", *both("/snapshot"))
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


@route("GET", *both("/snapshot/{snapname}/config"))
def snapshot_config(call: Call) -> dict[str, Any]:
    """GET …/snapshot/{snapname}/config."""
    snapshot = find(call.guest, call.params["snapname"])
    shown = {**snapshot.config, "snaptime": snapshot.time}
    extra = {"parent": snapshot.parent, "description": snapshot.description}
    return shown | {key: value for key, value in extra.items() if value}


@route("PUT", *both("/snapshot/{snapname}/config"))
def describe(call: Call) -> None:
    """PUT …/snapshot/{snapname}/config."""
    find(call.guest, call.params["snapname"]).description = call.get("description", "")


@route("POST", *both("/snapshot"))
def take(call: Call) -> str:
    """POST …/snapshot."""
    name = call.params["snapname"]
    if name == "current":
        raise ApiError("unable to use snapshot name 'current' (reserved name)")
    guest = call.guest
    with_ram = bool(call.get("vmstate"))
    work = work_of.take(guest, name, call.get("description", ""), with_ram=with_ram)
    return call.start(f"{PREFIX[call.kind]}snapshot", call.vmid, work)


@route("DELETE", *both("/snapshot/{snapname}"))
def remove(call: Call) -> str:
    """DELETE …/snapshot/{snapname}."""
    work = work_of.remove(call.guest, call.params["snapname"])
    return call.start(f"{PREFIX[call.kind]}delsnapshot", call.vmid, work)


@route("POST", *both("/snapshot/{snapname}/rollback"))
def roll_back(call: Call) -> str:
    """POST …/snapshot/{snapname}/rollback."""
    work = work_of.go_back(call.guest, call.params["snapname"], start=bool(call.get("start")))
    return call.start(f"{PREFIX[call.kind]}rollback", call.vmid, work)


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
