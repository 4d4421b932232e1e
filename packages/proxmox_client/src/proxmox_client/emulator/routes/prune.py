"""Which backups a retention keeps, and removing the others."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from proxmox_client.emulator.routes.storage import available
from proxmox_client.emulator.routing import Call, route
from proxmox_client.emulator.state.storage import Storage, Volume
from proxmox_client.emulator.work.board import Job

PERIODS: Final[dict[str, Callable[[datetime], str]]] = {
    "keep-last": lambda when: when.isoformat(),
    "keep-hourly": lambda when: f"{when:%Y-%m-%d %H}",
    "keep-daily": lambda when: f"{when:%Y-%m-%d}",
    "keep-weekly": lambda when: f"{when:%G-%V}",
    "keep-monthly": lambda when: f"{when:%Y-%m}",
    "keep-yearly": lambda when: f"{when:%Y}",
}
"""What is counted: the newest backup of so many different periods stays."""


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
    retention = dict(pair.split("=", 1) for pair in given.split(","))
    groups: dict[tuple[str, int], list[Volume]] = {}
    for volume in storage.volumes(call.node.name).values():
        is_meant = call.get("vmid") in (None, volume.vmid) and call.get("type") in (
            None,
            volume.subtype,
        )
        if volume.content == "backup" and is_meant:
            groups.setdefault((volume.subtype, volume.vmid), []).append(volume)
    marked = [pair for group in groups.values() for pair in _judge(group, retention)]
    return sorted(marked, key=lambda pair: pair[0].ctime)


def _judge(group: list[Volume], retention: Mapping[str, str]) -> list[tuple[Volume, str]]:
    free = sorted((each for each in group if not each.protected), key=lambda each: -each.ctime)
    kept = {each.volid for each in free} if retention.get("keep-all") == "1" else set()
    for option, period in PERIODS.items():
        seen = {
            period(_made(each)) for each in free if each.volid in kept and option != "keep-last"
        }
        left = int(retention.get(option, 0))
        for each in free:
            if left <= 0:
                break
            if each.volid not in kept and period(_made(each)) not in seen:
                seen.add(period(_made(each)))
                kept.add(each.volid)
                left -= 1
    words = {True: "keep", False: "remove"}
    return [(each, "protected" if each.protected else words[each.volid in kept]) for each in group]


def _made(volume: Volume) -> datetime:
    return datetime.fromtimestamp(volume.ctime, UTC)
