"""Recorded metrics of guests and nodes: summaries, or rows when the caller picks a step."""

from asyncio import gather
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from msgspec.structs import asdict
from pydantic import Field

from proxmox_client.api.resources import GuestResource
from proxmox_client.api.rrd import Consolidation, GuestRrd, NodeRrd, TimeFrame
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.clusters import Cluster, offload
from pvemcp_server.errors import BadArgument, folded
from pvemcp_server.tables import StorageMetric, fanout, storage_metrics
from pvemcp_server.tables.metrics import FRAME_WORDS
from pvemcp_server.tables.registry import LoadRequest
from pvemcp_server.tables.rows import Row, Unit, moment, percent, whole
from pvemcp_server.tables.series import (
    GUEST_METRICS,
    NODE_METRICS,
    Metric,
    Summary,
    summarize_metric,
)
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import (
    NO_FILTER,
    AnyNode,
    AnyStorage,
    ClusterName,
    ItsCluster,
    NodeName,
    OneCluster,
    Rule,
    VmId,
    Words,
)
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.charts import MOST_PANELS, Chart, Line, Panel
from pvemcp_server.toolkit.cluster_lookup import cluster_with, clusters_with
from pvemcp_server.toolkit.downsample import downsampled, interval, step_for, words
from pvemcp_server.toolkit.lists import listed, rows_or_error, with_budget
from pvemcp_server.toolkit.registry import Rows, tool
from pvemcp_server.toolkit.rrd_rows import NodePoint, NodeSummary, VmPoint, VmSummary
from pvemcp_server.tools.nodes.tasks import time_argument

Frame = Annotated[
    Literal["Hour", "Day", "Week", "Month", "Year"],
    Words({frame.capitalize(): words for frame, words in FRAME_WORDS.items()}),
    Field(description="How far back"),
]
ForecastDate = Annotated[str | None, Field(max_length=40, description="Date")]
Step = Annotated[
    str | None,
    Field(pattern=r"^[1-9][0-9]{0,2}[mhd]$", description="Rows of this length: 15m, 1h, 1d"),
    Rule("a step is a number of minutes, hours or days: 15m, 1h, 1d"),
]
Consolidate = Annotated[Literal["Average", "Maximum"], Field(description="Of each row of a step")]
Metrics = Annotated[
    list[Literal["Cpu", "Memory", "Disk", "Network", "Pressure", "All"]] | None,
    Field(min_length=1, description="Main ones when absent. Pressure: PSI, from 9.0"),
]
SomeVms = Annotated[list[VmId], Field(min_length=1, max_length=100, description="Guest numbers")]
SomeNodes = Annotated[
    list[NodeName] | None, NO_FILTER, Field(max_length=100, description="All when absent")
]

K = TypeVar("K", int, str)
P = TypeVar("P", GuestRrd, NodeRrd)
T = TypeVar("T")

FRAMES: dict[str, TimeFrame] = {
    "Hour": "hour",
    "Day": "day",
    "Week": "week",
    "Month": "month",
    "Year": "year",
}
_FUNCTIONS: dict[str, Consolidation] = {"Average": "AVERAGE", "Maximum": "MAX"}
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}
_NAMED: Final = 3  # series that a note names
_KEYS: Final = 4  # cells that the key and the time of a row count as, by their tokens
_MISSED: Final = 3  # intervals without a value, after which a series counts as ended

_CATEGORY = {
    "cpu": "Cpu",
    "loadavg": "Cpu",
    "iowait": "Cpu",
    "memory": "Memory",
    "swap": "Memory",
    "disk": "Disk",
    "root": "Disk",
    "network": "Network",
    "pressure": "Pressure",
}
_SUMMARY = ("metric", "average", "p95", "maximum", "maximum_time", "latest", "trend")


