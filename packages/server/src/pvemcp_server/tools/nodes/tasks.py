"""Tasks of Proxmox: list them, get one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from proxmox_client import DeadlineExceeded, NotFound, ProxmoxError, TaskFailed, Upid
from proxmox_client.api.tasks import TaskStatus
from proxmox_client.errors import means_no_quorum
from proxmox_client.properties import whole_number
from pvemcp_server.access.key_threads import in_key_thread
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.audit.log_secrets import mask_line
from pvemcp_server.clusters import Cluster
from pvemcp_server.clusters.explain import LACKS_QUORUM
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.query.values import time_of
from pvemcp_server.tables import LoadRequest, Task, tasks
from pvemcp_server.tables.rows import Col, Row, Unit, moment
from pvemcp_server.tables.tasks import TYPES
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import (
    NO_FILTER,
    AnyNode,
    AnyVm,
    Clamp,
    ClusterName,
    ItsCluster,
)
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.cluster_lookup import cluster_with, clusters_with
from pvemcp_server.toolkit.lists import NewestFirst, listed
from pvemcp_server.toolkit.registry import Document, Rows, document, tool
from pvemcp_server.toolkit.task_wait import watch

_MOST_TASKS = 500  # of an answer

Status = Annotated[
    Literal["running", "stopped", "ok", "error"] | None, NO_FILTER, Field(description="State")
]
Type = Annotated[
    str | None, NO_FILTER, Field(max_length=50, description="As vzdump, qmstart, qmigrate")
]
User = Annotated[
    str | None, NO_FILTER, Field(max_length=100, description="Account or a part of it")
]
Since = Annotated[str | None, Field(max_length=40, description="ISO 8601, or -24h, -7d")]
Limit = Annotated[int, Clamp(_MOST_TASKS), Field(ge=1, le=_MOST_TASKS, description="Rows at most")]
UpidText = Annotated[str, Field(max_length=512, description="Task id, from a write or ListTasks")]
Wait = Annotated[int, Field(ge=0, description="Wait this long for its end")]
LogLines = Annotated[int, Field(ge=0, le=500, description="Last lines of its log")]

_OUTCOMES = {
    "running": {"running"},
    "stopped": {"ok", "warnings", "error"},
    "ok": {"ok", "warnings"},
    "error": {"error"},
}
_WITH_UPID = ("running", "error")  # the logs of other tasks are rarely read
_CLOCKS_DIFFER = timedelta(minutes=5)  # those of the server and of nodes, at most
_LAST_TIME = 1 << 32  # epoch seconds, in the year 2106


class TaskState(Row):
    """A task with its outcome, once it has ended."""

    cluster: Annotated[str, Col("Cluster")]
    upid: Annotated[str, Col("Task id")]
    node: Annotated[str, Col("Node where it runs")]
    type: Annotated[str, Col("What it does: qmstart, vzdump, qmigrate …")]
    id: Annotated[str | None, Col("Guest or storage it is about")]
    user: Annotated[str, Col("Account that started it")]
    task_status: Annotated[str, Col("running or stopped")]
    exit_status: Annotated[str | None, Col("OK, WARNINGS: n, or the error")]
    ok: Annotated[bool | None, Col("Whether it ended well; null while it runs")]
    warnings: Annotated[int | None, Col("Warnings in its log", Unit.COUNT)]
    start_time: Annotated[datetime | None, Col("When it began", Unit.TIME)]
    end_time: Annotated[datetime | None, Col("When it ended, where it is known", Unit.TIME)]
    duration: Annotated[int | None, Col("How long it took, or has been running", Unit.SECONDS)]
    log: Annotated[list[str], Col("The last lines of its log, with secrets masked")]


@tool("ListTasks", area=Area.NODES, effect=Effect.READ, answer=Task, needs=(needs.NODES,))
async def list_tasks(
    call: Call,
    *,
    cluster_name: ClusterName = None,
    status: Status = None,
    type: Type = None,  # noqa: A002 - the published name
    node: AnyNode = None,
    vmid: AnyVm = None,
    user: User = None,
    since: Since = None,
    limit: Limit = 50,
) -> Rows:
    """List tasks of all nodes, newest first; status error or running adds upid, for GetTask."""
    outcomes = _OUTCOMES.get(status or "")
    # Proxmox does not filter by these, so more tasks than `limit` are loaded and filtered here
    filtered_here = type is not None or user is not None or status == "running"

    types = tasks.fields["type"].values_for(type.casefold()) if type else ()

    def keep(row: Task) -> bool:
        return (
            (outcomes is None or row.outcome in outcomes)
            and (not types or row.type.casefold() in types)
            and (vmid is None or row.vmid == vmid)
            and (user is None or user.casefold() in row.user.casefold())
        )

    rows = await listed(
        call,
        tasks,
        cluster_name,
        (*Task.minimal, "upid") if status in _WITH_UPID else Task.minimal,
        request=LoadRequest(
            vmids=frozenset() if vmid is None else frozenset({vmid}),
            nodes=frozenset(filter(None, [node])),
            status=frozenset(outcomes or ()),
            types=frozenset(types),
            since=since_argument(since),
            limit=None if filtered_here else limit + 1,
        ),
        keep=keep,
        order=NewestFirst("start_time"),
        clusters=await clusters_with(call, cluster_name, node),
        required=node is not None,
    )
    if cluster_name is None and vmid is None and node is None and not (type and rows.rows):
        await call.note_jobs()
    if type and not rows.rows and not set(types) & set(TYPES):
        near = ", ".join(tasks.fields["type"].values_like(type))
        hint = f" Types with this name or meaning: {near}." if near else ""
        call.notes.add(f"No task has the type {type!r}.{hint}")
    if len(types) > 1:
        call.notes.add(f"type {type!r} stands for {', '.join(types)}.")
    if len(rows.rows) > limit:
        more = "a larger limit or filters" if limit < _MOST_TASKS else "filters"
        call.notes.add(f"The newest {limit}{rows.tie_at(limit)}; use {more} for more.")
    return replace(rows, rows=rows.rows[:limit])


def since_argument(text: str | None) -> datetime | None:
    """Parse the time from which on rows are wanted; raise BadArgument for one in the future."""
    time = time_argument("since", text)
    if time and time > datetime.now(UTC) + _CLOCKS_DIFFER:
        utc = f"{time:%Y-%m-%dT%H:%MZ}"
        raise BadArgument(
            "since", f"{text!r} is in the future ({utc}); times without an offset are UTC."
        )
    return time


def time_argument(name: str, text: str | None) -> datetime | None:
    """Parse a time as queries do; one before 1970 is the start of all tasks."""
    if text is None:
        return None
    now = datetime.now(UTC)
    seconds = time_of(text, now)
    if seconds is None:
        example = f"{now:%Y-%m-%dT%H:%MZ}"
        raise BadArgument(
            name, f"{text!r} is neither ISO 8601 ({example}) nor like -24h or yesterday."
        )
    return datetime.fromtimestamp(min(max(0, seconds), _LAST_TIME), UTC)


@tool("GetTask", area=Area.NODES, effect=Effect.READ, answer=TaskState, needs=(needs.NODES,))
async def get_task(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    upid: UpidText,
    wait_seconds: Wait = 0,
    log_lines: LogLines = 20,
) -> Document:
    """Get a task's state, outcome and the end of its log; can wait for its end."""
    cluster, parsed = await visible_task(call, cluster_name, upid)
    await cluster.require_not_offline(parsed.node)
    task = cluster.pve.task(parsed)
    try:
        if wait_seconds:
            seconds = min(wait_seconds, call.settings.task_wait_max_seconds)
            try:
                await watch(call, task, seconds)
            except DeadlineExceeded:
                closing = call.closing.is_set()
                when = "as the server shuts down" if closing else f"after {seconds:.0f} s"
                call.notes.add(f"It was still running {when}.")
            except TaskFailed:
                pass  # the answer has its outcome
        status = await task.status()
    except NotFound:
        raise unknown_task(cluster, upid) from None
    lines = await task.tail(log_lines)
    log = await in_key_thread(call.caller.holder, lambda: list(map(mask_line, lines)))
    state = await _state(cluster, parsed, status, log)
    if state.ok is False and any(map(means_no_quorum, [state.exit_status or "", *state.log])):
        call.notes.add(f"{LACKS_QUORUM}: this is why the task failed.")
    return document(state)


