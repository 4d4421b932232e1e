"""What lies on storages: one volume, downloads, uploads, deletion."""

import re
from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.http.multipart import fields_of
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.routes.storage import available
from proxmox_client.emulator.state.storage import BLOCK_TYPES, Storage, Volume
from proxmox_client.emulator.work import content as work_of

EXTENSIONS = {
    "iso": (".iso", ".img"),
    "vztmpl": (".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2"),
    "import": (".ova", ".qcow2", ".raw", ".vmdk"),
}


@route("GET", "/nodes/{node}/storage/{storage}/content/{volume}")
def volume_details(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/storage/{storage}/content/{volume}."""
    storage = available(call)
    volume = _find(call, storage)
    call.rights.require_any(storage.path, ("Datastore.Audit", "Datastore.AllocateSpace"))
    details: dict[str, Any] = {
        "path": f"{storage.options.get('path', f'/mnt/pve/{storage.name}')}/{volume.name}",
        "size": volume.size,
        "used": volume.weight,
        "format": volume.format,
    }
    extra = {"notes": volume.notes, "protected": int(volume.protected)}
    return details | {key: value for key, value in extra.items() if value}


@route("PUT", "/nodes/{node}/storage/{storage}/content/{volume}")
def annotate(call: Call) -> None:
    """PUT /nodes/{node}/storage/{storage}/content/{volume}."""
    storage = available(call)
    volume = _find(call, storage)
    if volume.vmid:
        call.rights.require(storage.path, "Datastore.AllocateSpace")
    volume.notes = call.get("notes", volume.notes)
    volume.protected = call.get("protected", volume.protected)


@route("DELETE", "/nodes/{node}/storage/{storage}/content/{volume}")
def delete(call: Call) -> str:
    """DELETE /nodes/{node}/storage/{storage}/content/{volume}."""
    storage = available(call)
    volid = _volid(call)
    volume = storage.volumes(call.node.name).get(volid)
    _require_delete(call, storage, volid, volume)
    if volume is not None and volume.content in ("images", "rootdir"):
        _refuse_used(call, storage, volume)
    id_ = f"{volume.vmid}@{storage.name}" if volume and volume.vmid else storage.name
    return call.start("imgdel", id_, work_of.delete(storage, call.node.name, volid))


@route("POST", "/nodes/{node}/storage/{storage}/download-url")
def download(call: Call) -> str:
    """POST /nodes/{node}/storage/{storage}/download-url."""
    storage = available(call)
    content = call.params["content"]
    if content not in storage.content:
        raise call.bad(content=f"storage '{storage.name}' does not support '{content}' content")
    filename = _filename(call, content)
    if call.get("checksum-algorithm") and not call.get("checksum"):
        raise call.bad(checksum="missing property required by 'checksum-algorithm'")
    options = {**call.params, "filename": filename}
    return call.start("download", filename, work_of.download(storage, call.node.name, options))


@route("POST", "/nodes/{node}/storage/{storage}/upload")
def upload(call: Call) -> str:
    """POST /nodes/{node}/storage/{storage}/upload: the task runs on the node that was asked."""
    storage = call.state.storage(call.params["storage"])
    content = call.params["content"]
    _, size = fields_of(call.headers.get("content-type", ""), call.body)
    filename = _filename(call, content)
    work = work_of.copy_in(storage, call.params["node"], content, filename, size)
    return call.start("imgcopy", "", work, node=call.here.name)


@route("GET", "/nodes/{node}/query-url-metadata")
def url_metadata(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/query-url-metadata."""
    url = call.params["url"]
    size = call.state.downloads.get(url, work_of.USUAL_SIZE)
    if size is None:
        raise ApiError(f"invalid server response: '404 Not Found' for {url}")
    name = url.partition("?")[0].rpartition("/")[2]
    return {"filename": name, "size": size, "mimetype": "application/x-iso9660-image"}


def _volid(call: Call) -> str:
    volume = str(call.params["volume"])
    return volume if ":" in volume else f"{call.params['storage']}:{volume}"


def _find(call: Call, storage: Storage) -> Volume:
    volid = _volid(call)
    volume = storage.volumes(call.node.name).get(volid)
    if volume is None:
        raise ApiError(f"volume '{volid}' does not exist")
    return volume


def _require_delete(call: Call, storage: Storage, volid: str, volume: Volume | None) -> None:
    """Who may back a guest up may delete its backups; the rest is for the storage's owner."""
    if volid.partition(":")[0] != storage.name:
        raise ApiError(f"volume '{volid}' is not on storage '{storage.name}'")
    if volume is not None and volume.content == "backup":
        if call.rights.has(storage.path, "Datastore.Allocate"):
            return
        call.rights.require(storage.path, "Datastore.AllocateSpace")
        call.rights.require(f"/vms/{volume.vmid}", "VM.Backup")
    else:
        call.rights.require(storage.path, "Datastore.Allocate")


def _refuse_used(call: Call, storage: Storage, volume: Volume) -> None:
    """Refuse a volume that is in use, which folders do not know of their files."""
    if storage.type not in BLOCK_TYPES:
        return
    guest = call.state.guests.get(volume.vmid)
    if guest is not None and any(disk.volid == volume.volid for disk in guest.disks()):
        raise ApiError(f"Cannot remove image, a guest with VMID '{volume.vmid}' exists!")


def _filename(call: Call, content: str) -> str:
    """The name a file gets: without folders, with an extension its content may have."""
    name = re.sub(
        r"[^-a-zA-Z0-9_.]", "_", str(call.params["filename"]).replace("\\", "/").rpartition("/")[2]
    )
    if not name.endswith(EXTENSIONS[content]):
        raise call.bad(filename="wrong file extension")
    return name
