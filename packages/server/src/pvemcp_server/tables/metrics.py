"""Metrics of guests and nodes over a time frame, one row each, for ranking and filtering."""

from asyncio import gather
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, TypeVar

from proxmox_client import Forbidden, MethodMissing
from proxmox_client.api.cluster import MetricSample
from proxmox_client.api.resources import GuestResource
from proxmox_client.api.rrd import Consolidation, GuestRrd, NodeRrd, TimeFrame
from pvemcp_server.clusters import Cluster, offload
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import of_guest, of_node
from pvemcp_server.tables.registry import COMMON_PUSHDOWN, Cost, LoadRequest, table
from pvemcp_server.tables.rows import Col, Gap, Row, Unit, moment
from pvemcp_server.tables.series import (
    GUEST_METRICS,
    NODE_METRICS,
    Metric,
    Summary,
    summarize_metric,
)

F = TypeVar("F", bound=str)
K = TypeVar("K", int, str)
P = TypeVar("P", GuestRrd, NodeRrd)

Frame = Literal["now"] | TimeFrame
NOW: Final = "now"
FRAMES: Final[tuple[TimeFrame, ...]] = ("hour", "day", "week", "month", "year")
FRAME_WORDS: Final[Mapping[str, str]] = {
    "hour": "1h 60m",
    "day": "24h 1d",
    "week": "7d 1w",
    "month": "30d 31d 4w",
    "year": "365d 1y 12mo 52w",
}
"""Spans that people write for time frames."""
_EVERY_FRAME: Final[tuple[Frame, ...]] = (NOW, *FRAMES)
_DEFAULT: Final[Frame] = "hour"  # the fewest points: a day of each guest has 1,440 of them
_SECONDS: Final = 25  # of samples: three measurements, which are ten seconds apart
_CALLS_FOR_ALL: Final = 2  # that the samples take, however many guests or nodes there are
_MAXIMA: Final = ("cpu_maximum", "memory_maximum")
PUSHDOWN: Final = {**COMMON_PUSHDOWN, "time_frame": "frames"}
_LAST: Final = 2  # points from the end: the last one of an hour may not be complete
_FIELDS: Final = {
    "cpu_current": "cpu",
    "cpu_iowait": "io_wait",
    "mem_used": "memory",
    "mem_total": "memory_max",
    "disk_read": "disk_read",
    "disk_write": "disk_write",
    "net_in": "network_in",
    "net_out": "network_out",
}
"""Fields of a point by the names that the export has for them."""

Cells = dict[str, Any]

_PERCENT, _RATE = Unit.PERCENT, Unit.BYTES_PER_SECOND

_TimeFrame = Annotated[
    str,
    Col("Pick it with a condition; hour without one", values=(NOW, *FRAMES), meanings=FRAME_WORDS),
]
_LatestTime = Annotated[datetime | None, Col("Last recorded value", Unit.TIME)]
_P95 = Annotated[float | None, Col("95 % of the time at or below it", _PERCENT)]
_Trend = Annotated[float | None, Col("Change over the time frame", _PERCENT)]
_MemoryAverage = Annotated[
    float | None,
    Col("Memory in use", _PERCENT, ("memory_usage_percentage", "memory_usage", "memory")),
]
_NetworkIn = Annotated[int | None, Col("Received, on average", _RATE)]
_NetworkOut = Annotated[int | None, Col("Sent, on average", _RATE)]
_Network = Annotated[int | None, Col("Received and sent, on average", _RATE, ("network",))]
_NO_PRESSURE = Gap("Proxmox VE records it from 9.0 on, and only while it runs")
_PressureCpu = Annotated[float | None, Col("Some waited for CPU (PSI)", _PERCENT, gap=_NO_PRESSURE)]
_PressureIo = Annotated[
    float | None, Col("Some waited for disks (PSI)", _PERCENT, gap=_NO_PRESSURE)
]
_PressureMemory = Annotated[
    float | None, Col("Some waited for memory (PSI)", _PERCENT, gap=_NO_PRESSURE)
]


