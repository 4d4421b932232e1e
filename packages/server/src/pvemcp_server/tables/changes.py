"""What changed: the tasks of all nodes and the lines of the cluster's log as one list."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime
from typing import Annotated, ClassVar, Final, Literal, cast

from msgspec.structs import replace as altered

from proxmox_client import Upid
from proxmox_client.api.tasks import TaskRow
from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.shown_names import listed_names
from pvemcp_server.store.records import HistoryEntry
from pvemcp_server.tables.cluster_log import TASK_LINE, ClusterLogLine, cluster_log
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import of_task
from pvemcp_server.tables.registry import Cost, LoadRequest, load, made, table
from pvemcp_server.tables.rows import Col, Row, Unit
from pvemcp_server.tables.tasks import Outcome, Task, task_row, tasks

Kind = Literal["task", "config", "login", "log", "guest", "node", "storage"]
KINDS: Final[Mapping[str, str]] = {
    "task": "tasks job jobs action actions",
    "config": "configuration settings options",
    "login": "logins sign-in sign-ins auth authentication",
    "log": "other",
    "guest": "guests vm vms ct cts container containers",
    "node": "nodes",
    "storage": "storages",
}
"""Kinds of changes, by words that people use for them."""

_LOGIN: Final = re.compile(
    r"successful (?:\w+ )?auth for user '([^']+)'|authentication failure;.*?\buser=(\S+)", re.DOTALL
)
_CONFIG: Final = "update "
_HISTORY: Final = ("config", "guest", "node", "storage")
_GUEST: Final = re.compile(r"(?:[a-z]+ )*(?:VM|CT|container) ([1-9]\d{2,8})\b", re.ASCII)
_ERRORS: Final = ("emerg", "alert", "crit", "err")
_NOT_LOGGED: Final = (
    "Proxmox logs the new options of VMs: no old values, no options of containers, storages, users "
    "or jobs, no edited files, and not when a node or storage failed. `latest_time` of "
    "ListNodeRrdData is when an offline node was last up. The setting history_minutes keeps more."
)


class Change(Row):
    """Something that changed, and who did it."""

    minimal: ClassVar[tuple[str, ...]] = ("time", "kind", "subject", "user", "text")

    time: Annotated[
        datetime | None,
        Col("When, or when it was noticed; start of a task", Unit.TIME, ("date", "start_time")),
    ]
    kind: Annotated[
        Kind,
        Col(
            "task, config (options), login, log (other lines); guest, node or storage for what "
            "came, went or changed its state",
            meanings=KINDS,
        ),
    ]
    node: Annotated[str, Col("Node where it happened")]
    vmid: Annotated[int | None, Col("Guest it is about", aliases=("guest_id",))]
    subject: Annotated[str, Col("Guest, storage, user or service; otherwise the node")]
    user: Annotated[
        str | None,
        Col("Who did it, with the API token if one was used; null is unknown", aliases=("who",)),
    ]
    text: Annotated[
        str,
        Col("Type and status of a task; else the line, secrets masked", aliases=("message",)),
    ]
    outcome: Annotated[
        Outcome | None, Col("How a task ended, if that is known; error for a line that is one")
    ]
    upid: Annotated[str | None, Col("Task: what GetTask takes")]


@table(
    "changes",
    tool="ListChanges",
    cost=Cost.PER_NODE,
    covered=of_task,
    pushdown={"vmid": "vmids", "node": "nodes", "kind": "types", "time": "since"},
    relations=(TO_GUEST, TO_NODE),
    looks_filtered=lambda account, rows: tasks.looks_filtered(
        account, [row for row in rows if row.kind == "task"]
    ),
)
async def changes(cluster: Cluster, request: LoadRequest) -> list[Change]:
    """Tasks, changed options, sign-ins; with a history what came, went or failed. Newest first."""
    await cluster.inventory_view()  # a cluster that is gone is one error instead of two notes
    of_tasks, of_lines = (replace(cluster, notes=Notes()) for _ in range(2))
    listed, lines = await asyncio.gather(_tasks(of_tasks, request), _log(of_lines, request))
    for quiet in (of_tasks, of_lines):  # in this order, whichever answers first
        cluster.notes.update(quiet.notes)
    rows = await made(cluster, listed, lambda task: [_of_task(task)])
    if request.wants_type("task"):
        rows += await _tasks_of_log(cluster, request, lines, {task.upid for task in listed})
    others = (line for line in lines if not TASK_LINE.fullmatch(line.message))
    of_log = await made(cluster, others, lambda line: [_of_line(line)])
    rows += of_log + await _history(cluster, request, of_log)
    kept = (row for row in rows if _is_requested(row, request))
    return sorted(kept, key=lambda row: (row.time is not None, row.time), reverse=True)


async def _tasks(cluster: Cluster, request: LoadRequest) -> Sequence[Task]:
    if not request.wants_type("task"):
        return ()
    return await load(tasks, cluster, replace(request, types=frozenset(), columns=None))


async def _log(cluster: Cluster, request: LoadRequest) -> Sequence[ClusterLogLine]:
    """Return the lines of the log, for a scope of everything; note since when it has any."""
    if request.types != {"task"} and not cluster.scope.everything:
        cluster.notes.add(
            f"The log of {cluster.name} is for roles on the whole cluster, so configuration "
            "changes and sign-ins are not among these rows.",
            advice=True,
        )
    failure = f"The log of {cluster.name} is missing"
    lines = await cluster.optional(
        load(cluster_log, cluster, replace(request, columns=None)), failure
    )
    times = [line.time for line in lines or () if line.time]
    if times and (request.since is None or request.since < min(times)):
        cluster.notes.add(
            f"The log of {cluster.name} has no older lines than {min(times):%Y-%m-%d %H:%M} UTC.",
            advice=True,
        )
        if "config" in request.types and "task" not in request.types:
            cluster.notes.add(
                "Tasks go further back: kind task, where qmconfig is a change of a VM's options.",
                advice=True,
            )
    return lines or ()


async def _history(
    cluster: Cluster, request: LoadRequest, of_log: Sequence[Change]
) -> list[Change]:
    """Return what the server noticed as this account, if it keeps a history; else note why not."""
    if not any(map(request.wants_type, _HISTORY)):
        return []
    began = await cluster.history.began() if cluster.history else None
    if not cluster.history or not began:
        if cluster.scope.everything:
            cluster.notes.add(_NOT_LOGGED, advice=True)
        return []
    if request.since is None or request.since < began:
        cluster.notes.add(
            f"The server's own history of {cluster.name} begins {began:%Y-%m-%d %H:%M} UTC.",
            advice=True,
        )
    logged: dict[int | None, list[Change]] = defaultdict(list)
    for row in of_log:
        if row.kind == "config":
            logged[row.vmid].append(row)
    entries = await cluster.history.since(request.since)
    # to look for each of many options in all lines of the log takes seconds
    work = len(entries) + sum(len(logged.get(entry.vmid, ())) for entry in entries)
    return await made(
        cluster, entries, lambda entry: [_of_entry(entry, logged.get(entry.vmid, ()))], work
    )


async def _tasks_of_log(
    cluster: Cluster,
    request: LoadRequest,
    lines: Sequence[ClusterLogLine],
    listed: AbstractSet[str],
) -> list[Change]:
    """Return the tasks of the log that no node lists: those of a node that is offline."""
    ends: dict[str, ClusterLogLine | None] = {}
    for line in lines:
        match = TASK_LINE.fullmatch(line.message)
        if match and match["upid"] not in listed:
            ends[match["upid"]] = ends.get(match["upid"]) or (line if match["end"] else None)
    rows = await made(cluster, ends.items(), lambda end: [_of_logged_task(*end)])
    rows = [row for row in rows if _is_requested(row, request)]
    offline = {row.node for row in rows} & (await cluster.inventory.view()).offline_nodes
    if offline:
        names = listed_names(sorted(offline))
        cluster.notes.add(
            f"Tasks of {names} on {cluster.name} are here as far as the log has them."
        )
    return rows


def _is_requested(row: Change, request: LoadRequest) -> bool:
    return (
        request.wants_type(row.kind)
        and request.wants_node(row.node)
        and (not request.vmids or row.vmid in request.vmids)
        and (request.since is None or (row.time is not None and row.time >= request.since))
        and (request.until is None or (row.time is not None and row.time <= request.until))
    )


def _of_task(task: Task) -> Change:
    return Change(
        time=task.start_time,
        kind="task",
        node=task.node,
        vmid=task.vmid,
        subject=task.id or task.node,
        user=task.user,
        text=f"{task.type}: {task.status}",
        outcome=task.outcome,
        upid=task.upid,
    )


def _of_logged_task(text: str, end: ClusterLogLine | None) -> Change:
    upid = Upid.parse(text)
    match = end and TASK_LINE.fullmatch(end.message)
    logged = TaskRow(
        upid=text,
        node=upid.node,
        type=upid.type,
        id=upid.id,
        user=upid.user,
        token_id=upid.token or None,
        start_time=upid.start_time,
        end_time=int(end.time.timestamp()) if end and end.time else None,
        status=match["status"] if match else None,
    )
    row = _of_task(task_row(logged, upid.node))
    if match:
        return row
    return altered(row, text=f"{upid.type}: its end is not logged", outcome=None)


def _of_entry(entry: HistoryEntry, logged: Iterable[Change]) -> Change:
    """Return the row of a difference; `logged` are the options of the guest that the log has.

    Its user is that of the lines that fit option and time, if they name one only.
    """
    name = re.escape(entry.option or "")
    option = re.compile(rf" -(?:{name}|delete \S*\b{name})\b")
    users = {
        line.user
        for line in logged
        if entry.option
        and line.time is not None
        and entry.after <= line.time <= entry.at
        and option.search(line.text)
    }
    return Change(
        time=entry.at,
        kind=cast(Kind, entry.kind),
        node=entry.node,
        vmid=entry.vmid,
        subject=entry.subject,
        user=users.pop() if len(users) == 1 else None,
        text=f"{entry.text}, after {entry.after:%Y-%m-%d %H:%M} UTC",
        outcome=None,
        upid=None,
    )


def _of_line(line: ClusterLogLine) -> Change:
    login, guest = _LOGIN.match(line.message), _GUEST.match(line.message)
    vmid = int(guest[1]) if guest else None
    kind: Kind = "log"
    if login:
        kind = "login"
    elif guest and line.message.startswith(_CONFIG):
        kind = "config"
    named = (login[1] or login[2]) if login else guest and guest[1]
    return Change(
        time=line.time,
        kind=kind,
        node=line.node,
        vmid=vmid,
        subject=named or line.node,
        user=line.user,
        text=line.message,
        outcome="error" if line.severity in _ERRORS else None,
        upid=None,
    )
