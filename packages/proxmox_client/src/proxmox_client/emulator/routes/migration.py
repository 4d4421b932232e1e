"""Moving guests: what stands in the way, and the move itself."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.state.guest import Guest
from proxmox_client.emulator.state.node import Node
from proxmox_client.emulator.work import migration

LOCAL_DEVICES = ("hostpci", "usb", "serial", "parallel")


@route("GET", "/nodes/{node}/qemu/{vmid}/migrate")
def check(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/qemu/{vmid}/migrate."""
    guest = call.guest
    others = [node for node in call.state.nodes.values() if node is not call.node]
    lacking = {node.name: _lacking(call, guest, node) for node in others}
    allowed = [name for name, missing in lacking.items() if not missing]
    answer: dict[str, Any] = {
        "running": int(guest.running),
        "allowed_nodes": allowed,
        "not_allowed_nodes": {name: missing for name, missing in lacking.items() if missing}
        or {name: {} for name in lacking},
        "local_disks": [
            {
                "volid": disk.volid,
                "size": disk.size,
                "drivename": disk.slot,
                "cdrom": 0,
                "replicate": 1,
            }
            for disk in migration.local_disks(guest, call.state)
        ],
        "local_resources": _local_devices(guest),
        "mapped-resources": [],
        "mapped-resource-info": {},
    }
    if call.state.release >= (9, 0):
        answer["has-dbus-vmstate"] = 1
    return answer


@route("GET", "/nodes/{node}/lxc/{vmid}/migrate")
def check_container(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/lxc/{vmid}/migrate."""
    guest = call.guest
    others = [node for node in call.state.nodes.values() if node is not call.node]
    lacking = {node.name: _lacking(call, guest, node) for node in others}
    return {
        "running": int(guest.running),
        "allowed-nodes": [name for name, missing in lacking.items() if not missing],
        "not-allowed-nodes": {name: missing for name, missing in lacking.items() if missing},
    }


@route("POST", "/nodes/{node}/qemu/{vmid}/migrate")
def migrate(call: Call) -> str:
    """POST /nodes/{node}/qemu/{vmid}/migrate."""
    target = _target(call)
    guest = call.guest
    guest.require_unlocked()
    if guest.running and not call.get("online"):
        raise ApiError("can't migrate running VM without --online")
    if devices := _local_devices(guest):
        raise ApiError(f"can't migrate VM which uses local devices: {', '.join(devices)}")
    if (
        guest.running
        and migration.local_disks(guest, call.state)
        and not call.get("with-local-disks")
    ):
        raise ApiError("can't live migrate attached local disks without with-local-disks option")
    work = migration.migrate(
        guest, target, online=bool(call.get("online")), target_storage=_storage(call)
    )
    return call.start("qmigrate", call.vmid, work)


@route("POST", "/nodes/{node}/lxc/{vmid}/migrate")
def migrate_container(call: Call) -> str:
    """POST /nodes/{node}/lxc/{vmid}/migrate."""
    target = _target(call)
    guest = call.guest
    guest.require_unlocked()
    if guest.running and not call.get("restart") and not call.get("online"):
        raise ApiError("can't migrate running container without --online or --restart")
    return call.start("vzmigrate", call.vmid, migration.restart_elsewhere(guest, target))


def _target(call: Call) -> Node:
    name = call.params["target"]
    if name == call.node.name:
        raise call.bad(target="target is local node.")
    if name not in call.state.nodes:
        raise ApiError(f"no such cluster node '{name}'")
    if not call.state.nodes[name].online:
        raise ApiError(f"node '{name}' is not online")
    return call.state.nodes[name]


def _storage(call: Call) -> str | None:
    wanted = call.get("targetstorage")
    if wanted in (None, "1"):
        return None
    name = str(wanted).split(",")[0].rpartition(":")[2]
    storage = call.state.storage(name)
    if not storage.on(call.params["target"]):
        raise ApiError(f"storage '{name}' is not available on node '{call.params['target']}'")
    return name


def _lacking(call: Call, guest: Guest, node: Node) -> dict[str, Any]:
    """What a guest needs and a node lacks."""
    if not node.online:
        return {"unavailable_storages": ["node is offline"]}
    missing = sorted(
        {
            disk.storage
            for disk in guest.disks()
            if not call.state.storage(disk.storage).on(node.name)
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
