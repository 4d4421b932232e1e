"""Replication jobs and their status on a node."""

from datetime import UTC, datetime
from typing import Any

from proxmox_client.emulator.calendar import next_run
from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, Reply, route
from proxmox_client.emulator.state.guest import Guest
from proxmox_client.emulator.state.jobs import Replication

DIGEST = "aa66f2605b7380ab1fba616b24fca62d3d89ba60"


@route("GET", "/cluster/replication")
def list_jobs(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/replication."""
    return [
        _config_row(job)
        for job in request.state.replications.values()
        if request.rights.has(f"/vms/{job.guest}", "VM.Audit")
    ]


@route("GET", "/cluster/replication/{id}")
def get_job(request: ApiRequest) -> dict[str, Any]:
    """GET /cluster/replication/{id}."""
    return _config_row(_find(request)) | {"digest": DIGEST}


@route("POST", "/cluster/replication")
def create(request: ApiRequest) -> None:
    """POST /cluster/replication."""
    name, target = request.params["id"], request.params["target"]
    vmid, _, number = name.partition("-")
    guest = request.state.guests.get(int(vmid))
    if guest is None:
        raise ApiError(f"Guest '{vmid}' does not exist.")
    if target not in request.state.nodes:
        raise ApiError(f"Target '{target}' does not exist.")
    if target == guest.node:
        raise ApiError("Source and target must not be identical")
    if name in request.state.replications:
        raise ApiError(f"replication job '{name}' already exists")
    _require_replicable_disks(request, guest)
    replication = Replication(guest.vmid, int(number), guest.node, target)
    request.state.replications[name] = replication
    _update(replication, request)


def _require_replicable_disks(request: ApiRequest, guest: Guest) -> None:
    disks = [disk for disk in guest.disks() if "replicate=0" not in str(guest.config[disk.slot])]
    if not disks:
        raise ApiError("No replicatable volumes found")
    for disk in disks:
        if request.state.storage(disk.storage).type != "zfspool":
            raise ApiError(f"missing replicate feature on volume '{disk.volid}'")


@route("PUT", "/cluster/replication/{id}")
def update(request: ApiRequest) -> None:
    """PUT /cluster/replication/{id}."""
    _update(_find_to_change(request), request)


@route("DELETE", "/cluster/replication/{id}")
def delete(request: ApiRequest) -> None:
    """DELETE /cluster/replication/{id}: marks the job, which is removed at its next run."""
    if request.get("force"):
        request.state.replications.pop(request.params["id"], None)
    else:
        _find_to_change(request).removal = "local" if request.get("keep") else "full"


@route("GET", "/nodes/{node}/replication")
def node_jobs(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/replication."""
    return [
        _status_row(job, request)
        for job in request.state.replications.values()
        if job.source == request.node.name
        and request.get("guest") in (None, job.guest)
        and request.rights.has(f"/vms/{job.guest}", "VM.Audit")
    ]


@route("GET", "/nodes/{node}/replication/{id}/status")
def node_job_status(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/replication/{id}/status."""
    return _status_row(_find(request), request)


@route("GET", "/nodes/{node}/replication/{id}/log")
def job_log(request: ApiRequest) -> Reply:
    """GET /nodes/{node}/replication/{id}/log: of the last run, if there was one."""
    job = _find(request)
    lines = ["unable to open file - No such file or directory"]
    if job.last_try:
        when = f"{datetime.fromtimestamp(job.last_try, UTC):%Y-%m-%d %H:%M:%S} {job.id}"
        result = f" with error: {job.error}" if job.error else ""
        lines = [f"{when}: start replication job", f"{when}: end replication job{result}"]
    rows = [{"n": number, "t": line} for number, line in enumerate(lines, 1)]
    return Reply(rows, {"total": len(rows)})


@route("POST", "/nodes/{node}/replication/{id}/schedule_now")
def run(request: ApiRequest) -> str:
    """POST /nodes/{node}/replication/{id}/schedule_now: runs within a minute, not as a task."""
    _find(request).run_now = True
    return ""


def _find(request: ApiRequest) -> Replication:
    name = request.params["id"]
    if name not in request.state.replications:
        raise ApiError(f"no such replication job '{name}'")
    return request.state.replications[name]


def _find_to_change(request: ApiRequest) -> Replication:
    name = request.params["id"]
    if name not in request.state.replications:
        raise ApiError(f"no such job '{name}'")
    return request.state.replications[name]


def _update(job: Replication, request: ApiRequest) -> None:
    job.schedule = request.get("schedule", job.schedule)
    job.comment = request.get("comment", job.comment)
    job.disabled = request.get("disable", job.disabled)
    job.rate = request.get("rate", job.rate)


def _config_row(job: Replication) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": job.id,
        "type": "local",
        "guest": job.guest,
        "jobnum": job.number,
        "source": job.source,
        "target": job.target,
    }
    extra = {
        "schedule": job.schedule,
        "comment": job.comment,
        "rate": job.rate,
        "disable": int(job.disabled),
        "remove_job": job.removal,
    }
    return row | {key: value for key, value in extra.items() if value}


def _status_row(job: Replication, request: ApiRequest) -> dict[str, Any]:
    row = _config_row(job)
    guest = request.state.guests.get(job.guest)
    row |= {
        "vmtype": guest.kind.value if guest else "qemu",
        "last_sync": int(job.last_sync),
        "last_try": int(job.last_try),
        "next_sync": _next_sync(job),
        "fail_count": job.fail_count,
    }
    if job.last_try:
        row["duration"] = job.duration
    if job.pid:
        row["pid"] = job.pid
    return row | ({"error": job.error} if job.error else {})


def _next_sync(job: Replication) -> int:
    """Return the time of the next run as Proxmox computes it: from the last one, or from 1970."""
    if job.removal:
        return 1
    if job.fail_count:
        return int(job.last_try) + (300 * job.fail_count if job.fail_count <= 3 else 1800)
    after = datetime.fromtimestamp(job.last_sync, UTC)
    return int(next_run(job.due_times, after).timestamp())