class GuestMetric(Row, kw_only=True):
    """The metrics of a guest over a time frame."""

    minimal: ClassVar[tuple[str, ...]] = (
        "vmid",
        "name",
        "time_frame",
        "cpu_average",
        "cpu_p95",
        "memory_average",
        "memory_p95",
        "disk_rate",
        "network_rate",
    )

    vmid: Annotated[int, Col("Guest", aliases=("guest_id", "id"))]
    name: Annotated[str, Col("Display name")]
    node: Annotated[str, Col("Node it is on")]
    type: Annotated[Literal["qemu", "lxc"], Col("Kind of guest")]
    time_frame: _TimeFrame
    latest_time: _LatestTime = None
    cpu_average: Annotated[
        float | None, Col("Use of its own cores", _PERCENT, ("cpu_usage", "cpu"))
    ] = None
    cpu_p95: _P95 = None
    cpu_maximum: Annotated[
        float | None, Col("Highest use; takes a second call per guest", _PERCENT)
    ] = None
    cpu_trend: _Trend = None
    memory_average: _MemoryAverage = None
    memory_p95: _P95 = None
    memory_maximum: Annotated[
        float | None, Col("Most memory in use; takes a second call per guest", _PERCENT)
    ] = None
    memory_trend: _Trend = None
    disk_read_rate: Annotated[int | None, Col("Read, on average", _RATE)] = None
    disk_write_rate: Annotated[int | None, Col("Written, on average", _RATE)] = None
    disk_rate: Annotated[int | None, Col("Read and written, on average", _RATE, ("io",))] = None
    disk_p95_rate: Annotated[
        int | None, Col("Read and written: 95 % of the time at or below it", _RATE)
    ] = None
    network_in_rate: _NetworkIn = None
    network_out_rate: _NetworkOut = None
    network_rate: _Network = None
    network_p95_rate: Annotated[
        int | None, Col("Received and sent: 95 % of the time at or below it", _RATE)
    ] = None
    pressure_cpu: _PressureCpu = None
    pressure_io: _PressureIo = None
    pressure_memory: _PressureMemory = None


class NodeMetric(Row, kw_only=True):
    """The metrics of a node over a time frame."""

    minimal: ClassVar[tuple[str, ...]] = (
        "node",
        "time_frame",
        "cpu_average",
        "cpu_p95",
        "cpu_trend",
        "memory_average",
        "memory_p95",
        "memory_trend",
    )

    node: Annotated[str, Col("Name", aliases=("name",))]
    time_frame: _TimeFrame
    latest_time: _LatestTime = None
    cpu_average: Annotated[
        float | None, Col("Use of all its processors", _PERCENT, ("cpu_usage", "cpu"))
    ] = None
    cpu_p95: _P95 = None
    cpu_maximum: Annotated[
        float | None, Col("Highest use; takes a second call per node", _PERCENT)
    ] = None
    cpu_trend: _Trend = None
    iowait: Annotated[float | None, Col("Time spent waiting for disks", _PERCENT)] = None
    memory_average: _MemoryAverage = None
    memory_p95: _P95 = None
    memory_maximum: Annotated[
        float | None, Col("Most memory in use; takes a second call per node", _PERCENT)
    ] = None
    memory_trend: _Trend = None
    network_in_rate: _NetworkIn = None
    network_out_rate: _NetworkOut = None
    network_rate: _Network = None
    pressure_cpu: _PressureCpu = None
    pressure_io: _PressureIo = None
    pressure_memory: _PressureMemory = None


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


def _named(metrics: Sequence[Metric[P]], name: str) -> Metric[P]:
    return next(metric for metric in metrics if metric.name == name)


def _columns(metrics: Sequence[Metric[P]], network: Metric[P]) -> dict[str, tuple[Metric[P], str]]:
    """Return the columns of guests and nodes alike: a metric and a part of its summary."""
    columns: dict[str, tuple[Metric[P], str]] = {}
    for name, of in (("cpu", "cpu_usage"), ("memory", "memory_usage_percentage")):
        for part in ("average", "p95", "maximum", "trend"):
            columns[f"{name}_{part}"] = _named(metrics, of), part
    for name in ("network_in_rate", "network_out_rate"):
        columns[name] = _named(metrics, name), "average"
    columns["network_rate"] = network, "average"
    for name in ("cpu", "io", "memory"):
        columns[f"pressure_{name}"] = _named(metrics, f"pressure_{name}_some"), "average"
    return columns


