"""Files inside backups on a backup server."""

import base64
import binascii
from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.routes.storage import available, require_volume_access
from proxmox_client.emulator.state.storage import Volume

_DISKS = ("scsi", "virtio", "sata", "ide", "efidisk", "tpmstate")
_TREE: dict[str, Any] = {
    "bin": "l",
    "etc": {"hostname": 7, "hosts": 220, "nginx": {"nginx.conf": 1482}},
    "home": {},
    "var": {"log": {"syslog": 81_920}},
}
"""A small root file system: folders, files by their size, and a link."""


@route("GET", "/nodes/{node}/storage/{storage}/file-restore/list")
def list_files(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/storage/{storage}/file-restore/list."""
    storage = available(request)
    volid = str(request.params["volume"])
    volid = volid if ":" in volid else f"{storage.name}:{volid}"
    volume = storage.volumes(request.node.name).get(volid)
    require_volume_access(request, storage, "backup", volume.vmid if volume else 0)
    if not storage.is_backup_server:
        raise request.invalid(storage="Only PBS storages supported for file-restore.")
    if volume is None:
        raise ApiError(f"volume '{volid}' does not exist")
    path = _decoded(request.params["filepath"])
    folder = _content(volume)
    for name in filter(None, path.split("/")):
        below = folder.get(name)
        if not isinstance(below, dict):
            raise ApiError(f"error listing '{path}': no such file or directory")
        folder = below
    mtime = volume.ctime - 86_400
    parent = "/" + path.strip("/")
    return [_entry(parent, name, below, mtime) for name, below in sorted(folder.items())]


def _decoded(filepath: str) -> str:
    """Return the path of a request; only the root is not encoded."""
    if filepath == "/":
        return filepath
    try:
        return base64.b64decode(filepath, validate=True).decode("utf-8", "surrogateescape")
    except binascii.Error:
        raise ApiError("failed decoding base64 path") from None


def _content(volume: Volume) -> dict[str, Any]:
    """Return the archives in a backup: of a container one, of a virtual machine one per disk."""
    if volume.subtype == "lxc":
        return {"root.pxar.didx": _TREE}
    options = (line.partition(":")[0] for line in volume.config.splitlines())
    disks = [option for option in options if option.rstrip("0123456789") in _DISKS]
    return {f"drive-{disk}.img.fidx": {"part": {"1": _TREE}} for disk in disks}


def _entry(parent: str, name: str, below: Any, mtime: int) -> dict[str, Any]:
    path = f"{parent.rstrip('/')}/{name}"
    is_folder = isinstance(below, dict)
    row: dict[str, Any] = {
        "filepath": base64.b64encode(path.encode()).decode(),
        "leaf": int(not is_folder),
        "text": name,
        "type": "d" if is_folder else "f" if isinstance(below, int) else below,
    }
    if parent == "/" or name == "part" or parent.endswith("/part"):
        return row | {"type": "v"}  # archives and partitions have no time of their own
    return row | {"mtime": mtime} | ({"size": below} if isinstance(below, int) else {})