@tool(
    "ListVmRrdData",
    view="metrics",
    charts=True,
    title="Guest metrics",
    area=Area.VMS,
    effect=Effect.READ,
    answer=VmSummary,
    needs=(needs.GUESTS,),
)
async def list_vm_rrd_data(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    vmids: SomeVms,
    time_frame: Frame = "Day",
    metrics: Metrics = None,
    step: Step = None,
    consolidation: Consolidate = "Average",
) -> Rows:
    """Summarize recorded metrics of VMs and containers; rows over time only with `step`."""
    cluster = await cluster_with(call, cluster_name, vmids=vmids)
    guests = {vmid: await cluster.guest(vmid) for vmid in dict.fromkeys(vmids)}

    async def ask(vmid: int, function: Consolidation) -> list[GuestRrd]:
        return await cluster.api_of(guests[vmid]).rrd(FRAMES[time_frame], function)

    chart = _Titles(
        f"guests of {cluster.name} over the last {time_frame.lower()}",
        {vmid: f"{vmid} {guest.name}" for vmid, guest in guests.items()},
    )
    read = _Read(call, cluster, "guest", guests, ask, GUEST_METRICS, metrics, chart)
    if step is None:
        rows = [VmSummary(vmid=vmid, **cells) for vmid, cells in await read.summaries()]
        return Rows(rows, ("vmid", *_SUMMARY))
    keys = ("vmid", "name", "time")
    columns = read.columns(VmPoint, keys)
    points = await read.points(step, consolidation, columns)
    return read.rows([_vm_point(guests[vmid], point) for vmid, point in points], keys, columns)


@tool(
    "ListNodeRrdData",
    view="metrics",
    charts=True,
    title="Node metrics",
    area=Area.NODES,
    effect=Effect.READ,
    answer=NodeSummary,
    needs=(needs.NODES,),
)
async def list_node_rrd_data(
    call: Call,
    *,
    cluster_name: OneCluster = None,
    nodes: SomeNodes = None,
    time_frame: Frame = "Day",
    metrics: Metrics = None,
    step: Step = None,
    consolidation: Consolidate = "Average",
) -> Rows:
    """Summarize recorded metrics of nodes, offline ones too; rows over time only with `step`."""
    cluster = await cluster_with(call, cluster_name, nodes=nodes or ())
    picked = [(await cluster.node(name)).node for name in nodes or ()]
    names = list(dict.fromkeys(picked)) or sorted((await cluster.inventory_view()).by_node)

    async def ask(node: str, function: Consolidation) -> list[NodeRrd]:
        return await cluster.pve.node(node).rrd(FRAMES[time_frame], function)

    title = f"nodes of {cluster.name} over the last {time_frame.lower()}"
    chart = _Titles(title, {name: name for name in names})
    read = _Read(call, cluster, "node", names, ask, NODE_METRICS, metrics, chart)
    if step is None:
        rows = [NodeSummary(node=node, **cells) for node, cells in await read.summaries()]
        return Rows(rows, ("node", *_SUMMARY))
    keys = ("node", "time")
    columns = read.columns(NodePoint, keys)
    points = await read.points(step, consolidation, columns)
    return read.rows([_node_point(*point) for point in points], keys, columns)


@tool(
    "ListStorageRrdData",
    view="metrics",
    charts=True,
    title="Storage growth",
    area=Area.STORAGE,
    effect=Effect.READ,
    answer=StorageMetric,
    needs=(needs.STORAGES,),
)
async def list_storage_rrd_data(
    call: Call,
    *,
    cluster_name: ClusterName = None,
    storage: AnyStorage = None,
    node: AnyNode = None,
    time_frame: Frame = "Month",
    on: ForecastDate = None,
) -> Rows:
    """List growth of storages, when they are full, or their use on a date."""
    if cluster_name is None and storage is None and node is None:
        await call.note_datastores()
    date = time_argument("on", on)
    if date and date <= datetime.now(UTC):
        raise BadArgument("on", "it is over: a forecast needs a date to come.")
    rows = await listed(
        call,
        storage_metrics,
        cluster_name,
        StorageMetric.on_date if date else StorageMetric.minimal,
        request=LoadRequest(
            storages=frozenset(filter(None, [storage])),
            nodes=frozenset(filter(None, [node])),
            frames=frozenset({FRAMES[time_frame]}),
            until=date,
        ),
        order=_soonest_full,
        clusters=await clusters_with(call, cluster_name, node, storage),
    )
    if call.draws:
        _draw(call, _forecasts(rows.rows, time_frame))
    return rows


def _soonest_full(row: StorageMetric) -> tuple[float, str, str]:
    full = row.full_on.timestamp() if row.full_on else inf
    return full, row.storage, row.node