_GUEST_NETWORK: Final[Metric[GuestRrd]] = Metric(
    "network_rate", "Network", _RATE, lambda p: _sum(p.network_in, p.network_out)
)
_GUEST_DISK: Final[Metric[GuestRrd]] = Metric(
    "disk_rate", "Disk", _RATE, lambda p: _sum(p.disk_read, p.disk_write)
)
_NODE_NETWORK: Final[Metric[NodeRrd]] = Metric(
    "network_rate", "Network", _RATE, lambda p: _sum(p.network_in, p.network_out)
)
_GUEST_COLUMNS: Final = {
    **_columns(GUEST_METRICS, _GUEST_NETWORK),
    "disk_read_rate": (_named(GUEST_METRICS, "disk_read_rate"), "average"),
    "disk_write_rate": (_named(GUEST_METRICS, "disk_write_rate"), "average"),
    "disk_rate": (_GUEST_DISK, "average"),
    "disk_p95_rate": (_GUEST_DISK, "p95"),
    "network_p95_rate": (_GUEST_NETWORK, "p95"),
}
_NODE_COLUMNS: Final = {
    **_columns(NODE_METRICS, _NODE_NETWORK),
    "iowait": (_named(NODE_METRICS, "iowait"), "average"),
}


@table(
    "guest_metrics",
    tool="ListVmRrdData",
    cost=Cost.PER_GUEST,
    covered=of_guest,
    relations=(TO_GUEST, TO_NODE),
    pushdown=PUSHDOWN,
)
async def guest_metrics(cluster: Cluster, request: LoadRequest) -> list[GuestMetric]:
    """Metrics of guests over time_frame: averages, p95, maxima; "now" takes two calls for all."""
    guests = {
        guest.vmid: guest
        for guest in sorted((await cluster.inventory_view()).guests, key=lambda g: g.vmid)
        if request.wants_vmid(guest.vmid) and request.wants_node(guest.node)
    }

    async def ask(vmid: int, frame: TimeFrame, function: Consolidation) -> list[GuestRrd]:
        return await cluster.api_of(guests[vmid]).rrd(frame, function)

    ids = {f"{guest.type}/{vmid}": vmid for vmid, guest in guests.items()}
    read = _Read(cluster, request, "guest", ids, ask, GuestRrd, _GUEST_COLUMNS)
    cells = await read.cells()
    return [_guest_row(guests[vmid], frame, values) for frame, vmid, values in cells]


@table(
    "node_metrics",
    tool="ListNodeRrdData",
    cost=Cost.PER_NODE,
    covered=of_node,
    relations=(TO_NODE,),
    pushdown=PUSHDOWN,
)
async def node_metrics(cluster: Cluster, request: LoadRequest) -> list[NodeMetric]:
    """Metrics of nodes over time_frame, with what offline ones recorded before."""
    names = sorted(filter(request.wants_node, (await cluster.inventory_view()).by_node))

    async def ask(node: str, frame: TimeFrame, function: Consolidation) -> list[NodeRrd]:
        return await cluster.pve.node(node).rrd(frame, function)

    ids = {f"node/{name}": name for name in names}
    cells = await _Read(cluster, request, "node", ids, ask, NodeRrd, _NODE_COLUMNS).cells()
    return [NodeMetric(node=node, time_frame=frame, **values) for frame, node, values in cells]


def _guest_row(guest: GuestResource, frame: str, values: Mapping[str, Any]) -> GuestMetric:
    return GuestMetric(
        vmid=guest.vmid,
        name=guest.name,
        node=guest.node,
        type=guest.type,
        time_frame=frame,
        **values,
    )


def frames_of(cluster: Cluster, request: LoadRequest, known: Sequence[F], default: F) -> list[F]:
    """Return the requested time frames of the known ones; without any, note the default one."""
    if request.frames:
        return [frame for frame in known if frame in request.frames]
    cluster.notes.add(
        f"These metrics are of the time_frame {default}: a condition on it picks "
        f"{', '.join(frame for frame in known if frame != default)}.",
        advice=True,
    )
    return [default]


