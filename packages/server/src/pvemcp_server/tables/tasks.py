"""Tasks that nodes ran."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, ClassVar, Final, Literal

from proxmox_client.api.tasks import TaskRow
from proxmox_client.properties import whole_number
from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import Reach, of_task
from pvemcp_server.tables.registry import COMMON_PUSHDOWN, Cost, LoadRequest, made, table
from pvemcp_server.tables.rows import Col, Row, Unit, moment, single

LATEST = 500  # of each node, without a limit in the request
SINCE = 5000  # of each node, when the request has a start time

Outcome = Literal["running", "ok", "warnings", "error"]
# Outcomes and the statuses of Proxmox. A task that ended with its node has the status unknown.
_ENDED = {"ok": ("ok",), "warnings": ("warning",), "error": ("error", "unknown")}
_OUTCOMES = tuple((word, "outcome") for word in ("error", "failed", "warnings", "stopped"))
_OUTCOME_WORDS = {"ok": "success succeeded", "error": "failed failure errors"}
_BACKUP = "vzdump"
# Proxmox's kinds of tasks (grep fork_worker in its repositories), by words that people use for them
TYPES: Final[Mapping[str, str]] = {
    "qmstart": "start VM", "qmstop": "stop VM", "qmshutdown": "shutdown VM",
    "qmreboot": "reboot VM",
    "qmreset": "reset VM", "qmsuspend": "suspend pause hibernate VM", "qmresume": "resume VM",
    "qmcreate": "create VM", "qmclone": "clone VM", "qmdestroy": "destroy delete VM",
    "qmrestore": "restore VM", "qmmigrate": "migrate VM", "qmigrate": "migrate migration VM",
    "qmsnapshot": "snapshot VM", "qmdelsnapshot": "delete snapshot VM",
    "qmrollback": "rollback snapshot VM", "qmconfig": "configure VM", "qmmove": "move disk VM",
    "qmtemplate": "template VM", "resize": "resize disk",
    "vzstart": "start CT container", "vzstop": "stop CT container",
    "vzshutdown": "shutdown CT container", "vzreboot": "reboot CT container",
    "vzsuspend": "suspend CT container", "vzresume": "resume CT container",
    "vzcreate": "create CT container", "vzclone": "clone CT container",
    "vzdestroy": "destroy delete CT container", "vzrestore": "restore CT container",
    "vzmigrate": "migrate migration CT container", "vzsnapshot": "snapshot CT container",
    "vzdelsnapshot": "delete snapshot CT container", "vzrollback": "rollback snapshot CT container",
    "vztemplate": "template CT container", "move_volume": "move disk CT container",
    "vzdump": "backup", "imgcopy": "copy image", "imgdel": "delete image volume",
    "download": "download iso template",
    "ociregistrypull": "pull download oci image template", "aptupdate": "update",
    "startall": "start all guests",
    "stopall": "stop all guests", "migrateall": "migrate all guests", "hamigrate": "migrate ha",
    "hastart": "start ha", "hastop": "stop ha", "vncproxy": "console", "vncshell": "console shell",
    "spiceproxy": "console", "termproxy": "console", "srvstart": "start service",
    "srvstop": "stop service", "srvrestart": "restart service",
    "srvreload": "reload service network",
}  # fmt: skip
CONSOLES: Final = frozenset({"vncproxy", "vncshell", "termproxy", "spiceproxy", "spiceshell"})
"""Types of tasks that last as long as a user looks, and change nothing."""
_NAMED = 5  # nodes that a note names
_RUNNING = 25  # running tasks of each node, whose outcome is unknown too
_OF_SEVERAL = (
    "Tasks about several guests have no VMID, so they are not among those of one guest: backups by "
    "jobs, for example. ListTasks with type=vzdump alone lists them; GetLog with vmid has what "
    "they logged about the guest."
)


class Task(Row):
    """A task."""

    minimal: ClassVar[tuple[str, ...]] = (
        "node",
        "type",
        "id",
        "status",
        "user",
        "start_time",
        "duration",
    )

    upid: Annotated[str, Col("Task id: what GetTask takes")]
    node: Annotated[str, Col("Node it ran on")]
    type: Annotated[str, Col("Kind: qmstart, qmsnapshot, vzdump, qmigrate …", meanings=TYPES)]
    id: Annotated[str | None, Col("Subject: a VMID, a storage …", aliases=("subject", "object"))]
    status: Annotated[
        str,
        Col("running, OK, WARNINGS: n, or what went wrong", redirects=_OUTCOMES),
    ]
    user: Annotated[str, Col("Who started it, with the API token if one was used")]
    start_time: Annotated[datetime | None, Col("Start", Unit.TIME)]
    end_time: Annotated[datetime | None, Col("End", Unit.TIME)]
    duration: Annotated[int | None, Col("From start to end", Unit.SECONDS)]
    outcome: Annotated[
        Outcome, Col("How it ended, if it did", aliases=("result",), meanings=_OUTCOME_WORDS)
    ]
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

    # Proxmox answers a type that it does not know with nothing, and no hint could name others
    known_type = next(iter(request.types & TYPES.keys()), None) if len(request.types) == 1 else None
    if request.vmids and (not request.types or _BACKUP in request.types):
        cluster.notes.add(_OF_SEVERAL)

    async def list_tasks(node: str) -> list[TaskRow]:
        return await cluster.pve.node(node).tasks(
            source="all",
            limit=limit,
            vmid=single(request.vmids),
            type=known_type,
            since=int(request.since.timestamp()) if request.since else None,
            until=int(request.until.timestamp()) if request.until else None,
            status=ended if filters_status else None,
        )

    answers = await fanout.each_masked(
        cluster,
        await fanout.all_nodes(cluster, request),
        visible.__contains__,
        lambda view, nodes: fanout.each(view, nodes, list_tasks, request, "tasks of node"),
        request,
    )
    pairs = [(task, node) for node, answer in answers.items() for task in answer]
    rows = await made(cluster, pairs, lambda pair: [task_row(*pair)])
    # with a narrow scope always, because the number of hidden tasks must not show
    is_cut = any(len(answer) >= limit for answer in answers.values())
    if newest is None and (is_cut or not cluster.scope.everything):
        cluster.notes.add(
            f"Only the latest {limit} tasks of each node of {cluster.name} were looked at; "
            "filter by start_time, vmid, type or outcome to reach older ones."
        )
    if request.since or not await _shows_any(cluster, rows):
        await _note_oldest(cluster, [node for node in answers if node in visible], request)
    return sorted(rows, key=lambda row: (row.start_time is not None, row.start_time), reverse=True)


async def _shows_any(cluster: Cluster, rows: Sequence[Task]) -> bool:
    """Return whether the caller may see any of the rows: hidden ones must change no note."""
    if cluster.scope.everything:
        return bool(rows)
    reach = await Reach.of(cluster)
    return any(of_task(reach, row) for row in rows)


async def _note_oldest(cluster: Cluster, nodes: list[str], request: LoadRequest) -> None:
    """Note since when these nodes have tasks on record, if the request goes back further.

    Proxmox drops the oldest ones, so that an empty answer says nothing about the time before.
    """
    quiet = replace(cluster, notes=Notes())
    oldest = await fanout.each(
        quiet, nodes, lambda node: cluster.pve.node(node).oldest_task(), request, "oldest task"
    )
    starts = {node: start for node, t in oldest.items() if t and (start := moment(t.start_time))}
    late = {n: s for n, s in starts.items() if request.since is None or s > request.since}
    if late:
        listed = ", ".join(f"{node} {late[node]:%Y-%m-%d}" for node in sorted(late)[:_NAMED])
        more = " …" if len(late) > _NAMED else ""
        cluster.notes.add(
            f"{cluster.name} has no older tasks on record than these dates: {listed}{more}."
        )


def task_row(task: TaskRow, node: str) -> Task:
    """Return the row of a task that this node listed."""
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
        vmid=whole_number(task.id),
    )


def _outcome(task: TaskRow) -> Outcome:
    if task.running:
        return "running"
    if not task.ok:
        return "error"
    return "ok" if task.status == "OK" else "warnings"
