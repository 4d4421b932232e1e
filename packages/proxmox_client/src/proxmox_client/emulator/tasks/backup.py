"""Backups with vzdump."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from shlex import quote
from typing import Any, Final
from urllib.parse import quote as percent_encoded

from proxmox_client.emulator.errors import ApiError, TaskFailed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.state.jobs import BackupJob
from proxmox_client.emulator.state.sizes import MIB, human
from proxmox_client.emulator.state.storage import Storage, Volume
from proxmox_client.emulator.state.volume_names import backup_name
from proxmox_client.emulator.tasks import retention
from proxmox_client.emulator.tasks.locks import locked, unwritable
from proxmox_client.emulator.tasks.runner import TaskContext, TaskFunction
from proxmox_client.emulator.tasks.snapshots import can_snapshot

BYTES_PER_SECOND: Final = 900 * MIB
MAX_SECONDS: Final = 30.0
JOB_ONLY: Final = frozenset({"vmid", "comment", "repeat-missed", "starttime", "dow"})
SUFFIXES: Final = {"zstd": ".zst", "gzip": ".gz", "1": ".lzo", "lzo": ".lzo", "0": ""}
_PLAIN: Final = "".join(map(chr, range(0x20, 0x7F))).translate({ord(":"): None, ord("%"): None})


def dump(
    vmids: Sequence[int], node: str, options: Mapping[str, Any], command: str | None = None
) -> TaskFunction:
    """Return the task that backs up guests one after the other; a failure does not stop it.

    `command` overrides the command line in the log, for jobs that cover guests of other nodes.
    """

    async def run(context: TaskContext) -> None:
        storage = _target_storage(context.state, str(options.get("storage", "local")))
        command_line = command or vzdump_arguments(vmids, {**options, "node": node})
        context.log(f"INFO: starting new backup job: vzdump {command_line}")
        failed = False
        for vmid in vmids:
            try:
                await _back_up(context, storage, node, vmid, options)
            except (ApiError, TaskFailed) as problem:
                failed = True
                context.log(f"ERROR: Backup of VM {vmid} failed - {problem}")
        context.log(f"INFO: Backup job finished {'with errors' if failed else 'successfully'}")
        if failed:
            raise TaskFailed("job errors")

    return run


def vzdump_arguments(vmids: Iterable[int], options: Mapping[str, Any]) -> str:
    """Format the arguments of vzdump as in its log: VMIDs, then options."""
    arguments = ((f"--{key}", quote(_argument(value))) for key, value in options.items())
    return " ".join([*map(str, vmids), *chain.from_iterable(arguments)])


def scheduled_arguments(job: BackupJob) -> str:
    """Format the arguments of a scheduled backup: all options of its job that vzdump knows."""
    options = {key: value for key, value in job.options.items() if key not in JOB_ONLY}
    return vzdump_arguments(job.vmids, options | {"quiet": 1})


def _argument(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}={part}" for key, part in value.items())
    return str(value)


def _target_storage(state: ClusterState, name: str) -> Storage:
    if name not in state.storages:
        missing = f"storage '{name}' does not exist"
        text = f"could not activate storage '{name}': {missing}"
        raise TaskFailed(f"{text} could not get storage information for '{name}': {missing}")
    storage = state.storages[name]
    if "backup" not in storage.content:
        raise TaskFailed(f"storage '{name}' does not support backups")
    return storage


def _is_included(slot: str, text: str) -> bool:
    """Return whether a volume is backed up: mount points with backup=1, disks without backup=0."""
    return "backup=1" in text if slot.startswith("mp") else "backup=0" not in text


async def _back_up(
    context: TaskContext, storage: Storage, node: str, vmid: int, options: Mapping[str, Any]
) -> None:
    guest = context.state.guests.get(vmid)
    if guest is None or guest.node != node:
        raise TaskFailed(f"unable to find VM '{vmid}'")
    started = context.state.now
    context.log(f"INFO: Starting Backup of VM {vmid} ({guest.kind})")
    context.log(f"INFO: Backup started at {datetime.fromtimestamp(started, UTC):%Y-%m-%d %H:%M:%S}")
    context.log(f"INFO: status = {guest.status}", f"INFO: {guest.kind.word} Name: {guest.name}")
    disks = [
        disk for disk in guest.disks() if _is_included(disk.slot, str(guest.config[disk.slot]))
    ]
    for disk in disks:
        context.log(f"INFO: include disk '{disk.slot}' '{disk.volid}'")
    mode = _mode(context, guest, str(options.get("mode", "snapshot")))
    context.log(f"INFO: backup mode: {mode}")
    size = sum(disk.size for disk in disks)
    if not context.state.quorate:
        raise TaskFailed(unwritable(guest, context.state))
    async with locked(guest, "backup"):
        await _transfer(context, size)
    volume = _add_backup(context.state, storage, guest, int(started), size, options)
    context.log(f"INFO: archive file size: {human(volume.size)}")
    duration = str(timedelta(seconds=int(context.state.now - started))).zfill(8)
    if int(options.get("remove", 1)):
        keep = options.get("prune-backups") or storage.options.get("prune-backups")
        _prune(context, storage, guest, keep)
    context.log(f"INFO: Finished Backup of {guest.kind.word} {vmid} ({duration})")


def _prune(
    context: TaskContext, storage: Storage, guest: Guest, keep: str | Mapping[str, Any] | None
) -> None:
    """Remove the backups of a guest that the retention does not keep."""
    if not keep:
        return
    volumes = storage.volumes(guest.node).values()
    backups = [
        volume for volume in volumes if volume.content == "backup" and volume.vmid == guest.vmid
    ]
    policy = retention.parse(keep) if isinstance(keep, str) else keep
    expired = [volume for volume, mark in retention.mark(backups, policy) if mark == "remove"]
    for volume in expired:
        storage.remove(guest.node, volume.volid)
    context.log(f"INFO: pruned {len(expired)} backup(s) not covered by keep-retention policy")


def _mode(context: TaskContext, guest: Guest, requested: str) -> str:
    """Return the mode of a backup: stop for a stopped guest, suspend without snapshots."""
    if not guest.running:
        return "stop"
    has_snapshots = all(
        can_snapshot(guest, context.state.storage(disk.storage), disk.volid)
        for disk in guest.disks()
    )
    if guest.kind is Kind.LXC and requested == "snapshot" and not has_snapshots:
        context.log("INFO: mode failure - some volumes do not support snapshots")
        context.log("INFO: trying 'suspend' mode instead")
        return "suspend"
    return requested


async def _transfer(context: TaskContext, size: int) -> None:
    seconds = min(MAX_SECONDS, max(1.0, size / BYTES_PER_SECOND))
    for percent in (10, 35, 60, 85, 100):
        await context.spend(seconds / 5)
        progress = f"{human(size * percent / 100)} of {human(size)}"
        context.log(f"INFO: {percent:3d}% ({progress}) in {int(seconds * percent / 100)}s")


def _add_backup(
    state: ClusterState,
    storage: Storage,
    guest: Guest,
    created: int,
    size: int,
    options: Mapping[str, Any],
) -> Volume:
    suffix = SUFFIXES[str(options.get("compress", "0"))]
    volid, format_ = backup_name(storage, guest, created, suffix=suffix)
    archive_size = int(size * (0.9 if not suffix else 0.35)) or 4096
    notes = _unescape(str(options.get("notes-template", "")))
    volume = Volume(volid, "backup", format_, archive_size, created, guest.vmid)
    volume.subtype = guest.kind.value
    volume.notes = (
        notes.replace("{{guestname}}", guest.name)
        .replace("{{vmid}}", str(guest.vmid))
        .replace("{{node}}", guest.node)
        .replace("{{cluster}}", state.name)
    )
    volume.protected = bool(options.get("protected"))
    volume.used = archive_size // 6 if storage.is_backup_server else None
    volume.config = _config_file(guest.config)
    return storage.put(guest.node, volume)


def _config_file(config: Mapping[str, Any]) -> str:
    """Return a configuration as in its file, where the description is a comment.

    Source: write_vm_config in PVE/QemuServer.pm, encode_text in PVE/Tools.pm.
    """
    comments = str(config.get("description", "")).splitlines()
    lines = [f"#{percent_encoded(line, safe=_PLAIN)}" for line in comments]
    lines += [f"{key}: {value}" for key, value in sorted(config.items()) if key != "description"]
    return "".join(f"{line}\n" for line in lines)


def _unescape(template: str) -> str:
    """Decode the escaped line ends and backslashes of a notes template."""
    return re.sub(r"\\([\\n])", lambda match: "\n" if match[1] == "n" else "\\", template)
