"""Storages: configuration, state and content."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.parameters import stored
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.state.storage import Storage, Volume
from proxmox_client.emulator.views.storage import storage_status, volume_row

AUDIT = ("Datastore.Audit", "Datastore.AllocateSpace")
STUCK_SECONDS = 120.0
"""How long a node waits for a storage that does not answer."""


@route("GET", "/storage")
def storages(call: Call) -> list[dict[str, Any]]:
    """GET /storage."""
    return [
        _configured(storage)
        for storage in call.state.storages.values()
        if call.rights.has_any(storage.path, *AUDIT) and call.get("type") in (None, storage.type)
    ]


@route("GET", "/storage/{storage}")
def storage_config(call: Call) -> dict[str, Any]:
    """GET /storage/{storage}."""
    return _configured(call.storage)


@route("POST", "/storage")
def create(call: Call) -> dict[str, str]:
    """POST /storage."""
    name, type_ = call.params["storage"], call.params["type"]
    if name in call.state.storages:
        raise ApiError(f"create storage failed: storage ID '{name}' already defined")
    content = str(call.get("content", "images,rootdir"))
    storage = Storage(name, type_, tuple(content.split(",")), bool(call.get("shared")))
    call.state.storages[name] = storage
    _update(storage, call)
    call.state.changed()
    return {"storage": name, "type": type_}


@route("PUT", "/storage/{storage}")
def update(call: Call) -> dict[str, str]:
    """PUT /storage/{storage}."""
    storage = call.storage
    for option in str(call.get("delete", "")).split(","):
        storage.options.pop(option, None)
    _update(storage, call)
    return {"storage": storage.name, "type": storage.type}


@route("DELETE", "/storage/{storage}")
def delete(call: Call) -> None:
    """DELETE /storage/{storage}."""
    del call.state.storages[call.storage.name]
    call.state.changed()


def _update(storage: Storage, call: Call) -> None:
    if "content" in call.params:
        storage.content = tuple(str(call.params["content"]).split(","))
    if "nodes" in call.params:
        storage.nodes = tuple(str(call.params["nodes"]).split(","))
    storage.enabled = not call.get("disable", not storage.enabled)
    known = ("storage", "type", "content", "nodes", "disable", "shared", "delete", "digest")
    storage.options |= stored(call.given(*known))


def _configured(storage: Storage) -> dict[str, Any]:
    row: dict[str, Any] = {
        "storage": storage.name,
        "type": storage.type,
        "content": ",".join(storage.content),
        "digest": "f34387fb563d3ae3a6c6514eb2e9310b22640e4e",
        **storage.options,
    }
    extra = {"shared": int(storage.shared), "nodes": ",".join(storage.nodes)}
    row |= {key: value for key, value in extra.items() if value}
    return row if storage.enabled else row | {"disable": 1}


@route("GET", "/nodes/{node}/storage")
async def node_storages(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/storage."""
    rows = []
    for storage in call.state.storages_on(call.node.name):
        if call.rights.has_any(storage.path, *AUDIT) and _wanted(storage, call):
            await responsive(storage, call)
            status = storage_status(storage, call.node.name)
            fraction = status["used"] / status["total"] if status["total"] else 0
            rows.append({"storage": storage.name, **status, "used_fraction": fraction})
    return rows


def _wanted(storage: Storage, call: Call) -> bool:
    if call.get("storage") not in (None, storage.name) or (
        call.get("enabled") and not storage.enabled
    ):
        return False
    wanted = call.get("content")
    return wanted is None or not set(wanted.split(",")).isdisjoint(storage.content)


@route("GET", "/nodes/{node}/storage/{storage}/status")
async def status(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/storage/{storage}/status."""
    storage = await responsive(available(call), call)
    return storage_status(storage, call.node.name)


@route("GET", "/nodes/{node}/storage/{storage}/content")
async def content(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/storage/{storage}/content."""
    storage = await responsive(available(call), call)
    wanted, vmid = call.get("content"), call.get("vmid")
    return [
        volume_row(volume)
        for volume in storage.volumes(call.node.name).values()
        if (wanted is None or volume.content == wanted)
        and vmid in (None, volume.vmid)
        and _shown(call, storage, volume)
    ]


def _shown(call: Call, storage: Storage, volume: Volume) -> bool:
    """Whether a volume is listed: backups and disks of guests take rights on these as well."""
    rights, path = call.rights, f"/storage/{storage.name}"
    if volume.content in ("iso", "vztmpl", "import") or rights.has(path, "Datastore.Allocate"):
        return True
    guest = f"/vms/{volume.vmid}"
    match volume.content:
        case "backup":
            return rights.has(path, "Datastore.AllocateSpace") and rights.has(guest, "VM.Backup")
        case "images" | "rootdir":
            return rights.has(path, "Datastore.Audit") and rights.has(guest, "VM.Config.Disk")
        case _:
            return False


def available(call: Call) -> Storage:
    """The storage of the path, if this node has it."""
    storage = call.storage
    if not storage.enabled:
        raise ApiError(f"storage '{storage.name}' is disabled")
    if not storage.on(call.node.name):
        raise ApiError(f"storage '{storage.name}' is not available on node '{call.node.name}'")
    return storage


async def responsive(storage: Storage, call: Call) -> Storage:
    """The storage, once it answers; a stuck one is given up after a while."""
    if storage.stuck:
        await call.state.clock.sleep(STUCK_SECONDS)
        raise ApiError(f"storage '{storage.name}' is not online")
    return storage
