"""Migration of guests: preconditions and the migration itself."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.guest import Guest
from proxmox_client.emulator.state.node import Node
from proxmox_client.emulator.tasks import migration
from proxmox_client.emulator.tasks.runner import TaskContext, TaskFunction

LOCAL_DEVICES = ("hostpci", "usb", "serial", "parallel")


@route("GET", "/nodes/{node}/qemu/{vmid}/migrate")
def check(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/qemu/{vmid}/migrate."""
    guest = request.guest
    guest.require_unlocked()
    obstacles = _obstacles(request, guest)
    answer: dict[str, Any] = {
        "running": int(guest.running),
        "allowed_nodes": [name for name, reasons in obstacles.items() if not reasons],
        "not_allowed_nodes": {name: reasons for name, reasons in obstacles.items() if reasons}
        or {name: {} for name in obstacles},
        "local_disks": [
            {
                "volid": disk.volid,
                "size": disk.size,
                "drivename": disk.slot,
                "cdrom": 0,
                "replicate": 1,
            }
            for disk in migration.local_disks(guest, request.state)
        ],
        "local_resources": _local_devices(guest),
        "mapped-resources": [],
        "mapped-resource-info": {},
    }
    if request.state.release >= (9, 0):
        answer["has-dbus-vmstate"] = 1
    return answer


@route("GET", "/nodes/{node}/lxc/{vmid}/migrate")
def check_container(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/lxc/{vmid}/migrate."""
    guest = request.guest
    obstacles = _obstacles(request, guest)
    return {
        "running": int(guest.running),
        "allowed-nodes": [name for name, reasons in obstacles.items() if not reasons],
        "not-allowed-nodes": {name: reasons for name, reasons in obstacles.items() if reasons},
    }


@route("POST", "/nodes/{node}/qemu/{vmid}/migrate")
def migrate(request: ApiRequest) -> str:
    """POST /nodes/{node}/qemu/{vmid}/migrate."""
    target = _target(request)
    guest = request.guest
    guest.require_unlocked()
    if guest.running and not request.get("online"):
        raise ApiError("can't migrate running VM without --online")
    if devices := _local_devices(guest):
        raise ApiError(f"can't migrate VM which uses local devices: {', '.join(devices)}")
    if (
        guest.running
        and migration.local_disks(guest, request.state)
        and not request.get("with-local-disks")
    ):
        raise ApiError("can't live migrate attached local disks without with-local-disks option")
    work = migration.migrate(
        guest, target, online=bool(request.get("online")), target_storage=_target_storage(request)
    )
    return _start(request, "qmigrate", target, work)


@route("POST", "/nodes/{node}/lxc/{vmid}/migrate")
def migrate_container(request: ApiRequest) -> str:
    """POST /nodes/{node}/lxc/{vmid}/migrate."""
    target = _target(request)
    guest = request.guest
    guest.require_unlocked()
    if guest.running and not request.get("restart") and not request.get("online"):
        raise ApiError("can't migrate running container without --online or --restart")
    return _start(request, "vzmigrate", target, migration.migrate_with_restart(guest, target))


def _start(request: ApiRequest, type_: str, target: Node, work: TaskFunction) -> str:
    """Start a migration, or the task that requests it from the HA manager; return its UPID.

    That task ends before the guest moves, and succeeds also for a node in maintenance, to which the
    manager moves nothing.
    """
    guest = request.guest
    resource = request.state.ha_of(guest)
    if resource is None or resource.state == "ignored":
        return request.start(type_, request.vmid, work)

    async def request_migration(context: TaskContext) -> None:
        name = f"{guest.kind.word} {guest.vmid}"
        context.log(f"Requesting HA migration for {name} to node {target.name}")
        await context.spend(0.5)

    async def move(context: TaskContext) -> None:
        await context.spend(10)
        await work(context)

    upid = request.start("hamigrate", request.vmid, request_migration)
    if not target.maintenance:
        request.backend.tasks.start(guest.node, type_, str(guest.vmid), "root@pam", move)
    return upid


def _target(request: ApiRequest) -> Node:
    name = request.params["target"]
    if name == request.node.name:
        raise request.invalid(target="target is local node.")
    if name not in request.state.nodes:
        raise ApiError(f"no such cluster node '{name}'")
    return request.state.nodes[name]


def _target_storage(request: ApiRequest) -> str | None:
    """Return the storage of targetstorage, or None to keep the guest's storages."""
    mapping = request.get("targetstorage")
    if mapping in (None, "1"):
        return None
    name = str(mapping).split(",")[0].rpartition(":")[2]
    storage = request.state.storage(name)
    if not storage.on(request.params["target"]):
        raise ApiError(f"storage '{name}' is not available on node '{request.params['target']}'")
    return name


def _obstacles(request: ApiRequest, guest: Guest) -> dict[str, dict[str, Any]]:
    """Return what prevents a migration to each of the other nodes; empty where nothing does."""
    return {
        name: _missing_on(request, guest, node)
        for name, node in request.state.nodes.items()
        if node is not request.node
    }


def _missing_on(request: ApiRequest, guest: Guest, node: Node) -> dict[str, Any]:
    if not node.online:
        return {"unavailable_storages": ["node is offline"]}
    missing = sorted(
        {
            disk.storage
            for disk in guest.disks()
            if not request.state.storage(disk.storage).on(node.name)
        }
    )
    return {"unavailable_storages": missing} if missing else {}


def _local_devices(guest: Guest) -> list[str]:
    return [
        key
        for key, value in sorted(guest.config.items())
        if key.rstrip("0123456789") in LOCAL_DEVICES
        and "mapping=" not in str(value)
        and value != "socket"
    ]