def _forecasts(rows: Sequence[Row | Mapping[str, Any]], frame: str) -> Chart:
    """Return the straight lines from the present use of storages to their forecasts."""
    now = datetime.now(UTC)
    lines = []
    for row in rows:
        cells = row if isinstance(row, Mapping) else asdict(row)
        used, ends = cells["disk_usage_percentage"], cells.get("full_on")
        end, reached = (ends, 100.0) if ends else (None, None)
        if cells.get("forecast_percentage") is not None:
            end, reached = cells["forecast_for"], cells["forecast_percentage"]
        if used is not None and end and reached is not None:
            place = (cells.get("cluster"), cells["storage"], cells["node"])
            points = ((now.timestamp(), used), (end.timestamp(), reached))
            lines.append(Line(" ".join(filter(None, place)), points))
    title = f"storages by their growth over the last {frame.lower()}"
    return Chart(title, [Panel("space in use", Unit.PERCENT, lines)] if lines else [])


def _draw(call: Call, chart: Chart) -> None:
    """Let the answer have this chart; a note says so if there is nothing to draw."""
    if not chart.panels:
        call.notes.add("No chart: there is nothing to draw.")
        return
    call.chart = chart
    if len(chart.panels) > MOST_PANELS:
        names = ", ".join(panel.title for panel in chart.panels[MOST_PANELS:])
        call.notes.add(f"The chart has the first {MOST_PANELS} metrics, without {names}.")


@dataclass(frozen=True)
class _Titles(Generic[K]):
    """The title of a chart, and the names of its lines by their keys."""

    title: str
    names: Mapping[K, str]


@dataclass(frozen=True)
class _Read(Generic[K, P]):
    """The series of some guests or nodes: how they are asked for, and which metrics are chosen."""

    call: Call
    cluster: Cluster
    what: str
    keys: Collection[K]
    ask: Callable[[K, Consolidation], Awaitable[list[P]]]
    known: tuple[Metric[P], ...]
    names: Sequence[str] | None
    titles: _Titles[K]

    @property
    def metrics(self) -> list[Metric[P]]:
        """The chosen metrics; the main ones if none is named."""
        if self.names is None:
            return [metric for metric in self.known if metric.main]
        return [m for m in self.known if "All" in self.names or m.category in self.names]

    async def summaries(self) -> list[tuple[K, dict[str, Any]]]:
        """Return the cells of a summary per key and metric that was recorded."""

        async def both(key: K) -> tuple[list[P], list[P]]:
            average, maximum = await gather(self.ask(key, "AVERAGE"), self.ask(key, "MAX"))
            return average, maximum

        recorded = await self._recorded(both)
        chosen = self.metrics

        def summarized() -> list[tuple[K, str, Summary]]:
            return [
                (key, metric.name, summary)
                for key, (average, maximum) in recorded.items()
                for metric in chosen
                if (summary := summarize_metric(metric, average, maximum))
            ]

        size = sum(len(average) for average, _ in recorded.values()) * len(chosen)
        found = await offload(size, summarized)
        ends: dict[K, int] = {}
        for key, _, summary in found:
            ends[key] = max(summary.latest_time, ends.get(key, 0))
        averages = {key: average for key, (average, _) in recorded.items()}
        self._note_ends(averages, ends)
        self._draw(averages)
        return [(key, _cells(name, summary)) for key, name, summary in found]

    async def points(
        self, step: str, consolidation: str, columns: Sequence[str]
    ) -> list[tuple[K, P]]:
        """Return the points of all series, as far apart as the step says or the answer bears."""
        recorded = await self._recorded(lambda key: self.ask(key, _FUNCTIONS[consolidation]))
        least = int(step[:-1]) * _SECONDS[step[-1]]
        shortest = max((interval(series) for series in recorded.values()), default=0)
        picked = {folded(name) for name in self.call.fields}
        values = [name for name in columns if not picked or folded(name) in picked]
        seconds = step_for(recorded.values(), len(values) + _KEYS, max(least, shortest))
        reason = ""
        if seconds > least:
            reason = (
                ", recorded no finer"
                if seconds == shortest
                else f", to bound the answer: a shorter time_frame, fewer {self.what}s, metrics or "
                "fields make it finer"
            )
        maximum = consolidation == "Maximum"
        ends = {
            key: points[-1].time
            for key, series in recorded.items()
            if (points := [p for p in series if any(m.read(p) is not None for m in self.metrics)])
        }
        self._note_ends(recorded, ends)
        self._draw(recorded)
        if ends:
            self.call.notes.add(f"Each row is of the {words(seconds)} until its time{reason}.")
        return [
            (key, point)
            for key, series in recorded.items()
            for point in downsampled(series, seconds, maximum=maximum)
        ]

    async def _recorded(self, ask: Callable[[K], Awaitable[T]]) -> dict[K, T]:
        request = with_budget(self.call)
        return await rows_or_error(
            self.cluster, lambda quiet: fanout.each(quiet, self.keys, ask, request, self.what)
        )

    def _draw(self, recorded: Mapping[K, Sequence[P]]) -> None:
        """Let the answer have a chart of the chosen metrics, if the caller wants one."""
        if not self.call.draws:
            return
        panels = []
        for metric in self.metrics:
            lines = [
                Line(self.titles.names[key], tuple(points))
                for key, series in recorded.items()
                if (points := metric.points(series))
            ]
            if lines:
                panels.append(Panel(metric.name.replace("_", " "), metric.unit, lines))
        _draw(self.call, Chart(self.titles.title, panels))

    def _note_ends(self, recorded: Mapping[K, Sequence[P]], ends: Mapping[K, int]) -> None:
        """Note series that are empty, and those that end before the time frame does."""
        notes = self.call.notes
        if recorded and not ends:
            only_pressure = {metric.category for metric in self.metrics} == {"Pressure"}
            reason = "; pressure (PSI) comes with Proxmox VE 9.0" if only_pressure else ""
            notes.add(f"None of this was recorded in this time_frame{reason}.")
            return
        if empty := [str(key) for key in recorded if key not in ends]:
            notes.add(f"Nothing was recorded in this time_frame: {_some(empty)}.")
        early = [
            f"{key} {moment(end):%Y-%m-%dT%H:%MZ}"
            for key, end in ends.items()
            if recorded[key][-1].time - end > _MISSED * interval(recorded[key])
        ]
        if early:
            notes.add(f"Recorded until then only: {_some(early)}.")

    def columns(self, row: type[Row], keys: Sequence[str]) -> list[str]:
        """Return the columns of rows over time that hold the chosen metrics."""
        categories = {metric.category for metric in self.metrics}
        values = (name for name in row.__struct_fields__ if name not in keys)
        return [name for name in values if _CATEGORY[name.partition("_")[0]] in categories]

    def rows(self, points: Sequence[Row], keys: tuple[str, ...], columns: Sequence[str]) -> Rows:
        """Return the points with a value in the chosen columns."""
        kept = [p for p in points if any(getattr(p, name) is not None for name in columns)]
        return Rows(kept, (*keys, *columns))


