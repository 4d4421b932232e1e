"""ExplainGuest: why a guest is slow or down.

It compares the use now with the guest's own week, and shows its disks, node and latest tasks.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from proxmox_client.api.resources import GuestResource
from proxmox_client.api.status import GuestStatus
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.clusters import Cluster
from pvemcp_server.shown_names import shown_name
from pvemcp_server.tables import (
    LoadRequest,
    Table,
    disks,
    filesystems,
    guest_metrics,
    guests,
    node_metrics,
    storages,
    tasks,
)
from pvemcp_server.tables.metrics import NOW
from pvemcp_server.tables.rows import Col, Row, Unit, percent
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ItsCluster, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.cluster_lookup import cluster_with
from pvemcp_server.toolkit.registry import Document, document, tool
from pvemcp_server.tools.granted_rows import granted_rows

_HOUR: Final = "hour"
_WEEK: Final = "week"
_TASKS: Final = 5
_NEIGHBOURS: Final = 3
_MOST_GUESTS: Final = 1_500  # of a cluster whose measurements are read for neighbours
_FULL: Final = 90.0  # percent of memory, of a file system, of a storage
_BUSY: Final = 85.0  # percent of processors
_BUSY_NODE: Final = 70.0  # of a node: half of them may be hyper-threads, so guests wait earlier
_WAITED: Final = 10.0  # percent of the time
_UNUSUAL: Final = 1.2  # times the 95th percentile of the week
_LONGEST_PATH: Final = 100  # characters
_MIB: Final = 1 << 20
_MUCH_DISK: Final = 100 * _MIB  # per second, of a neighbour

# Metrics by the names of the answer: the columns of their average and 95th percentile
_GUEST_METRICS: Final = {
    "cpu": ("cpu_average", "cpu_p95"),
    "memory": ("memory_average", "memory_p95"),
    "disk_rate": ("disk_rate", "disk_p95_rate"),
    "network_rate": ("network_rate", "network_p95_rate"),
    "pressure_cpu": ("pressure_cpu", None),
    "pressure_io": ("pressure_io", None),
    "pressure_memory": ("pressure_memory", None),
}
_NODE_METRICS: Final = {
    "cpu": ("cpu_average", "cpu_p95"),
    "memory": ("memory_average", "memory_p95"),
    "iowait": ("iowait", None),
    "pressure_cpu": ("pressure_cpu", None),
    "pressure_io": ("pressure_io", None),
    "pressure_memory": ("pressure_memory", None),
}
_WAITS: Final = {"pressure_cpu": "CPU", "pressure_io": "disks", "pressure_memory": "memory"}
# Metrics that are compared with the week: the lowest value that counts, and how it is written
_COMPARED: Final[Mapping[str, tuple[float, Callable[[float], str]]]] = {
    "cpu": (20.0, lambda value: f"{value:g} %"),
    "disk_rate": (_MIB, lambda value: f"{value / _MIB:.1f} MiB/s"),
    "network_rate": (_MIB, lambda value: f"{value / _MIB:.1f} MiB/s"),
}

Cells = dict[str, Any]
Metrics = Mapping[str, tuple[str, str | None]]


class GuestExplanation(Row):
    """What may explain a guest's behaviour. Rates are bytes/s, the other metrics percent."""

    cluster: Annotated[str, Col("Cluster")]
    vmid: Annotated[int, Col("Number")]
    name: Annotated[str, Col("Display name")]
    type: Annotated[Literal["qemu", "lxc"], Col("Virtual machine (qemu) or container (lxc)")]
    node: Annotated[str, Col("Node it is on")]
    status: Annotated[str, Col("State: running, stopped, paused")]
    lock: Annotated[str | None, Col("What it is locked for")]
    ha_state: Annotated[str | None, Col("State in high availability")]
    uptime: Annotated[int, Col("Time since its start", Unit.SECONDS)]
    cpu_count: Annotated[float | None, Col("Cores, or the limit of CPU time", Unit.COUNT)]
    memory_max: Annotated[int | None, Col("Memory it may use", Unit.BYTES)]
    findings: Annotated[list[str], Col("What is exhausted, waited for, or unlike its week")]
    metrics: Annotated[list[Cells], Col("Now, and the average and p95 of its week")]
    node_metrics: Annotated[list[Cells], Col("The same of its node; now is its last hour")]
    disks: Annotated[list[Cells], Col("Its disks, and how full their storages are")]
    filesystems: Annotated[list[Cells], Col("File systems inside, and how full they are")]
    neighbours: Annotated[
        list[Cells], Col("Other guests of its node that use the most processor time, or disks, now")
    ]
    tasks: Annotated[list[Cells], Col("The latest tasks on it")]


