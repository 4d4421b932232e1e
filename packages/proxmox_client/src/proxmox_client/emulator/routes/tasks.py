"""Tasks: lists, status, log, stop."""

from collections.abc import Iterator
from typing import Any

from proxmox_client.emulator.router import Call, Reply, route
from proxmox_client.emulator.views.tasks import task_row, task_status
from proxmox_client.emulator.work.task import Task, node_of


@route("GET", "/nodes/{node}/tasks")
def tasks(call: Call) -> Reply:
    """GET /nodes/{node}/tasks."""
    found = list(_matching(call))
    start, limit = call.get("start", 0), call.get("limit", 50)
    rows = [task_row(task) for task in found[start : start + limit]]
    return Reply(rows, {"total": len(found)} if found else {})


@route("GET", "/nodes/{node}/tasks/{upid}/status")
def status(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/tasks/{upid}/status."""
    return task_status(_task(call))


@route("GET", "/nodes/{node}/tasks/{upid}/log")
def log(call: Call) -> Reply:
    """GET /nodes/{node}/tasks/{upid}/log."""
    lines = _task(call).log
    start, limit = call.get("start", 0), call.get("limit", 50)
    shown = lines[start:] if limit == 0 else lines[start : start + limit]
    rows = [{"n": start + place, "t": line} for place, line in enumerate(shown, 1)]
    if not rows and not lines:
        rows = [{"n": 1, "t": "no content"}]
    return Reply(rows, {"total": max(1, len(lines))})


@route("DELETE", "/nodes/{node}/tasks/{upid}")
def stop(call: Call) -> None:
    """DELETE /nodes/{node}/tasks/{upid}."""
    task = _task(call)
    if not call.caller.owns(task.user):
        call.rights.require(call.node.path, "Sys.Modify")
    call.cluster.tasks.stop(task)


def _task(call: Call) -> Task:
    """The task of the path, for those who may see it."""
    upid = call.params["upid"]
    if node_of(upid) is None:
        raise call.bad(upid="unable to parse worker upid")
    task = call.cluster.tasks.find(upid)
    if task is None or task.node != call.params["node"]:
        raise call.bad(upid="no such task")
    if not call.caller.owns(task.user):
        call.rights.require(call.node.path, "Sys.Audit")
    return task


def _matching(call: Call) -> Iterator[Task]:
    sees_all = call.rights.has(call.node.path, "Sys.Audit")
    source = call.get("source", "archive")
    for task in call.cluster.tasks.on(call.params["node"]):
        if source != "all" and task.running is not (source == "active"):
            continue
        if (sees_all or call.caller.owns(task.user)) and _wanted(task, call):
            yield task


def _wanted(task: Task, call: Call) -> bool:
    tests = (
        ("vmid", lambda value: task.id.partition("@")[0] == str(value)),
        ("typefilter", lambda value: task.type == value),
        ("userfilter", lambda value: value in task.user),
        ("since", lambda value: task.started >= value),
        ("until", lambda value: task.started <= value),
        ("errors", lambda value: not value or not task.ok),
        ("statusfilter", lambda value: _state_of(task) in value.split(",")),
    )
    return all(test(call.params[name]) for name, test in tests if name in call.params)


def _state_of(task: Task) -> str:
    """The word a status filter has for how a task ended."""
    if task.ok:
        return "ok" if task.outcome == "OK" else "warning"
    return "unknown" if task.outcome in ("", "unexpected status") else "error"
