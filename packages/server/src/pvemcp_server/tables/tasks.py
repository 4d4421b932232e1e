"""Tasks that nodes ran."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from proxmox_client.api.tasks import TaskRow
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import of_task
from pvemcp_server.tables.registry import COMMON_PUSHDOWN, Cost, LoadRequest, table
from pvemcp_server.tables.rows import Col, Row, Unit, moment, single

LATEST = 500  # of each node, without a limit in the request
SINCE = 5000  # of each node, when the request has a start time

Outcome = Literal["running", "ok", "warnings", "error"]
# Outcomes and the statuses of Proxmox. A task that ended with its node has the status unknown.
_ENDED = {"ok": ("ok",), "warnings": ("warning",), "error": ("error", "unknown")}
_OUTCOMES = tuple((word, "outcome") for word in ("error", "failed", "warnings", "stopped"))
_RUNNING = 25  # running tasks of each node, whose outcome is unknown too


class Task(Row):
    """A task."""

    minimal: ClassVar[tuple[str, ...]] = (
        "upid",
        "node",
        "type",
        "id",
        "status",
        "user",
        "start_time",
        "end_time",
        "duration",
    )

    upid: Annotated[str, Col("Task id: what GetTask takes")]
    node: Annotated[str, Col("Node it ran on")]
    type: Annotated[str, Col("Kind: qmstart, qmsnapshot, vzdump, qmigrate …")]
    id: Annotated[str | None, Col("Subject: a VMID, a storage …")]
    status: Annotated[
        str,
        Col("running, OK, WARNINGS: n, or what went wrong", redirects=_OUTCOMES),
    ]
    user: Annotated[str, Col("Who started it, with the API token if one was used")]
    start_time: Annotated[datetime | None, Col("Start", Unit.TIME)]
    end_time: Annotated[datetime | None, Col("End", Unit.TIME)]
    duration: Annotated[int | None, Col("From start to end", Unit.SECONDS)]
    outcome: Annotated[Outcome, Col("How it ended, if it did", aliases=("result",))]
    vmid: Annotated[int | None, Col("Guest it is about", aliases=("guest_id",))]


@table(
    "tasks",
    tool="ListTasks",
    cost=Cost.PER_NODE,
    covered=of_task,
    pushdown={**COMMON_PUSHDOWN, "outcome": "status", "type": "types", "start_time": "since"},
    relations=(TO_GUEST, TO_NODE),
    # without Sys.Audit, Proxmox lists the account's own tasks only
    looks_filtered=lambda account, rows: all(row.user == account for row in rows),
)
async def tasks(cluster: Cluster, request: LoadRequest) -> list[Task]:
    """The latest tasks of all nodes, newest first."""
    visible = {node.node for node in (await cluster.inventory_view()).nodes}
    # with a narrow scope, the newest tasks of a node may all be hidden
    newest = request.limit if cluster.scope.everything else None
    limit = newest or (SINCE if request.since else LATEST)
    if "error" in request.status:
        limit += _RUNNING  # Proxmox returns running tasks among those of unknown outcome
    ended = [word for outcome in sorted(request.status) for word in _ENDED.get(outcome, ())]
    filters_status = ended and request.status <= _ENDED.keys()

    async def list_tasks(node: str) -> list[TaskRow]:
        return await cluster.pve.node(node).tasks(
            source="all",
            limit=limit,
            vmid=single(request.vmids),
            type=single(request.types),
            since=int(request.since.timestamp()) if request.since else None,
            status=ended if filters_status else None,
        )

    answers = await fanout.each_masked(
        cluster,
        await fanout.all_nodes(cluster, request),
        visible.__contains__,
        lambda view, nodes: fanout.each(view, nodes, list_tasks, request, "tasks of node"),
    )
    rows = [_row(task, node) for node, answer in answers.items() for task in answer]
    if newest is None and any(len(answer) >= limit for answer in answers.values()):
        cluster.notes.add(
            f"Only the latest {limit} tasks of each node of {cluster.name} were looked at; "
            "filter by start_time, vmid, type or outcome to reach older ones."
        )
    return sorted(rows, key=lambda row: (row.start_time is not None, row.start_time), reverse=True)


def _row(task: TaskRow, node: str) -> Task:
    return Task(
        upid=task.upid,
        node=task.node or node,
        type=task.type,
        id=task.id or None,
        status="running" if task.running else task.status or "unknown",
        user=f"{task.user}!{task.token_id}" if task.token_id else task.user,
        start_time=moment(task.start_time),
        end_time=moment(task.end_time),
        duration=task.end_time - task.start_time if task.end_time else None,
        outcome=_outcome(task),
        vmid=int(task.id) if task.id.isascii() and task.id.isdecimal() else None,
    )


def _outcome(task: TaskRow) -> Outcome:
    if task.running:
        return "running"
    if not task.ok:
        return "error"
    return "ok" if task.status == "OK" else "warnings"