@tool(
    "ExplainGuest",
    area=Area.VMS,
    effect=Effect.READ,
    answer=GuestExplanation,
    needs=(needs.GUESTS, needs.NODES, needs.STORAGES),
)
async def explain_guest(call: Call, *, cluster_name: ItsCluster = None, vmid: VmId) -> Document:
    """Explain why a guest is slow or down: use now against its week, disks, node, tasks."""
    cluster = await cluster_with(call, cluster_name, vmids=[vmid])
    guest = await cluster.guest(vmid)
    status = await (await cluster.handle(vmid)).status()
    running = status.status == "running"
    own_rows = LoadRequest(vmids=frozenset({vmid}))
    reader = _Reader(call, cluster, own_rows, LoadRequest(nodes=frozenset({guest.node})))
    own, metrics, node, disk_rows, filesystem_rows, task_rows = await asyncio.gather(
        reader.week(),
        reader.now(),
        reader.node_metrics(frozenset({_HOUR, _WEEK})),
        reader.disks(),
        reader.filesystems() if running else _no_rows(),
        reader.tasks(),
    )
    neighbours = await reader.neighbours(vmid, metrics)
    latest = _first(metrics, vmid=vmid) if running else None
    now = _averages(latest, _GUEST_METRICS) | _live(status)
    use = _compare(now, _first(own, time_frame=_WEEK), _GUEST_METRICS)
    last_hour = _averages(_first(node, time_frame=_HOUR), _NODE_METRICS)
    node_use = _compare(last_hour, _first(node, time_frame=_WEEK), _NODE_METRICS)
    _note_more(call, cluster, guest.node, node_use)
    is_blind = guest.node in (await cluster.inventory.view()).nodes_without_statistics
    if is_blind:
        cluster.note_without_statistics({guest.node})
    findings = [
        *_state_findings(status, task_rows),
        *_use_findings(use, f"of its {status.cpu_count or 1:g} cores"),
        *_space_findings(disk_rows, filesystem_rows, is_blind=is_blind),
        *_node_findings(shown_name(guest.node), node_use),
        *_neighbour_findings(shown_name(guest.node), neighbours, node_use),
    ]
    return _answer(
        cluster,
        guest,
        status,
        findings=findings or ["Nothing unusual in what is shown here."],
        metrics=use,
        node_metrics=node_use,
        disks=disk_rows,
        filesystems=filesystem_rows,
        neighbours=neighbours,
        tasks=task_rows,
    )


def _answer(
    cluster: Cluster, guest: GuestResource, status: GuestStatus, **parts: list[Any]
) -> Document:
    """Return the explanation: the guest with its state, and the parts about its use."""
    return document(
        GuestExplanation(
            cluster=cluster.name,
            vmid=guest.vmid,
            name=status.name,
            type=guest.type,
            node=guest.node,
            status="paused" if status.is_paused else status.status,
            lock=status.lock or None,
            ha_state=status.ha.state,
            uptime=status.uptime,
            cpu_count=status.cpu_count,
            memory_max=status.memory_max,
            **parts,
        )
    )


