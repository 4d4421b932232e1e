"""Backup jobs."""

from datetime import UTC, datetime
from typing import Any

from proxmox_client.emulator.calendar import next_run
from proxmox_client.emulator.errors import ApiError, BadParameters, Forbidden
from proxmox_client.emulator.parameters import stored
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.guest import Disk, Guest
from proxmox_client.emulator.state.jobs import BackupJob

SELECTIONS = frozenset({"vmid", "all", "pool"})
"""Options that select guests; a new one replaces the others."""
PROPERTY_STRINGS = frozenset({"prune-backups", "fleecing", "performance"})


@route("GET", "/cluster/backup")
def list_jobs(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/backup."""
    return [_row(job) | _next_run(job, request.now) for job in request.state.backup_jobs.values()]


@route("GET", "/cluster/backup/{id}")
def get_job(request: ApiRequest) -> dict[str, Any]:
    """GET /cluster/backup/{id}."""
    return _row(_find(request))


@route("POST", "/cluster/backup")
def create(request: ApiRequest) -> None:
    """POST /cluster/backup."""
    schedule = _schedule(request)
    if schedule is None:
        raise request.invalid(schedule="neither 'starttime' nor 'schedule' were set")
    if request.get("schedule") and request.get("starttime"):
        raise request.invalid(starttime="'starttime' and 'schedule' cannot both be set")
    if len({"vmid", "all", "pool"} & request.params.keys()) != 1:
        raise ApiError("400 Parameter verification failed.")
    if (pool := request.get("pool")) and pool not in request.state.pools:
        raise Forbidden(f"pool '{pool}' does not exist")
    if request.get("id") in request.state.backup_jobs:
        raise ApiError(f"Job '{request.params['id']}' already exists")
    name = (
        request.get("id") or f"backup-{request.state.next_pid():08x}-{request.state.next_pid():04x}"
    )
    options = _options(request)
    request.state.backup_jobs[name] = BackupJob(
        name, schedule, options, request.get("enabled", True)
    )


@route("PUT", "/cluster/backup/{id}")
def update(request: ApiRequest) -> None:
    """PUT /cluster/backup/{id}."""
    if request.params["id"] not in request.state.backup_jobs:
        raise ApiError("no such vzdump job")
    job = _find(request)
    for key in SELECTIONS if SELECTIONS & request.params.keys() else ():
        job.options.pop(key, None)
    for key in str(request.get("delete", "")).split(","):
        job.options.pop(key, None)
    job.options |= _options(request)
    job.schedule = _schedule(request) or job.schedule
    job.enabled = request.get("enabled", job.enabled)


@route("DELETE", "/cluster/backup/{id}")
def remove(request: ApiRequest) -> None:
    """DELETE /cluster/backup/{id}."""
    if request.params["id"] not in request.state.backup_jobs:
        raise ApiError("400 Parameter verification failed.")
    del request.state.backup_jobs[_find(request).id]


@route("GET", "/cluster/backup/{id}/included_volumes")
def included_volumes(request: ApiRequest) -> dict[str, Any]:
    """GET /cluster/backup/{id}/included_volumes."""
    job = _find(request)
    missing = sorted(set(job.vmids) - request.state.guests.keys())
    children: list[dict[str, Any]] = [
        {"id": vmid, "name": None, "type": "unknown", "leaf": 1} for vmid in missing
    ]
    for _, guest in sorted(request.state.guests.items()):
        if not job.covers(guest.vmid, request.state.pool_of(guest.vmid)):
            continue
        disks = [_volume(guest, disk) for disk in guest.disks()]
        name = {"id": guest.vmid, "name": guest.name, "type": guest.kind.value}
        children.append({**name, "children": disks, "leaf": 0})
    return {"children": children}


@route("GET", "/cluster/backup-info/not-backed-up")
def not_backed_up(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/backup-info/not-backed-up."""
    jobs = request.state.backup_jobs.values()
    return [
        {"vmid": guest.vmid, "name": guest.name, "type": guest.kind.value}
        for guest in request.state.guests.values()
        if request.rights.has(guest.path, "VM.Audit")
        and not any(job.covers(guest.vmid, request.state.pool_of(guest.vmid)) for job in jobs)
    ]


def _volume(guest: Guest, disk: Disk) -> dict[str, Any]:
    is_included = "backup=0" not in str(guest.config[disk.slot])
    return {
        "id": f"{guest.vmid}:{disk.slot}",
        "name": disk.volid,
        "included": int(is_included),
        "reason": "backup=yes" if is_included else "backup=no",
        "leaf": 1,
    }


def _find(request: ApiRequest) -> BackupJob:
    name = request.params["id"]
    if name not in request.state.backup_jobs:
        raise BadParameters({"id": f"No such job '{name}'"})
    return request.state.backup_jobs[name]


def _options(request: ApiRequest) -> dict[str, Any]:
    not_options = ("id", "schedule", "starttime", "dow", "enabled", "delete")
    options = stored(request.params_without(*not_options))
    for name in PROPERTY_STRINGS & options.keys():
        pairs = str(options[name]).split(",")
        if name == "fleecing":  # the only one with a default key
            pairs = [pair if "=" in pair else f"enabled={pair}" for pair in pairs]
        if not all("=" in pair for pair in pairs):
            raise BadParameters(
                {
                    name: "invalid format - value without key, but schema does not "
                    "define a default key\n"
                }
            )
        options[name] = dict(pair.split("=", 1) for pair in pairs)
    if "fleecing" in options:
        enabled = options["fleecing"].get("enabled", "0")
        if enabled not in ("0", "1"):
            raise BadParameters({"fleecing": "invalid format - enabled: type check failed\n"})
        options["fleecing"]["enabled"] = int(enabled)
    return options


def _schedule(request: ApiRequest) -> str | None:
    if request.get("starttime"):
        return f"{request.get('dow', 'mon,tue,wed,thu,fri,sat,sun')} {request.params['starttime']}"
    schedule: str | None = request.get("schedule")
    return schedule


def _row(job: BackupJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "type": "vzdump",
        "enabled": int(job.enabled),
        "schedule": job.schedule,
        **job.options,
    }


def _next_run(job: BackupJob, now: float) -> dict[str, Any]:
    if not job.enabled:
        return {}
    due = next_run(job.schedule, datetime.fromtimestamp(now, UTC))
    return {"next-run": int(due.timestamp())}
