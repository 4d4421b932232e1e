"""Tasks in API responses."""

from typing import Any

from proxmox_client.emulator.state.task import Task


def task_row(task: Task, *, in_cluster: bool = False) -> dict[str, Any]:
    """Return the row of a task in the list of a node or of the cluster."""
    row: dict[str, Any] = {
        "upid": task.upid,
        "node": task.node,
        "type": task.type,
        "id": task.id,
        "user": task.userid,
        "starttime": task.started,
    }
    if task.tokenid:
        row["tokenid"] = task.tokenid
    if task.ended is not None:
        row |= {"endtime": task.ended, "status": task.outcome}
    elif not in_cluster:
        row["status"] = "RUNNING"
    if in_cluster:
        return row if task.running else row | {"saved": "1"}
    return row | {"pid": task.pid, "pstart": task.pstart}


def task_status(task: Task) -> dict[str, Any]:
    """Return the status of a task."""
    status: dict[str, Any] = {
        "upid": task.upid,
        "node": task.node,
        "pid": task.pid,
        "pstart": task.pstart,
        "starttime": task.started,
        "type": task.type,
        "id": task.id,
        "user": task.userid,
        "status": "running" if task.running else "stopped",
    }
    if task.tokenid:
        status["tokenid"] = task.tokenid
    if not task.running:
        status["exitstatus"] = task.outcome
    return status
