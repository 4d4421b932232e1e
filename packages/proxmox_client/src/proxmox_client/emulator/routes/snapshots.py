"""Snapshots of guests: list, configuration, create, delete, roll back."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.routes.power import PREFIX, both
from proxmox_client.emulator.state.guest import Guest, Kind, Snapshot
from proxmox_client.emulator.tasks import snapshots as tasks


@route("GET", *both("/snapshot"))
def snapshots(request: ApiRequest) -> list[dict[str, Any]]:
    """GET …/snapshot: unordered, with the current state as the last entry."""
    guest = request.guest
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
def snapshot_config(request: ApiRequest) -> dict[str, Any]:
    """GET …/snapshot/{snapname}/config."""
    snapshot = _find(request.guest, request.params["snapname"])
    options = {**snapshot.config, "snaptime": snapshot.time}
    extra = {"parent": snapshot.parent, "description": snapshot.description}
    return options | {key: value for key, value in extra.items() if value}


@route("PUT", *both("/snapshot/{snapname}/config"))
def describe(request: ApiRequest) -> None:
    """PUT …/snapshot/{snapname}/config."""
    _find(request.guest, request.params["snapname"]).description = request.get("description", "")


@route("POST", *both("/snapshot"))
def create(request: ApiRequest) -> str:
    """POST …/snapshot."""
    name = request.params["snapname"]
    if name == "current":
        raise ApiError("unable to use snapshot name 'current' (reserved name)")
    guest = request.guest
    with_ram = bool(request.get("vmstate"))
    work = tasks.create(guest, name, request.get("description", ""), with_ram=with_ram)
    return request.start(f"{PREFIX[request.kind]}snapshot", request.vmid, work)


@route("DELETE", *both("/snapshot/{snapname}"))
def delete(request: ApiRequest) -> str:
    """DELETE …/snapshot/{snapname}."""
    work = tasks.delete(request.guest, request.params["snapname"])
    return request.start(f"{PREFIX[request.kind]}delsnapshot", request.vmid, work)


@route("POST", *both("/snapshot/{snapname}/rollback"))
def roll_back(request: ApiRequest) -> str:
    """POST …/snapshot/{snapname}/rollback."""
    work = tasks.roll_back(
        request.guest, request.params["snapname"], start=bool(request.get("start"))
    )
    return request.start(f"{PREFIX[request.kind]}rollback", request.vmid, work)


def _find(guest: Guest, name: str) -> Snapshot:
    """Return a snapshot of a guest; raise ApiError if it does not exist."""
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
    extra = {"parent": snapshot.parent, "snapstate": snapshot.state}
    return row | {key: value for key, value in extra.items() if value}
