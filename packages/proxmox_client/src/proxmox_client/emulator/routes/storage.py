"""Storages: configuration, status and content."""

from typing import Any

from proxmox_client.emulator.errors import ApiError, Forbidden
from proxmox_client.emulator.parameters import stored
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.serializers.storage import storage_status, volume_row
from proxmox_client.emulator.state.storage import Storage, Volume

AUDIT = ("Datastore.Audit", "Datastore.AllocateSpace")
CONTENT = ("backup", "images", "import", "iso", "none", "rootdir", "snippets", "vztmpl")
STUCK_SECONDS = 120.0
"""Seconds that a node waits for a storage that hangs."""


@route("GET", "/storage")
def storages(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /storage."""
    return [
        _configured(storage)
        for storage in request.state.storages.values()
        if request.rights.has_any(storage.path, *AUDIT)
        and request.get("type") in (None, storage.type)
    ]


@route("GET", "/storage/{storage}")
def storage_config(request: ApiRequest) -> dict[str, Any]:
    """GET /storage/{storage}."""
    return _configured(request.storage)


@route("POST", "/storage")
def create(request: ApiRequest) -> dict[str, str]:
    """POST /storage."""
    name, type_ = request.params["storage"], request.params["type"]
    if name in request.state.storages:
        raise ApiError(f"create storage failed: storage ID '{name}' already defined")
    content = str(request.get("content", "images,rootdir"))
    storage = Storage(name, type_, tuple(content.split(",")), bool(request.get("shared")))
    request.state.storages[name] = storage
    _update(storage, request)
    return {"storage": name, "type": type_}


@route("PUT", "/storage/{storage}")
def update(request: ApiRequest) -> dict[str, str]:
    """PUT /storage/{storage}."""
    storage = request.storage
    for option in str(request.get("delete", "")).split(","):
        storage.options.pop(option, None)
    _update(storage, request)
    return {"storage": storage.name, "type": storage.type}


@route("DELETE", "/storage/{storage}")
def delete(request: ApiRequest) -> None:
    """DELETE /storage/{storage}."""
    del request.state.storages[request.storage.name]


def _update(storage: Storage, request: ApiRequest) -> None:
    if "content" in request.params:
        storage.content = tuple(str(request.params["content"]).split(","))
    if "nodes" in request.params:
        storage.nodes = tuple(str(request.params["nodes"]).split(","))
    storage.enabled = not request.get("disable", not storage.enabled)
    not_options = ("storage", "type", "content", "nodes", "disable", "shared", "delete", "digest")
    storage.options |= stored(request.params_without(*not_options))


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
async def node_storages(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/storage."""
    rows = []
    for storage in request.state.storages.values():
        if request.rights.has_any(storage.path, *AUDIT) and _is_selected(storage, request):
            await responsive(storage, request)
            status = storage_status(storage, request.node.name)
            fraction = (
                {"used_fraction": status["used"] / status["total"]} if status["total"] else {}
            )
            rows.append({"storage": storage.name, **status, **fraction})
    return rows


def _is_selected(storage: Storage, request: ApiRequest) -> bool:
    if request.get("storage") not in (None, storage.name) or (
        request.get("enabled") and not (storage.enabled and storage.on(request.node.name))
    ):
        return False
    content = request.get("content")
    return content is None or not set(content.split(",")).isdisjoint(storage.content)


@route("GET", "/nodes/{node}/storage/{storage}/status")
async def status(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/storage/{storage}/status."""
    if request.params["storage"] not in request.state.storages:
        raise request.invalid(storage="No such storage.")
    storage = await responsive(request.storage, request)
    return storage_status(storage, request.node.name)


@route("GET", "/nodes/{node}/storage/{storage}/content")
async def content(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/storage/{storage}/content."""
    storage = usable(await responsive(available(request), request), request.node.name)
    kind, vmid = request.get("content"), request.get("vmid")
    if kind is not None and kind not in CONTENT:
        raise request.invalid(content=f"invalid format - invalid content type '{kind}'\n")
    return [
        volume_row(volume)
        for volume in storage.volumes(request.node.name).values()
        if (kind is None or volume.content == kind)
        and (vmid in (None, volume.vmid) or not volume.vmid)
        and _is_visible(request, storage, volume)
    ]


def _is_visible(request: ApiRequest, storage: Storage, volume: Volume) -> bool:
    """Return whether a volume is listed; backups and disks need privileges on their guest too."""
    try:
        require_volume_access(request, storage, volume.content, volume.vmid)
    except Forbidden:
        return False
    return True


def require_volume_access(request: ApiRequest, storage: Storage, content: str, vmid: int) -> None:
    """Raise Forbidden unless the principal may read a volume, given its content and guest."""
    rights, path, guest = request.rights, storage.path, f"/vms/{vmid}"
    if rights.has(path, "Datastore.Allocate"):
        return
    match content:
        case "iso" | "vztmpl" | "import":
            rights.require_any(path, ("Datastore.AllocateSpace", "Datastore.Audit"))
        case "backup":
            rights.require(path, "Datastore.AllocateSpace")
            rights.require(guest, "VM.Backup")
        case "images" | "rootdir":
            rights.require(path, "Datastore.Audit")
            rights.require(guest, "VM.Config.Disk")
        case _:
            rights.require(path, "Datastore.Allocate")


def available(request: ApiRequest) -> Storage:
    """Return the storage in the path; raise ApiError if it is not available on the node."""
    storage = request.storage
    return enabled(storage, request)


def enabled(storage: Storage, request: ApiRequest) -> Storage:
    """Return the storage; raise ApiError if it is disabled, or not available on the node."""
    if not storage.enabled:
        raise ApiError(f"storage '{storage.name}' is disabled")
    if not storage.on(request.node.name):
        raise ApiError(f"storage '{storage.name}' is not available on node '{request.node.name}'")
    return storage


def usable(storage: Storage, node: str) -> Storage:
    """Return the storage; raise ApiError if it cannot be used on the node."""
    if failure := storage.failure_on(node):
        raise ApiError(failure)
    return storage


async def responsive(storage: Storage, request: ApiRequest) -> Storage:
    """Return the storage; for one that hangs, raise ApiError after STUCK_SECONDS."""
    if storage.stuck:
        await request.state.clock.sleep(STUCK_SECONDS)
        raise ApiError(f"storage '{storage.name}' is not online")
    return storage
