"""Tasks: list, status, log, stop."""

from collections.abc import Iterator
from typing import Any

from proxmox_client.emulator.router import ApiRequest, Reply, route
from proxmox_client.emulator.serializers.tasks import task_row, task_status
from proxmox_client.emulator.state.task import KILLED, Task, node_of


@route("GET", "/nodes/{node}/tasks")
def tasks(request: ApiRequest) -> Reply:
    """GET /nodes/{node}/tasks."""
    matching = list(_matching(request))
    start, limit = request.get("start", 0), request.get("limit", 50)
    rows = [task_row(task) for task in matching[start : start + limit]]
    return Reply(rows, {"total": len(matching)} if matching else {})


@route("GET", "/nodes/{node}/tasks/{upid}/status")
def status(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/tasks/{upid}/status."""
    return task_status(_task(request))


@route("GET", "/nodes/{node}/tasks/{upid}/log")
def log(request: ApiRequest) -> Reply:
    """GET /nodes/{node}/tasks/{upid}/log."""
    lines = _task(request).log
    start, limit = request.get("start", 0), request.get("limit", 50)
    page = lines[start:] if limit == 0 else lines[start : start + limit]
    rows = [{"n": start + number, "t": line} for number, line in enumerate(page, 1)]
    if not rows and not lines:
        rows = [{"n": 1, "t": "no content"}]
    return Reply(rows, {"total": max(1, len(lines))})


@route("DELETE", "/nodes/{node}/tasks/{upid}")
def stop(request: ApiRequest) -> None:
    """DELETE /nodes/{node}/tasks/{upid}."""
    task = _task(request)
    if not request.principal.owns(task.user):
        request.rights.require(request.node.path, "Sys.Modify")
    request.backend.tasks.stop(task)


def _task(request: ApiRequest) -> Task:
    """Return the task in the path.

    Raise BadParameters for a bad UPID or an unknown task, Forbidden for a task of another user
    without Sys.Audit on the node.
    """
    upid = request.params["upid"]
    if node_of(upid) is None:
        raise request.invalid(upid="unable to parse worker upid")
    task = request.backend.tasks.find(upid)
    if task is None or task.node != request.params["node"]:
        raise request.invalid(upid="no such task")
    if not request.principal.owns(task.user):
        request.rights.require(request.node.path, "Sys.Audit")
    return task


def _matching(request: ApiRequest) -> Iterator[Task]:
    sees_all = request.rights.has(request.node.path, "Sys.Audit")
    source = request.get("source", "archive")
    for task in request.backend.tasks.on(request.params["node"]):
        if source != "all" and task.running is not (source == "active"):
            continue
        if (sees_all or request.principal.owns(task.user)) and _passes_filters(task, request):
            yield task


def _passes_filters(task: Task, request: ApiRequest) -> bool:
    tests = (
        ("vmid", lambda value: task.id.partition("@")[0] == str(value)),
        ("typefilter", lambda value: task.type == value),
        ("userfilter", lambda value: value in task.user),
        ("since", lambda value: task.started >= value),
        ("until", lambda value: task.started <= value),
        ("errors", lambda value: not value or not task.ok),
        ("statusfilter", lambda value: _state_of(task) in value.split(",")),
    )
    return all(test(request.params[name]) for name, test in tests if name in request.params)


def _state_of(task: Task) -> str:
    """Return the status of a task as in the parameter statusfilter."""
    if task.ok:
        return "ok" if task.outcome == "OK" else "warning"
    return "unknown" if task.outcome in ("", KILLED) else "error"
