"""Replication jobs and their status on a node."""

from datetime import UTC, datetime
from typing import Any

from proxmox_client.emulator.calendar import next_run
from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.jobs import Replication


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
    return _config_row(_find(request))


@route("POST", "/cluster/replication")
def create(request: ApiRequest) -> None:
    """POST /cluster/replication."""
    name = request.params["id"]
    guest, _, number = name.partition("-")
    if name in request.state.replications:
        raise ApiError(f"replication job '{name}' already exists")
    if int(guest) not in request.state.guests:
        raise ApiError(f"guest '{guest}' does not exist")
    source = request.state.guests[int(guest)].node
    replication = Replication(int(guest), int(number), source, request.params["target"])
    request.state.replications[name] = replication
    _update(replication, request)


@route("PUT", "/cluster/replication/{id}")
def update(request: ApiRequest) -> None:
    """PUT /cluster/replication/{id}."""
    _update(_find(request), request)


@route("DELETE", "/cluster/replication/{id}")
def delete(request: ApiRequest) -> None:
    """DELETE /cluster/replication/{id}."""
    del request.state.replications[_find(request).id]


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


@route("POST", "/nodes/{node}/replication/{id}/schedule_now")
def run(request: ApiRequest) -> None:
    """POST /nodes/{node}/replication/{id}/schedule_now: runs within a minute, not as a task."""
    _find(request).run_now = True


def _find(request: ApiRequest) -> Replication:
    name = request.params["id"]
    if name not in request.state.replications:
        raise ApiError(f"no such replication job '{name}'")
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
        "schedule": job.schedule,
    }
    extra = {"comment": job.comment, "rate": job.rate, "disable": int(job.disabled)}
    return row | {key: value for key, value in extra.items() if value}


def _status_row(job: Replication, request: ApiRequest) -> dict[str, Any]:
    row = _config_row(job)
    guest = request.state.guests.get(job.guest)
    due = next_run(job.schedule, datetime.fromtimestamp(request.now, UTC))
    row |= {
        "vmtype": guest.kind.value if guest else "qemu",
        "last_sync": int(job.last_sync),
        "last_try": int(job.last_try),
        "next_sync": 0 if job.disabled else int(due.timestamp()),
        "duration": job.duration,
        "fail_count": job.fail_count,
    }
    return row | ({"error": job.error} if job.error else {})
