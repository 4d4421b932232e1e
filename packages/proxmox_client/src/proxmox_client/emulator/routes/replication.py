"""Replication: jobs of the cluster and their state on a node."""

from datetime import UTC, datetime
from typing import Any

from proxmox_client.emulator.calendar import next_run
from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.state.jobs import Replication


@route("GET", "/cluster/replication")
def jobs(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/replication."""
    return [
        _configured(job)
        for job in call.state.replications.values()
        if call.rights.has(f"/vms/{job.guest}", "VM.Audit")
    ]


@route("GET", "/cluster/replication/{id}")
def job(call: Call) -> dict[str, Any]:
    """GET /cluster/replication/{id}."""
    return _configured(_find(call))


@route("POST", "/cluster/replication")
def create(call: Call) -> None:
    """POST /cluster/replication."""
    name = call.params["id"]
    guest, _, number = name.partition("-")
    if name in call.state.replications:
        raise ApiError(f"replication job '{name}' already exists")
    if int(guest) not in call.state.guests:
        raise ApiError(f"guest '{guest}' does not exist")
    source = call.state.guests[int(guest)].node
    made = Replication(int(guest), int(number), source, call.params["target"])
    call.state.replications[name] = made
    _update(made, call)


@route("PUT", "/cluster/replication/{id}")
def update(call: Call) -> None:
    """PUT /cluster/replication/{id}."""
    _update(_find(call), call)


@route("DELETE", "/cluster/replication/{id}")
def delete(call: Call) -> None:
    """DELETE /cluster/replication/{id}."""
    del call.state.replications[_find(call).id]


@route("GET", "/nodes/{node}/replication")
def node_jobs(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/replication."""
    return [
        _state(job, call)
        for job in call.state.replications.values()
        if job.source == call.node.name
        and call.get("guest") in (None, job.guest)
        and call.rights.has(f"/vms/{job.guest}", "VM.Audit")
    ]


@route("GET", "/nodes/{node}/replication/{id}/status")
def node_job_status(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/replication/{id}/status."""
    return _state(_find(call), call)


@route("POST", "/nodes/{node}/replication/{id}/schedule_now")
def run(call: Call) -> None:
    """POST /nodes/{node}/replication/{id}/schedule_now: within a minute, and not as a task."""
    _find(call).is_wanted_now = True


def _find(call: Call) -> Replication:
    name = call.params["id"]
    if name not in call.state.replications:
        raise ApiError(f"no such replication job '{name}'")
    return call.state.replications[name]


def _update(job: Replication, call: Call) -> None:
    job.schedule = call.get("schedule", job.schedule)
    job.comment = call.get("comment", job.comment)
    job.disabled = call.get("disable", job.disabled)
    job.rate = call.get("rate", job.rate)


def _configured(job: Replication) -> dict[str, Any]:
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


def _state(job: Replication, call: Call) -> dict[str, Any]:
    row = _configured(job)
    guest = call.state.guests.get(job.guest)
    due = next_run(job.schedule, datetime.fromtimestamp(call.now, UTC))
    row |= {
        "vmtype": guest.kind.value if guest else "qemu",
        "last_sync": int(job.last_sync),
        "last_try": int(job.last_try),
        "next_sync": 0 if job.disabled else int(due.timestamp()),
        "duration": job.duration,
        "fail_count": job.fail_count,
    }
    return row | ({"error": job.error} if job.error else {})