def _cells(metric: str, summary: Summary) -> dict[str, Any]:
    cells = summary._asdict() | {"maximum_time": moment(summary.maximum_time), "metric": metric}
    del cells["latest_time"]
    return cells


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _vm_point(guest: GuestResource, point: GuestRrd) -> VmPoint:
    return VmPoint(
        vmid=guest.vmid,
        name=guest.name,
        time=moment(point.time),
        cpu_usage=percent(point.cpu),
        cpu_total=point.cpu_count,
        memory_usage=whole(point.memory),
        memory_total=whole(point.memory_max),
        disk_usage=whole(point.disk) if guest.type == "lxc" else None,
        disk_total=whole(point.disk_max),
        disk_read_rate=whole(point.disk_read),
        disk_write_rate=whole(point.disk_write),
        network_in_rate=whole(point.network_in),
        network_out_rate=whole(point.network_out),
        **_pressure(point),
        pressure_cpu_full=_hundredth(point.pressure_cpu_full),
    )


def _node_point(node: str, point: NodeRrd) -> NodePoint:
    return NodePoint(
        node=node,
        time=moment(point.time),
        cpu_usage=percent(point.cpu),
        cpu_total=whole(point.cpu_count),
        loadavg=_hundredth(point.load_average),
        iowait=percent(point.io_wait),
        memory_usage=whole(point.memory),
        memory_total=whole(point.memory_max),
        swap_usage=whole(point.swap),
        swap_total=whole(point.swap_max),
        root_usage=whole(point.root),
        root_total=whole(point.root_max),
        network_in_rate=whole(point.network_in),
        network_out_rate=whole(point.network_out),
        **_pressure(point),
    )


def _pressure(point: GuestRrd | NodeRrd) -> dict[str, Any]:
    return {
        "pressure_cpu_some": _hundredth(point.pressure_cpu_some),
        "pressure_io_some": _hundredth(point.pressure_io_some),
        "pressure_io_full": _hundredth(point.pressure_io_full),
        "pressure_memory_some": _hundredth(point.pressure_memory_some),
        "pressure_memory_full": _hundredth(point.pressure_memory_full),
    }


def _hundredth(number: float | None) -> float | None:
    """Round to two decimals: pressure is often far below one percent."""
    return None if number is None else round(number, 2)
