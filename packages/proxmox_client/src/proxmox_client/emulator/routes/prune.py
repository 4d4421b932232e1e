"""Pruning of backups by a retention, and its dry run."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.routes.storage import available
from proxmox_client.emulator.state.storage import Storage, Volume
from proxmox_client.emulator.tasks import retention
from proxmox_client.emulator.tasks.runner import TaskContext


@route("GET", "/nodes/{node}/storage/{storage}/prunebackups")
def dry_run(request: ApiRequest) -> list[dict[str, Any]]:
    """GET …/prunebackups."""
    marks = _marks(request, available(request))
    return [
        {
            "volid": volume.volid,
            "vmid": volume.vmid,
            "type": volume.subtype,
            "ctime": volume.ctime,
            "mark": mark,
        }
        for volume, mark in marks
    ]


@route("DELETE", "/nodes/{node}/storage/{storage}/prunebackups")
def prune(request: ApiRequest) -> str:
    """DELETE …/prunebackups."""
    storage, node = available(request), request.node.name
    expired = [volume for volume, mark in _marks(request, storage) if mark == "remove"]

    async def run(context: TaskContext) -> None:
        for volume in expired:
            await context.spend(0.3)
            storage.remove(node, volume.volid)
            context.log(f"Removed volume '{volume.volid}'")

    return request.start("prunebackups", storage.name, run)


def _marks(request: ApiRequest, storage: Storage) -> list[tuple[Volume, str]]:
    """Return the selected backups with their marks, the oldest first."""
    text = request.get("prune-backups") or storage.options.get("prune-backups")
    if text is None:
        raise ApiError(f"no prune-backups options configured for storage '{storage.name}'")
    keep = retention.parse(str(text))
    groups: dict[tuple[str, int], list[Volume]] = {}
    for volume in storage.volumes(request.node.name).values():
        has_vmid = request.get("vmid") in (None, volume.vmid)
        has_type = request.get("type") in (None, volume.subtype)
        if volume.content == "backup" and has_vmid and has_type:
            groups.setdefault((volume.subtype, volume.vmid), []).append(volume)
    marked = [pair for group in groups.values() for pair in retention.mark(group, keep)]
    return sorted(marked, key=lambda pair: pair[0].ctime)