@dataclass(frozen=True)
class _Reader:
    """Reads the tables that an explanation is made of; a part that fails becomes a note."""

    call: Call
    cluster: Cluster
    guest: LoadRequest  # rows of the guest
    place: LoadRequest  # rows of its node

    async def week(self) -> Sequence[Any]:
        """Return the metrics of the guest over a week."""
        columns = _columns(_GUEST_METRICS)
        request = replace(self.guest, frames=frozenset({_WEEK}), columns=columns)
        return await self._rows(guest_metrics, request)

    async def now(self) -> Sequence[Any]:
        """Return the metrics of the node's guests now; on a large cluster of this guest only.

        Proxmox has those of all guests of the cluster in one answer, which grows with them.
        """
        place = self.place
        if len((await self.cluster.inventory.view()).guests) > _MOST_GUESTS:
            place = self.guest
            self.cluster.notes.add(
                f"The disk use of neighbours is only read on clusters of up to {_MOST_GUESTS} "
                "guests; guest_metrics has it in queries."
            )
        request = replace(place, frames=frozenset({NOW}), columns=_columns(_GUEST_METRICS))
        return await self._rows(guest_metrics, request)

    async def node_metrics(self, frames: frozenset[str]) -> Sequence[Any]:
        request = replace(self.place, frames=frames, columns=_columns(_NODE_METRICS))
        return await self._rows(node_metrics, request)

    async def neighbours(self, vmid: int, metrics: Sequence[Any]) -> list[Cells]:
        """Return the other guests of the node that use the most processor time or disks now."""
        columns = frozenset({"vmid", "name", "cpu_usage", "cpu_count", "memory_usage"})
        found = await self._rows(guests, replace(self.place, columns=columns))
        disk_rates = {row.vmid: row.disk_rate for row in metrics}
        cells = [
            {
                "vmid": row.vmid,
                "name": row.name,
                "cores_used": round(row.cpu_usage * row.cpu_count / 100, 1),
                "memory_usage": row.memory_usage,
                "disk_rate": disk_rates.get(row.vmid),
            }
            for row in found
            if row.vmid != vmid and row.cpu_usage and row.cpu_count
        ]
        by_cores = sorted(cells, key=lambda cell: -cell["cores_used"])[:_NEIGHBOURS]
        by_disks = sorted(cells, key=lambda cell: -(cell["disk_rate"] or 0))[:_NEIGHBOURS]
        busy = [cell for cell in by_disks if (cell["disk_rate"] or 0) >= _MIB]
        return [*by_cores, *(cell for cell in busy if cell not in by_cores)]

    async def disks(self) -> list[Cells]:
        rows = await self._rows(disks, self.guest)
        used = [row for row in rows if row.media == "disk" and row.storage]
        names = frozenset(row.storage for row in used)
        columns = frozenset({"storage", "node", "status", "disk_usage_percentage"})
        places = await self._rows(storages, replace(self.place, storages=names, columns=columns))
        by_name = {place.storage: place for place in places}
        return [
            {
                "id": row.id,
                "size": row.size,
                "storage": row.storage,
                "storage_status": getattr(by_name.get(row.storage), "status", None),
                "storage_usage_percentage": getattr(
                    by_name.get(row.storage), "disk_usage_percentage", None
                ),
            }
            for row in used
        ]

    async def filesystems(self) -> list[Cells]:
        rows = await self._rows(filesystems, self.guest)
        return [
            {"mount_point": row.mount_point, "usage_percentage": row.usage_percentage}
            for row in rows
            if row.problem is None
        ]

    async def tasks(self) -> list[Cells]:
        rows = await self._rows(tasks, replace(self.guest, limit=_TASKS))
        return [
            {name: getattr(task, name) for name in ("type", "status", "user", "start_time")}
            for task in rows[:_TASKS]
        ]

    async def _rows(self, table: Table, request: LoadRequest) -> Sequence[Any]:
        return await granted_rows(self.call, self.cluster, table, request) or ()


def _note_more(call: Call, cluster: Cluster, node: str, node_use: Sequence[Cells]) -> None:
    """Note what may be missing about the node, and which tool has more about the guest."""
    if not node_use:
        call.notes.add(f"The use of {node} is unknown, and what else runs there may be missing.")
    if call.caller.resources("ListChanges", Effect.READ, cluster.name):
        call.notes.add("ListChanges with vmid has changes of its options.")


async def _no_rows() -> list[Any]:
    """Return no rows: a guest that doesn't run has none."""
    return []


def _columns(metrics: Metrics) -> frozenset[str]:
    return frozenset(column for pair in metrics.values() for column in pair if column)


def _first(rows: Sequence[Any], **values: object) -> Any | None:
    """Return the first row with these values, or None."""
    return next(
        (row for row in rows if all(getattr(row, name) == v for name, v in values.items())), None
    )


def _averages(row: Any | None, metrics: Metrics) -> Cells:
    """Return the averages of a row by the names of the answer."""
    return {name: getattr(row, average, None) for name, (average, _) in metrics.items()}


def _live(status: GuestStatus) -> Cells:
    """Return what the guest's status has; its pressures, from 9.0 on, are of ten seconds."""
    return {
        "cpu": percent(status.cpu),
        "memory": percent(status.memory, status.memory_max),
        "pressure_cpu": status.pressure_cpu_some,
        "pressure_io": status.pressure_io_some,
        "pressure_memory": status.pressure_memory_some,
    }


def _compare(now: Cells, week: Any | None, metrics: Metrics) -> list[Cells]:
    """Return the known metrics, each with its value now and the average and p95 of the week."""
    rows = (
        {
            "metric": name,
            "now": now[name],
            "week_average": getattr(week, average, None),
            "week_p95": getattr(week, p95, None) if p95 else None,
        }
        for name, (average, p95) in metrics.items()
    )
    return [row for row in rows if row["now"] is not None or row["week_average"] is not None]


def _state_findings(status: GuestStatus, latest: Sequence[Cells]) -> Iterator[str]:
    if status.is_paused:
        yield "It is paused: nothing in it runs until it is resumed."
    elif status.status != "running":
        yield f"It is {shown_name(status.status)}: nothing in it runs."
    if status.lock:
        yield f"It is locked: {shown_name(status.lock)}."
    if status.ha.state in ("error", "fence", "recovery"):
        yield f"High availability reports the state {status.ha.state}."
    for task in latest:
        if task["status"] == "running":
            kind, user = shown_name(task["type"]), shown_name(task["user"])
            yield f"The task {kind} of {user} is at work on it."