@dataclass(frozen=True)
class _Read(Generic[K, P]):
    """A read of guests or nodes: their ids in the export, their series, and their columns."""

    cluster: Cluster
    request: LoadRequest
    what: str
    ids: Mapping[str, K]
    ask: Callable[[K, TimeFrame, Consolidation], Awaitable[list[P]]]
    point: type[P]
    columns: Mapping[str, tuple[Metric[P], str]]

    async def cells(self) -> list[tuple[str, K, Cells]]:
        """Return time frame, key and values of each row, in the requested columns only."""
        frames = frames_of(self.cluster, self.request, _EVERY_FRAME, _DEFAULT)
        cells: list[tuple[str, K, Cells]] = []
        for frame in frames:
            found = await (self._now() if frame == NOW else self._over(frame, len(frames)))
            cells += [(frame, key, values) for key, values in found.items()]
        return cells

    async def _over(self, frame: TimeFrame, frames: int) -> dict[K, Cells]:
        with_maxima = self.request.wants_column(*_MAXIMA)

        async def read(key: K) -> Cells:
            average, maximum = await gather(
                self.ask(key, frame, "AVERAGE"),
                self.ask(key, frame, "MAX") if with_maxima else _nothing(),
            )
            size = len(average) * len(self.columns)
            return await offload(size, lambda: self._summarized(average, maximum))

        return await self._each(read, frames * (2 if with_maxima else 1))

    async def _now(self) -> dict[K, Cells]:
        """Return the measurements of the latest seconds, for all at once where that is possible."""
        if len(self.ids) < _CALLS_FOR_ALL:
            self.cluster.notes.add("now is the average of the last minute.", advice=True)
            return await self._each(self._last_minute, 1)
        try:
            samples = await _latest_samples(self.cluster)
        except (Forbidden, MethodMissing):
            self.cluster.notes.add(
                f"Of {self.cluster.name}, now is the average of the last minute, at a call per "
                f"{self.what}: a call for all needs Sys.Audit on / and Proxmox VE 8.2.",
                advice=True,
            )
            return await self._each(self._last_minute, 1)
        return {
            key: self._summarized(points_of(samples.get(id_, ()), self.point), ())
            for id_, key in self.ids.items()
        }

    async def _last_minute(self, key: K) -> Cells:
        return self._summarized((await self.ask(key, "hour", "AVERAGE"))[-_LAST:][:1], ())

    async def _each(self, read: Callable[[K], Awaitable[Cells]], calls: int) -> dict[K, Cells]:
        """Call `read`, which takes so many calls for all time frames, for every key."""
        whole = self.request.budget
        budget = replace(whole, calls=whole.calls // calls, per_key=calls)
        request = replace(self.request, budget=budget)
        what = f"metrics of {self.what}"
        return await fanout.each(self.cluster, self.ids.values(), read, request, what)

    def _summarized(self, average: Sequence[P], maximum: Sequence[P]) -> Cells:
        cells: Cells = {}
        summaries: dict[str, Summary | None] = {}
        for name, (metric, part) in self.columns.items():
            if not self.request.wants_column(name, "latest_time"):
                continue
            if metric.name not in summaries:
                summaries[metric.name] = summarize_metric(metric, average, maximum)
            if summary := summaries[metric.name]:
                cells[name] = getattr(summary, part)
        times = [summary.latest_time for summary in summaries.values() if summary]
        return cells | {"latest_time": moment(max(times, default=None))}


async def _nothing() -> list[Any]:
    return []


async def _latest_samples(cluster: Cluster) -> dict[str, list[MetricSample]]:
    """Return the samples of the latest seconds by the id of what they are of.

    The first request asks one node what its clock says: the history of half an hour would be
    megabytes.
    """
    newest = [sample.timestamp for sample in await cluster.pve.cluster.metrics(local_only=True)]
    if not newest:
        return {}
    found: dict[str, list[MetricSample]] = {}
    for sample in await cluster.pve.cluster.metrics(since=max(newest) - _SECONDS):
        found.setdefault(sample.id, []).append(sample)
    return found


def points_of(samples: Sequence[MetricSample], point: type[P]) -> list[P]:
    """Return samples as one point of a series, their counters as rates; none without samples."""
    series: dict[str, list[MetricSample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.timestamp):
        series.setdefault(sample.metric, []).append(sample)
    values: dict[str, float | None] = {}
    for metric, name in _FIELDS.items():
        if metric in series and name in point.__struct_fields__:
            first, last = series[metric][0], series[metric][-1]
            values[name] = last.value if last.type == "gauge" else _rate(first, last)
    latest = max((sample.timestamp for sample in samples), default=0)
    return [point(time=latest, **values)] if latest else []


def _rate(first: MetricSample, last: MetricSample) -> float | None:
    """Return the growth of a counter per second; None after a restart, which resets it."""
    seconds, growth = last.timestamp - first.timestamp, last.value - first.value
    return growth / seconds if seconds and growth >= 0 else None
