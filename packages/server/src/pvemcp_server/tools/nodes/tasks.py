"""One task, now or when it has ended."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from proxmox_client import DeadlineExceeded, NotFound, Task, TaskFailed, Upid
from proxmox_client.api.tasks import TaskStatus
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.tables.registry import Col, Row, Unit
from pvemcp_server.tables.values import moment
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import OneCluster
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.registry import Document, document, tool
from pvemcp_server.toolkit.task_wait import watch

UpidText = Annotated[str, Field(max_length=512, description="Task id, from a write or ListTasks")]
Wait = Annotated[int, Field(ge=0, description="Wait this long for its end")]
LogLines = Annotated[int, Field(ge=0, le=500, description="Last lines of its log")]


class TaskState(Row):
    """A task and how it ended, if it has."""

    cluster: Annotated[str, Col("Cluster")]
    upid: Annotated[str, Col("Task id")]
    node: Annotated[str, Col("Node where it runs")]
    type: Annotated[str, Col("What it does: qmstart, vzdump, qmigrate …")]
    id: Annotated[str | None, Col("Guest or storage it is about")]
    user: Annotated[str, Col("Account that started it")]
    status: Annotated[str, Col("running or stopped")]
    exit_status: Annotated[str | None, Col("OK, WARNINGS: n, or the error")]
    ok: Annotated[bool | None, Col("Whether it ended well; null while it runs")]
    warnings: Annotated[int | None, Col("Warnings in its log", Unit.COUNT)]
    start_time: Annotated[datetime | None, Col("When it began", Unit.TIME)]
    end_time: Annotated[datetime | None, Col("When it ended, where it is known", Unit.TIME)]
    duration: Annotated[int | None, Col("How long it took, or has been running", Unit.SECONDS)]
    log: Annotated[list[str], Col("The last lines of its log")]


@tool("GetTask", area=Area.NODES, effect=Effect.READ, answer=TaskState, needs=(needs.NODES,))
async def get_task(
    call: Call,
    *,
    cluster_name: OneCluster = None,
    upid: UpidText,
    wait_seconds: Wait = 0,
    log_lines: LogLines = 20,
) -> Document:
    """Get a task's state, outcome and the end of its log; waits for its end if told to."""
    cluster = await call.cluster(cluster_name)
    parsed = await _seen(cluster, upid)
    task = cluster.pve.task(parsed)
    try:
        if wait_seconds:
            await _wait(call, task, wait_seconds)
        status = await task.status()
    except NotFound:
        raise _unknown(cluster, upid) from None
    return document(await _state(cluster, parsed, status, await task.tail(log_lines)))


async def _seen(cluster: Cluster, text: str) -> Upid:
    """The task, when it is about something that the caller may see."""
    try:
        upid = Upid.parse(text)
    except ValueError as error:
        raise BadArgument("upid", str(error)) from None
    view = await cluster.inventory_view()
    guest = int(upid.id) if upid.id.isdecimal() else None
    if upid.node not in view.by_node and guest not in view.by_vmid:
        raise _unknown(cluster, text)
    return upid


def _unknown(cluster: Cluster, text: str) -> UnknownName:
    return UnknownName("task", text, (), where=f"on {cluster.name}")


async def _wait(call: Call, task: Task, seconds: float) -> None:
    longest = min(seconds, call.settings.task_wait_max_seconds)
    try:
        await watch(call, task, longest)
    except DeadlineExceeded:
        when = "as the server shuts down" if call.closing.is_set() else f"after {longest:.0f} s"
        call.notes.add(f"It was still running {when}.")
    except TaskFailed:
        return  # the answer tells how it ended


async def _state(cluster: Cluster, upid: Upid, status: TaskStatus, log: list[str]) -> TaskState:
    ended = None if status.running else status.exit_status or "unexpected status"
    warned = (ended or "").startswith("WARNINGS:")
    ends = None if status.running else await _end_time(cluster, upid)
    until = ends or (datetime.now(UTC) if status.running else None)
    starts = moment(upid.start_time)
    return TaskState(
        cluster=cluster.name,
        upid=upid.text,
        node=upid.node,
        type=upid.type,
        id=upid.id or None,
        user=f"{upid.user}!{upid.token}" if upid.token else upid.user,
        status=status.status,
        exit_status=ended,
        ok=None if ended is None else ended == "OK" or warned,
        warnings=_count(ended) if warned else 0 if ended else None,
        start_time=starts,
        end_time=ends,
        duration=max(0, int((until - starts).total_seconds())) if until and starts else None,
        log=log,
    )


async def _end_time(cluster: Cluster, upid: Upid) -> datetime | None:
    """A task's own state leaves out when it ended; the list of its node has it."""
    rows = await cluster.pve.node(upid.node).tasks(
        since=upid.start_time, until=upid.start_time, type=upid.type, source="archive"
    )
    return next((moment(one.end_time) for one in rows if one.upid == upid.text), None)


def _count(warned: str | None) -> int:
    digits = (warned or "").removeprefix("WARNINGS:").strip()
    return int(digits) if digits.isdecimal() else 1
