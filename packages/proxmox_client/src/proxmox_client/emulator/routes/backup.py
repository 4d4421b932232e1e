"""Backups now, and what can be read from them."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.parameters import stored
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.state.guest import Guest
from proxmox_client.emulator.work import backup

ROOT_ONLY = ("tmpdir", "dumpdir", "script", "job-id")
FOR_ADMINISTRATORS = ("bwlimit", "performance", "ionice")


@route("POST", "/nodes/{node}/vzdump")
def vzdump(call: Call) -> str:
    """POST /nodes/{node}/vzdump."""
    guests = _chosen(call)
    _require_rights(call, guests)
    options = call.given("node", "vmid", "all", "pool", "exclude", "quiet")
    here = [vmid for vmid in guests if _is_here(call, vmid)]
    options.setdefault("storage", "local")
    shown = stored(options)
    id_ = str(guests[0]) if call.get("vmid") and len(guests) == 1 else ""
    return call.start("vzdump", id_, backup.dump(here, call.node.name, shown))


@route("GET", "/nodes/{node}/vzdump/defaults")
def defaults(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/vzdump/defaults."""
    storage = call.get("storage", "local")
    older = {"notification-policy": "always"} if call.state.release < (9, 0) else {}
    return {
        **older,
        "all": 0,
        "bwlimit": 0,
        "compress": "0",
        "dumpdir": "/var/lib/vz/dump",
        "fleecing": {"enabled": 0},
        "ionice": 7,
        "lockwait": 180,
        "mailnotification": "always",
        "mode": "snapshot",
        "notification-mode": "auto",
        "performance": {"max-workers": 16, "pbs-entries-max": 1048576},
        "pigz": 0,
        "prune-backups": "keep-all=1",
        "quiet": 0,
        "remove": 1,
        "stdexcludes": 1,
        "stop": 0,
        "stopwait": 10,
        "storage": storage,
        "zstd": 1,
    }


@route("GET", "/nodes/{node}/vzdump/extractconfig")
def extract_config(call: Call) -> str:
    """GET /nodes/{node}/vzdump/extractconfig."""
    volid = call.params["volume"]
    storage = call.state.storage(volid.partition(":")[0])
    volume = storage.volumes(call.node.name).get(volid)
    if volume is None or volume.content != "backup":
        raise ApiError(f"volume '{volid}' does not exist")
    call.rights.require_any(storage.path, ("Datastore.Audit", "Datastore.AllocateSpace"))
    return volume.config


def _chosen(call: Call) -> list[int]:
    """The guests a request names: by number, by pool, or all of this node."""
    if call.get("pool"):
        if call.params["pool"] not in call.state.pools:
            raise ApiError(f"pool '{call.params['pool']}' does not exist")
        return sorted(call.state.pools[call.params["pool"]].vmids)
    if call.get("all"):
        left = {vmid for vmid in str(call.get("exclude", "")).split(",") if vmid}
        everything = call.state.guests_on(call.node.name)
        return [guest.vmid for guest in everything if str(guest.vmid) not in left]
    if not call.get("vmid"):
        raise call.bad(vmid="property is missing")
    return [int(vmid) for vmid in str(call.params["vmid"]).replace(";", ",").split(",")]


def _is_here(call: Call, vmid: int) -> bool:
    """Whether it is on this node, or missing: then its absence is an error of the task."""
    guest: Guest | None = call.state.guests.get(vmid)
    return guest is None or guest.node == call.node.name


def _require_rights(call: Call, vmids: list[int]) -> None:
    for name in ROOT_ONLY:
        if name in call.params and not call.caller.is_root:
            raise call.bad(**{name: f"Only root may set '{name}'"})
    if any(name in call.params for name in FOR_ADMINISTRATORS):
        call.rights.require("/", "Sys.Modify")
    storage = call.get("storage", "local")
    call.rights.require(f"/storage/{storage}", "Datastore.AllocateSpace")
    if call.get("prune-backups"):
        call.rights.require(f"/storage/{storage}", "Datastore.Allocate")
    for vmid in vmids:
        call.rights.require(f"/vms/{vmid}", "VM.Backup")
