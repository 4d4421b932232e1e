"""What a retention would keep of the backups, and removing the others."""

from typing import Any

from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.routes.storage import available
from proxmox_client.emulator.state.storage import Storage, Volume
from proxmox_client.emulator.work import retention
from proxmox_client.emulator.work.board import Job


@route("GET", "/nodes/{node}/storage/{storage}/prunebackups")
def dry_run(call: Call) -> list[dict[str, Any]]:
    """GET …/prunebackups."""
    marks = _marks(call, available(call))
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
def prune(call: Call) -> str:
    """DELETE …/prunebackups."""
    storage, node = available(call), call.node.name
    doomed = [volume for volume, mark in _marks(call, storage) if mark == "remove"]

    async def work(job: Job) -> None:
        for volume in doomed:
            await job.spend(0.3)
            storage.remove(node, volume.volid)
            job.log(f"Removed volume '{volume.volid}'")

    return call.start("prunebackups", storage.name, work)


def _marks(call: Call, storage: Storage) -> list[tuple[Volume, str]]:
    """Every backup in question, the oldest first, with what becomes of it."""
    given = str(call.get("prune-backups") or storage.options.get("prune-backups", "keep-all=1"))
    keep = retention.parse(given)
    groups: dict[tuple[str, int], list[Volume]] = {}
    for volume in storage.volumes(call.node.name).values():
        is_meant = call.get("vmid") in (None, volume.vmid) and call.get("type") in (
            None,
            volume.subtype,
        )
        if volume.content == "backup" and is_meant:
            groups.setdefault((volume.subtype, volume.vmid), []).append(volume)
    marked = [pair for group in groups.values() for pair in retention.judge(group, keep)]
    return sorted(marked, key=lambda pair: pair[0].ctime)
