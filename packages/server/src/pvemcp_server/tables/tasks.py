"""Tasks that nodes ran."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from proxmox_client.api.tasks import TaskRow
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import of_task
from pvemcp_server.tables.registry import NARROWED, Col, Cost, LoadRequest, Row, Unit, table
from pvemcp_server.tables.values import moment, only

LATEST = 500  # of each node, when nobody says how many
SINCE = 5000  # of each node, when somebody says since when

Outcome = Literal["running", "ok", "warnings", "error"]
# Outcomes here: for Proxmox. A task that died with its node has an unknown one.
_ENDED = {"ok": ("ok",), "warnings": ("warning",), "error": ("error", "unknown")}
_OUTCOMES = tuple((word, "outcome") for word in ("error", "failed", "warnings", "stopped"))
_AT_WORK = 25  # of each node: tasks that run have an unknown outcome too


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
    id: Annotated[str | None, Col("What it is about: a guest's number, a storage …")]
    status: Annotated[
        str,
        Col(
            "RUNNING, OK, WARNINGS: n, or what went wrong",
            elsewhere=tuple(
                (word, "outcome") for word in ("error", "failed", "warnings", "stopped")
            ),
        ),
    ]
    user: Annotated[str, Col("Who started it, with the API token if one was used")]
    start_time: Annotated[datetime | None, Col("Start", Unit.TIME)]
    end_time: Annotated[datetime | None, Col("End", Unit.TIME)]
    duration: Annotated[int | None, Col("From start to end", Unit.SECONDS)]
    outcome: Annotated[Outcome, Col("How it ended, if it did", also=("result",))]
    vmid: Annotated[int | None, Col("Guest it is about", also=("guest_id",))]


@table(
    "tasks",
    tool="ListTasks",
    cost=Cost.PER_NODE,
    covered=of_task,
    pushed={**NARROWED, "outcome": "status", "type": "types", "start_time": "since"},
    relations=(TO_GUEST, TO_NODE),
    # without Sys.Audit, Proxmox lists the account's own tasks only
    looks_filtered=lambda account, rows: all(row.user == account for row in rows),
)
async def tasks(cluster: Cluster, want: LoadRequest) -> list[Task]:
    """The latest tasks of all nodes, newest first."""
    seen = {one.node for one in (await cluster.inventory_view()).nodes}
    # the newest of a node may all be somebody else's
    wanted = want.limit if cluster.scope.everything else None
    limit = (wanted or (SINCE if want.since else LATEST)) + _AT_WORK * ("error" in want.status)

    async def listed(node: str) -> list[TaskRow]:
        return await _tasks(cluster, node, want, limit)

    found = await fanout.quietly(
        cluster,
        await fanout.all_nodes(cluster, want),
        seen.__contains__,
        lambda view, some: fanout.each(view, some, listed, want, "tasks of node"),
    )
    rows = [_row(one, node) for node, answer in found.items() for one in answer]
    if wanted is None and any(len(answer) >= limit for answer in found.values()):
        cluster.notes.add(
            f"Only the latest {limit} tasks of each node of {cluster.name} were looked at; "
            "filter by start_time, vmid, type or outcome to reach older ones."
        )
    return sorted(rows, key=lambda row: (row.start_time is not None, row.start_time), reverse=True)


async def _tasks(cluster: Cluster, node: str, want: LoadRequest, limit: int) -> list[TaskRow]:
    """Finished and running ones, as Proxmox can filter them."""
    ended = [word for one in sorted(want.status) for word in _ENDED.get(one, ())]
    pushed = set(want.status) <= set(_ENDED)
    return await cluster.pve.node(node).tasks(
        source="all",
        limit=limit,
        vmid=only(want.vmids),
        type=only(want.types),
        since=int(want.since.timestamp()) if want.since else None,
        status=ended if ended and pushed else None,
    )


def _row(one: TaskRow, node: str) -> Task:
    return Task(
        upid=one.upid,
        node=one.node or node,
        type=one.type,
        id=one.id or None,
        status=one.status or ("RUNNING" if one.running else "unknown"),
        user=f"{one.user}!{one.token_id}" if one.token_id else one.user,
        start_time=moment(one.start_time),
        end_time=moment(one.end_time),
        duration=one.end_time - one.start_time if one.end_time else None,
        outcome=_outcome(one),
        vmid=int(one.id) if one.id.isascii() and one.id.isdecimal() else None,
    )


def _outcome(one: TaskRow) -> Outcome:
    if one.running:
        return "running"
    if not one.ok:
        return "error"
    return "ok" if one.status == "OK" else "warnings"
