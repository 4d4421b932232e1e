"""Storage content: one volume, downloads, uploads, deletion."""

import re
from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.http.multipart import parse_multipart
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.routes.storage import available, require_volume_access
from proxmox_client.emulator.state.storage import BLOCK_TYPES, Storage, Volume
from proxmox_client.emulator.tasks import content as tasks

EXTENSIONS = {
    "iso": (".iso", ".img"),
    "vztmpl": (".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2"),
    "import": (".ova", ".qcow2", ".raw", ".vmdk"),
}


@route("GET", "/nodes/{node}/storage/{storage}/content/{volume}")
def volume_details(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/storage/{storage}/content/{volume}."""
    storage = available(request)
    volume = _find(request, storage)
    require_volume_access(request, storage, volume.content, volume.vmid)
    details: dict[str, Any] = {
        "path": f"{storage.options.get('path', f'/mnt/pve/{storage.name}')}/{volume.name}",
        "size": volume.size,
        "used": volume.allocated,
        "format": volume.format,
    }
    extra = {"notes": volume.notes, "protected": int(volume.protected)}
    return details | {key: value for key, value in extra.items() if value}


@route("PUT", "/nodes/{node}/storage/{storage}/content/{volume}")
def annotate(request: ApiRequest) -> None:
    """PUT /nodes/{node}/storage/{storage}/content/{volume}."""
    storage = available(request)
    volume = _find(request, storage)
    if volume.vmid:
        request.rights.require(storage.path, "Datastore.AllocateSpace")
    if "notes" in request.params and volume.content != "backup":
        raise ApiError("only backups can have notes")
    volume.notes = request.get("notes", volume.notes)
    volume.protected = request.get("protected", volume.protected)


@route("DELETE", "/nodes/{node}/storage/{storage}/content/{volume}")
def delete(request: ApiRequest) -> str:
    """DELETE /nodes/{node}/storage/{storage}/content/{volume}."""
    storage = available(request)
    volid = _volid(request)
    volume = storage.volumes(request.node.name).get(volid)
    _require_delete(request, storage, volid, volume)
    if volume is not None and volume.content in ("images", "rootdir"):
        _refuse_disk_in_use(request, storage, volume)
    id_ = f"{volume.vmid}@{storage.name}" if volume and volume.vmid else storage.name
    return request.start("imgdel", id_, tasks.delete(storage, request.node.name, volid))


@route("POST", "/nodes/{node}/storage/{storage}/download-url")
def download(request: ApiRequest) -> str:
    """POST /nodes/{node}/storage/{storage}/download-url."""
    storage = available(request)
    content = request.params["content"]
    if content not in storage.content:
        raise ApiError(f"storage '{storage.name}' is not configured for content-type '{content}'")
    filename = _filename(request, content)
    if request.get("checksum-algorithm") and not request.get("checksum"):
        raise request.invalid(checksum="missing property required by 'checksum-algorithm'")
    options = {**request.params, "filename": filename}
    return request.start("download", filename, tasks.download(storage, request.node.name, options))


@route("POST", "/nodes/{node}/storage/{storage}/upload")
def upload(request: ApiRequest) -> str:
    """POST /nodes/{node}/storage/{storage}/upload: the task runs on the node that received it."""
    storage = request.state.storage(request.params["storage"])
    content = request.params["content"]
    _, size = parse_multipart(request.headers.get("content-type", ""), request.body)
    filename = _filename(request, content)
    work = tasks.upload(storage, request.params["node"], content, filename, size)
    return request.start("imgcopy", "", work, node=request.local_node.name)


@route("GET", "/nodes/{node}/query-url-metadata")
def url_metadata(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/query-url-metadata."""
    url = request.params["url"]
    size = request.state.downloads.get(url, tasks.DEFAULT_SIZE)
    if size is None:
        raise ApiError(f"invalid server response: '404 Not Found' for {url}")
    name = url.partition("?")[0].rpartition("/")[2]
    return {"filename": name, "size": size, "mimetype": "application/x-iso9660-image"}


def _volid(request: ApiRequest) -> str:
    volume = str(request.params["volume"])
    return volume if ":" in volume else f"{request.params['storage']}:{volume}"


def _find(request: ApiRequest, storage: Storage) -> Volume:
    volid = _volid(request)
    volume = storage.volumes(request.node.name).get(volid)
    if volume is None:
        raise ApiError(f"volume '{volid}' does not exist")
    return volume


def _require_delete(
    request: ApiRequest, storage: Storage, volid: str, volume: Volume | None
) -> None:
    """Raise Forbidden unless the principal may delete a volume.

    Backups need Datastore.Allocate, or Datastore.AllocateSpace with VM.Backup on the guest; other
    volumes need Datastore.Allocate.
    """
    if volid.partition(":")[0] != storage.name:
        raise ApiError(f"volume '{volid}' is not on storage '{storage.name}'")
    if volume is not None and volume.content == "backup":
        if request.rights.has(storage.path, "Datastore.Allocate"):
            return
        request.rights.require(storage.path, "Datastore.AllocateSpace")
        request.rights.require(f"/vms/{volume.vmid}", "VM.Backup")
    else:
        request.rights.require(storage.path, "Datastore.Allocate")


def _refuse_disk_in_use(request: ApiRequest, storage: Storage, volume: Volume) -> None:
    """Raise ApiError for a disk in use; like Proxmox, storages of files don't check this."""
    if storage.type not in BLOCK_TYPES:
        return
    guest = request.state.guests.get(volume.vmid)
    if guest is not None and any(disk.volid == volume.volid for disk in guest.disks()):
        raise ApiError(f"Cannot remove image, a guest with VMID '{volume.vmid}' exists!")


def normalized(name: str) -> str:
    """Return a file name without folders and special characters, as Proxmox changes it."""
    return re.sub(r"[^-a-zA-Z0-9_.]", "_", name.replace("\\", "/").rpartition("/")[2])


def _filename(request: ApiRequest, content: str) -> str:
    """Return the name for a file: without folders, with a permitted extension."""
    name = normalized(str(request.params["filename"]))
    if not name.endswith(EXTENSIONS[content]):
        raise request.invalid(filename="wrong file extension")
    return name
