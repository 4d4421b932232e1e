"""Immediate backups, their defaults, and the configuration in a backup."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.parameters import stored
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.routes.storage import require_volume_access, usable
from proxmox_client.emulator.state.guest import Guest
from proxmox_client.emulator.tasks import backup

ROOT_ONLY = ("tmpdir", "dumpdir", "script", "job-id")
SYS_MODIFY_ONLY = ("bwlimit", "performance", "ionice")


@route("POST", "/nodes/{node}/vzdump")
def vzdump(request: ApiRequest) -> str:
    """POST /nodes/{node}/vzdump."""
    if request.get("all") and request.get("vmid"):
        raise request.invalid(all="option conflicts with option 'vmid'")
    if request.get("pool") and request.get("vmid"):
        raise request.invalid(pool="option conflicts with option 'vmid'")
    vmids = _selected_guests(request)
    _require_rights(request, vmids)
    if vmids and all(_is_elsewhere(request, vmid) for vmid in vmids):
        return "OK"
    options = request.params_without("node", "vmid", "all", "pool", "exclude", "quiet")
    local_vmids = [vmid for vmid in vmids if _is_local_or_missing(request, vmid)]
    options.setdefault("storage", "local")
    id_ = str(vmids[0]) if request.get("vmid") and len(vmids) == 1 else ""
    return request.start(
        "vzdump", id_, backup.dump(local_vmids, request.node.name, stored(options))
    )


@route("GET", "/nodes/{node}/vzdump/defaults")
def defaults(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/vzdump/defaults."""
    storage = request.get("storage", "local")
    before_9 = {"notification-policy": "always"} if request.state.release < (9, 0) else {}
    return {
        **before_9,
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
def extract_config(request: ApiRequest) -> str:
    """GET /nodes/{node}/vzdump/extractconfig."""
    volid = request.params["volume"]
    if ":" not in volid:
        raise ApiError(f"unable to parse volume ID '{volid}'")
    storage = usable(request.state.storage(volid.partition(":")[0]), request.node.name)
    volume = storage.volumes(request.node.name).get(volid)
    if volume is not None and volume.content != "backup":
        raise ApiError(f"unable to use volume {volid} - content type needs to be 'backup'")
    if volume is None or volume.content != "backup":
        raise ApiError(f"volume '{volid}' does not exist")
    require_volume_access(request, storage, volume.content, volume.vmid)
    return volume.config


def _selected_guests(request: ApiRequest) -> list[int]:
    """Return the VMIDs of a request: listed, of a pool, or all of this node."""
    if request.get("pool"):
        if request.params["pool"] not in request.state.pools:
            raise ApiError(f"pool '{request.params['pool']}' does not exist")
        return sorted(request.state.pools[request.params["pool"]].vmids)
    if request.get("all"):
        excluded = {vmid for vmid in str(request.get("exclude", "")).split(",") if vmid}
        guests = request.state.guests_on(request.node.name)
        return [guest.vmid for guest in guests if str(guest.vmid) not in excluded]
    if not request.get("vmid"):
        raise request.invalid(vmid="property is missing")
    return [int(vmid) for vmid in str(request.params["vmid"]).replace(";", ",").split(",")]


def _is_local_or_missing(request: ApiRequest, vmid: int) -> bool:
    """Return whether a guest is on this node or missing; the task reports a missing one."""
    guest: Guest | None = request.state.guests.get(vmid)
    return guest is None or guest.node == request.node.name


def _is_elsewhere(request: ApiRequest, vmid: int) -> bool:
    return not _is_local_or_missing(request, vmid)


def _require_rights(request: ApiRequest, vmids: list[int]) -> None:
    for name in ROOT_ONLY:
        if name in request.params and not request.principal.is_root:
            raise request.invalid(**{name: f"Only root may set '{name}'"})
    if any(name in request.params for name in SYS_MODIFY_ONLY):
        request.rights.require("/", "Sys.Modify")
    storage = request.get("storage", "local")
    request.rights.require(f"/storage/{storage}", "Datastore.AllocateSpace")
    if request.get("prune-backups"):
        request.rights.require(f"/storage/{storage}", "Datastore.Allocate")
    for vmid in vmids:
        request.rights.require(f"/vms/{vmid}", "VM.Backup")
