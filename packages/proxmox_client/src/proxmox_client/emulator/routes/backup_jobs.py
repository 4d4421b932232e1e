"""Scheduled backups."""

from datetime import UTC, datetime
from typing import Any

from proxmox_client.emulator.calendar import next_run
from proxmox_client.emulator.errors import BadParameters
from proxmox_client.emulator.parameters import stored
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.state.guest import Disk, Guest
from proxmox_client.emulator.state.jobs import BackupJob


@route("GET", "/cluster/backup")
def jobs(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/backup."""
    return [_row(job) | _next_run(job, call.now) for job in call.state.backup_jobs.values()]


@route("GET", "/cluster/backup/{id}")
def job(call: Call) -> dict[str, Any]:
    """GET /cluster/backup/{id}."""
    return _row(_find(call))


@route("POST", "/cluster/backup")
def create(call: Call) -> None:
    """POST /cluster/backup."""
    schedule = _schedule(call)
    if schedule is None:
        raise call.bad(schedule="neither 'starttime' nor 'schedule' were set")
    name = call.get("id") or f"backup-{call.state.next_pid():08x}-{call.state.next_pid():04x}"
    options = _options(call)
    call.state.backup_jobs[name] = BackupJob(name, schedule, options, call.get("enabled", True))


@route("PUT", "/cluster/backup/{id}")
def update(call: Call) -> None:
    """PUT /cluster/backup/{id}."""
    entry = _find(call)
    for key in str(call.get("delete", "")).split(","):
        entry.options.pop(key, None)
    entry.options |= _options(call)
    entry.schedule = _schedule(call) or entry.schedule
    entry.enabled = call.get("enabled", entry.enabled)


@route("DELETE", "/cluster/backup/{id}")
def remove(call: Call) -> None:
    """DELETE /cluster/backup/{id}."""
    del call.state.backup_jobs[_find(call).id]


@route("GET", "/cluster/backup/{id}/included_volumes")
def included_volumes(call: Call) -> dict[str, Any]:
    """GET /cluster/backup/{id}/included_volumes."""
    entry = _find(call)
    children = []
    for _, guest in sorted(call.state.guests.items()):
        if not entry.covers(guest.vmid, call.state.pool_of(guest.vmid)):
            continue
        disks = [_included(guest, disk) for disk in guest.disks()]
        name = {"id": guest.vmid, "name": guest.name, "type": guest.kind.value}
        children.append({**name, "children": disks, "leaf": 0})
    return {"children": children}


@route("GET", "/cluster/backup-info/not-backed-up")
def not_backed_up(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/backup-info/not-backed-up."""
    entries = call.state.backup_jobs.values()
    return [
        {"vmid": guest.vmid, "name": guest.name, "type": guest.kind.value}
        for guest in call.state.guests.values()
        if call.rights.has(guest.path, "VM.Audit")
        and not any(entry.covers(guest.vmid, call.state.pool_of(guest.vmid)) for entry in entries)
    ]


def _included(guest: Guest, disk: Disk) -> dict[str, Any]:
    saved = "backup=0" not in str(guest.config[disk.slot])
    return {
        "id": f"{guest.vmid}:{disk.slot}",
        "name": disk.volid,
        "included": int(saved),
        "reason": "backup=yes" if saved else "backup=no",
        "leaf": 1,
    }


def _find(call: Call) -> BackupJob:
    name = call.params["id"]
    if name not in call.state.backup_jobs:
        raise BadParameters({"id": f"No such job '{name}'"})
    return call.state.backup_jobs[name]


def _options(call: Call) -> dict[str, Any]:
    skipped = ("id", "schedule", "starttime", "dow", "enabled", "delete")
    options = stored(call.given(*skipped))
    if "prune-backups" in options:
        pairs = str(options["prune-backups"]).split(",")
        options["prune-backups"] = dict(pair.split("=", 1) for pair in pairs)
    return options


def _schedule(call: Call) -> str | None:
    if call.get("starttime"):
        return f"{call.get('dow', 'mon,tue,wed,thu,fri,sat,sun')} {call.params['starttime']}"
    schedule: str | None = call.get("schedule")
    return schedule


def _row(entry: BackupJob) -> dict[str, Any]:
    return {
        "id": entry.id,
        "type": "vzdump",
        "enabled": int(entry.enabled),
        "schedule": entry.schedule,
        **entry.options,
    }


def _next_run(entry: BackupJob, now: float) -> dict[str, Any]:
    if not entry.enabled:
        return {}
    due = next_run(entry.schedule, datetime.fromtimestamp(now, UTC))
    return {"next-run": int(due.timestamp())}