async def visible_task(call: Call, cluster_name: str | None, text: str) -> tuple[Cluster, Upid]:
    """Return the cluster of a task, and its parsed UPID.

    Raise BadArgument for what is no UPID, UnknownName unless the caller may see its node or guest.
    """
    try:
        upid = Upid.parse(text)
    except ValueError as error:
        raise BadArgument("upid", str(error)) from None
    cluster = await cluster_with(call, cluster_name, nodes=[upid.node])
    view, whole = await cluster.inventory_view(), await cluster.inventory.view()
    if upid.node in view.by_node:
        return cluster, upid
    vmid = whole_number(upid.id)
    # a task of a visible guest ran on any node, but a made-up id must not show which ones there are
    reachable = whole.by_node.keys() - whole.offline_nodes
    if vmid not in view.by_vmid or upid.node not in reachable:
        raise unknown_task(cluster, text)
    try:
        await cluster.pve.task(upid).status()
    except ProxmoxError:  # also of a node that fails
        raise unknown_task(cluster, text) from None
    return cluster, upid


def unknown_task(cluster: Cluster, text: str) -> UnknownName:
    """Build the error for a task that does not exist or is not visible."""
    return UnknownName("task", text, (), where=f"on {cluster.name}")


async def _state(cluster: Cluster, upid: Upid, status: TaskStatus, log: list[str]) -> TaskState:
    exit_status = None if status.running else status.exit_status or "unexpected status"
    warned = (exit_status or "").startswith("WARNINGS:")
    end_time = None if status.running else await _end_time(cluster, upid)
    until = end_time or (datetime.now(UTC) if status.running else None)
    start_time = moment(upid.start_time)
    duration = (until - start_time).total_seconds() if until and start_time else None
    return TaskState(
        cluster=cluster.name,
        upid=upid.text,
        node=upid.node,
        type=upid.type,
        id=upid.id or None,
        user=f"{upid.user}!{upid.token}" if upid.token else upid.user,
        task_status=status.status,
        exit_status=exit_status,
        ok=None if exit_status is None else exit_status == "OK" or warned,
        warnings=_warning_count(exit_status) if warned else 0 if exit_status else None,
        start_time=start_time,
        end_time=end_time,
        duration=None if duration is None else max(0, int(duration)),
        log=log,
    )


async def _end_time(cluster: Cluster, upid: Upid) -> datetime | None:
    """Look the end up in the node's task list, since a task's own status does not have it."""
    request = cluster.pve.node(upid.node).tasks(
        since=upid.start_time, until=upid.start_time, type=upid.type, source="archive"
    )
    rows = await cluster.optional(request, "When it ended is not known")
    return next((moment(row.end_time) for row in rows or () if row.upid == upid.text), None)


def _warning_count(exit_status: str | None) -> int:
    """Return n of `WARNINGS: n`."""
    number = whole_number((exit_status or "").removeprefix("WARNINGS:").strip())
    return 1 if number is None else number