def _use_findings(metrics: Sequence[Cells], of_cores: str) -> Iterator[str]:
    values = {row["metric"]: row for row in metrics if row["now"] is not None}
    if "cpu" in values and values["cpu"]["now"] >= _BUSY:
        yield f"It uses {values['cpu']['now']:g} % {of_cores}."
    if "memory" in values and values["memory"]["now"] >= _FULL:
        yield f"{values['memory']['now']:g} % of its memory is in use."
    yield from _peak_findings(values, "it", of_cores)
    yield from _wait_findings(values, "In it, something")
    for name, (least, write) in _COMPARED.items():
        row = values.get(name, {"now": 0, "week_p95": None})
        p95 = row["week_p95"]
        if p95 is not None and row["now"] >= max(least, _UNUSUAL * p95):
            yield (
                f"Its {name} is {write(row['now'])}; for 95 % of its week it was at most "
                f"{write(p95)}."
            )


def _peak_findings(values: Mapping[str, Cells], subject: str, of_cores: str) -> Iterator[str]:
    """Yield the resources that were exhausted in the busiest hours of the week, and are not now."""
    for name, limit, of_resource in (("cpu", _BUSY, of_cores), ("memory", _FULL, "of its memory")):
        row = values.get(name, {"now": 0, "week_p95": None})
        p95 = row["week_p95"]
        if p95 is not None and row["now"] < limit <= p95:
            yield f"For 5 % of the week, {subject} used {p95:g} % {of_resource} or more."


def _wait_findings(values: Mapping[str, Cells], subject: str) -> Iterator[str]:
    for name, resource in _WAITS.items():
        if name in values and values[name]["now"] >= _WAITED:
            yield f"{subject} waits for {resource} {values[name]['now']:g} % of the time (PSI)."


def _space_findings(
    disk_rows: Sequence[Cells], filesystem_rows: Sequence[Cells], *, is_blind: bool
) -> Iterator[str]:
    """Yield what is full or not available; `is_blind` is whether the node lacks statistics."""
    for row in filesystem_rows:
        if (row["usage_percentage"] or 0) >= _FULL:
            path = shown_name(row["mount_point"] or "", _LONGEST_PATH)  # as the guest names it
            yield f"The file system {path} is {row['usage_percentage']:g} % full."
    for name in dict.fromkeys(row["storage"] for row in disk_rows):
        place = next(row for row in disk_rows if row["storage"] == name)
        storage, state = shown_name(name), place["storage_status"]
        if (place["storage_usage_percentage"] or 0) >= _FULL:
            yield f"The storage {storage} is {place['storage_usage_percentage']:g} % full."
        if state not in (None, "available") and not is_blind:
            yield f"The state of the storage {storage} is {shown_name(state)}."


def _node_findings(node: str, metrics: Sequence[Cells]) -> Iterator[str]:
    values = {row["metric"]: row for row in metrics if row["now"] is not None}
    if _is_busy(metrics):
        yield f"{node} uses {values['cpu']['now']:g} % of its processors."
    if "memory" in values and values["memory"]["now"] >= _FULL:
        yield f"{values['memory']['now']:g} % of the memory of {node} is in use."
    if "iowait" in values and values["iowait"]["now"] >= _WAITED:
        yield f"{node} waits for disks {values['iowait']['now']:g} % of its time."
    yield from _peak_findings(values, node, "of its processors")
    yield from _wait_findings(values, f"On {node}, something")


def _is_busy(node_metrics: Sequence[Cells]) -> bool:
    """Return whether guests of the node wait for processors, by their use in its last hour."""
    return any(row["metric"] == "cpu" and (row["now"] or 0) >= _BUSY_NODE for row in node_metrics)


def _neighbour_findings(
    node: str, neighbours: Sequence[Cells], node_metrics: Sequence[Cells]
) -> Iterator[str]:
    """Yield the neighbour with the most processor time on a busy node, and that with much I/O."""
    if neighbours and _is_busy(node_metrics):
        top = max(neighbours, key=lambda cell: cell["cores_used"])
        guest = f"{top['vmid']} {shown_name(top['name'])}"
        yield f"On {node}, {guest} uses {top['cores_used']:g} cores."
    busiest = max(neighbours, key=lambda cell: cell["disk_rate"] or 0, default=None)
    if busiest and (busiest["disk_rate"] or 0) >= _MUCH_DISK:
        rate = f"{busiest['disk_rate'] / _MIB:.0f} MiB/s"
        name = shown_name(busiest["name"])
        yield f"On {node}, {busiest['vmid']} {name} reads and writes {rate}."
