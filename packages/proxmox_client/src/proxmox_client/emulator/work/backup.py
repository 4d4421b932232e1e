"""Saving guests with vzdump."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from shlex import quote
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError, TaskFailed
from proxmox_client.emulator.scenario.archive import backup_name
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.state.sizes import MIB, human
from proxmox_client.emulator.state.storage import Storage, Volume
from proxmox_client.emulator.work import retention
from proxmox_client.emulator.work.board import Job, Work
from proxmox_client.emulator.work.locks import locked
from proxmox_client.emulator.work.snapshots import can_snapshot

SPEED: Final = 900 * MIB
LONGEST: Final = 30.0
SUFFIXES: Final = {"zstd": ".zst", "gzip": ".gz", "1": ".lzo", "lzo": ".lzo", "0": ""}


def dump(
    vmids: Sequence[int], node: str, options: Mapping[str, Any], command: str | None = None
) -> Work:
    """Save guests one after the other; one that fails spoils the outcome, not the others.

    `command` is what the log says was asked for, where that is more than these guests here.
    """

    async def work(job: Job) -> None:
        storage = _target(job.state, str(options.get("storage", "local")))
        asked = command or command_of(vmids, {**options, "node": node})
        job.log(f"INFO: starting new backup job: vzdump {asked}")
        failed = False
        for vmid in vmids:
            try:
                await _save(job, storage, node, vmid, options)
            except (ApiError, TaskFailed) as problem:
                failed = True
                job.log(f"ERROR: Backup of VM {vmid} failed - {problem}")
        job.log(f"INFO: Backup job finished {'with errors' if failed else 'successfully'}")
        if failed:
            raise TaskFailed("job errors")

    return work


def command_of(vmids: Iterable[int], options: Mapping[str, Any]) -> str:
    """The words after vzdump, as the log has them: guests, then options."""
    given = ((f"--{key}", quote(_plain(value))) for key, value in options.items())
    return " ".join([*map(str, vmids), *chain.from_iterable(given)])


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}={one}" for key, one in value.items())
    return str(value)


def _target(state: ClusterState, name: str) -> Storage:
    if name not in state.storages:
        missing = f"storage '{name}' does not exist"
        text = f"could not activate storage '{name}': {missing}"
        raise TaskFailed(f"{text} could not get storage information for '{name}': {missing}")
    storage = state.storages[name]
    if "backup" not in storage.content:
        raise TaskFailed(f"storage '{name}' does not support backups")
    return storage


def _is_saved(slot: str, text: str) -> bool:
    """A mount point is saved when it asks for it, a disk unless it asks not to be."""
    return "backup=1" in text if slot.startswith("mp") else "backup=0" not in text


async def _save(
    job: Job, storage: Storage, node: str, vmid: int, options: Mapping[str, Any]
) -> None:
    guest = job.state.guests.get(vmid)
    if guest is None or guest.node != node:
        raise TaskFailed(f"unable to find VM '{vmid}'")
    began = job.state.now
    kind = f"{guest.kind.word} {vmid}"
    job.log(f"INFO: Starting Backup of VM {vmid} ({guest.kind})")
    job.log(f"INFO: Backup started at {datetime.fromtimestamp(began, UTC):%Y-%m-%d %H:%M:%S}")
    job.log(f"INFO: status = {guest.status}", f"INFO: {guest.kind.word} Name: {guest.name}")
    disks = [disk for disk in guest.disks() if _is_saved(disk.slot, str(guest.config[disk.slot]))]
    for disk in disks:
        job.log(f"INFO: include disk '{disk.slot}' '{disk.volid}'")
    mode = _mode(job, guest, str(options.get("mode", "snapshot")))
    job.log(f"INFO: backup mode: {mode}")
    size = sum(disk.size for disk in disks)
    async with locked(guest, "backup"):
        await _copy(job, size)
    volume = _written(job.state, storage, guest, int(began), size, options)
    job.log(f"INFO: archive file size: {human(volume.size)}")
    lasted = str(timedelta(seconds=int(job.state.now - began))).zfill(8)
    _prune(job, storage, guest, options.get("prune-backups"))
    job.log(f"INFO: Finished Backup of {kind} ({lasted})")


def _prune(job: Job, storage: Storage, guest: Guest, keep: str | Mapping[str, Any] | None) -> None:
    """Remove the older backups of a guest that a retention does not keep."""
    if not keep:
        return
    volumes = storage.volumes(guest.node).values()
    group = [each for each in volumes if each.content == "backup" and each.vmid == guest.vmid]
    wanted = retention.parse(keep) if isinstance(keep, str) else keep
    doomed = [volume for volume, mark in retention.judge(group, wanted) if mark == "remove"]
    for volume in doomed:
        storage.remove(guest.node, volume.volid)
    job.log(f"INFO: pruned {len(doomed)} backup(s) not covered by keep-retention policy")


def _mode(job: Job, guest: Guest, wanted: str) -> str:
    if not guest.running:
        return "stop"
    snapshots = all(
        can_snapshot(guest, job.state.storage(disk.storage), disk.volid) for disk in guest.disks()
    )
    if guest.kind is Kind.LXC and wanted == "snapshot" and not snapshots:
        job.log("INFO: mode failure - some volumes do not support snapshots")
        job.log("INFO: trying 'suspend' mode instead")
        return "suspend"
    return wanted


async def _copy(job: Job, size: int) -> None:
    seconds = min(LONGEST, max(1.0, size / SPEED))
    for percent in (10, 35, 60, 85, 100):
        await job.spend(seconds / 5)
        done = f"{human(size * percent / 100)} of {human(size)}"
        job.log(f"INFO: {percent:3d}% ({done}) in {int(seconds * percent / 100)}s")


def _written(
    state: ClusterState,
    storage: Storage,
    guest: Guest,
    when: int,
    size: int,
    options: Mapping[str, Any],
) -> Volume:
    suffix = SUFFIXES[str(options.get("compress", "0"))]
    volid, format_ = backup_name(storage, guest, when, suffix=suffix)
    packed = int(size * (0.9 if not suffix else 0.35)) or 4096
    notes = _unescaped(str(options.get("notes-template", "")))
    volume = Volume(volid, "backup", format_, packed, when, guest.vmid)
    volume.subtype = guest.kind.value
    volume.notes = (
        notes.replace("{{guestname}}", guest.name)
        .replace("{{vmid}}", str(guest.vmid))
        .replace("{{node}}", guest.node)
        .replace("{{cluster}}", state.name)
    )
    volume.protected = bool(options.get("protected"))
    volume.used = packed // 6 if storage.is_backup_server else None
    volume.config = "".join(f"{key}: {value}\n" for key, value in sorted(guest.config.items()))
    return storage.put(guest.node, volume)


def _unescaped(template: str) -> str:
    """A template is one line: its line ends and backslashes come escaped."""
    return re.sub(r"\\([\\n])", lambda found: "\n" if found[1] == "n" else "\\", template)
