"""Recorded series and what they say in a few numbers: summaries, trends and forecasts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from operator import attrgetter
from statistics import fmean
from typing import Any, Final, Generic, NamedTuple, TypeVar

from proxmox_client.api.rrd import GuestRrd, NodeRrd
from pvemcp_server.tables.rows import Unit

P = TypeVar("P", GuestRrd, NodeRrd)

DAY: Final = 86_400
_BINS: Final = 30  # of a forecast: the days of a month
_LEAST_BINS: Final = 8
_HORIZON: Final = 3650 * DAY  # a date further away says nothing


class Point(NamedTuple):
    """A recorded value."""

    time: int
    value: float


class Summary(NamedTuple):
    """What a series says; `trend` is the change along its line of regression."""

    average: float
    p95: float
    maximum: float
    maximum_time: int
    latest: float
    latest_time: int
    trend: float


def summarize(points: Sequence[Point], peaks: Sequence[Point] = ()) -> Summary | None:
    """Return the summary of a series in order of time; None without a value.

    `peaks` are the maxima of the intervals, from which the maximum is taken.
    """
    if not points:
        return None
    values = sorted(point.value for point in points)
    peak = max(peaks or points, key=lambda point: point.value)  # the first of equal ones
    return Summary(
        average=fmean(values),
        p95=values[ceil(0.95 * len(values)) - 1],
        maximum=peak.value,
        maximum_time=peak.time,
        latest=points[-1].value,
        latest_time=points[-1].time,
        trend=regression(points).slope * (points[-1].time - points[0].time),
    )


class Line(NamedTuple):
    """A line of regression: change per second, and the standard error of it."""

    slope: float
    error: float


def regression(points: Sequence[Point]) -> Line:
    """Return the line with the least squares; a single point has no slope."""
    times = [float(point.time - points[0].time) for point in points]
    middle, level = fmean(times), fmean(point.value for point in points)
    pairs = [(time - middle, p.value - level) for time, p in zip(times, points, strict=True)]
    spread = sum(x * x for x, _ in pairs)
    if not spread:
        return Line(0.0, 0.0)
    slope = sum(x * y for x, y in pairs) / spread
    if len(points) < 3:
        return Line(slope, 0.0)
    rest = sum((y - slope * x) ** 2 for x, y in pairs)
    return Line(slope, sqrt(rest / (len(points) - 2) / spread))


class Forecast(NamedTuple):
    """Growth in units per day, what it may differ by (95 %), and when a limit is reached.

    A time is None where the growth does not reach the limit within ten years.
    """

    growth: float
    uncertainty: float
    full: int | None
    earliest: int | None
    latest: int | None


def forecast(points: Sequence[Point], limit: float) -> Forecast | None:
    """Return the forecast of a series in order of time; None if too little is recorded.

    Neighbouring points depend on each other, so the uncertainty comes from averages of up to
    thirty equal parts of the time frame.
    """
    parts = _parts(points)
    if len(parts) < _LEAST_BINS:
        return None
    line = regression(parts)
    # Student's t for 95 %, within one percent of its tables from six degrees of freedom on
    margin = line.error * (1.96 + 2.9 / (len(parts) - 2))
    now, used = points[-1]

    def reached(slope: float) -> int | None:
        if used >= limit:
            return now
        seconds = (limit - used) / slope if slope > 0 else _HORIZON
        return round(now + seconds) if seconds < _HORIZON else None

    return Forecast(
        growth=line.slope * DAY,
        uncertainty=margin * DAY,
        full=reached(line.slope),
        earliest=reached(line.slope + margin),
        latest=reached(line.slope - margin),
    )


def _parts(points: Sequence[Point]) -> list[Point]:
    """Return the averages of up to `_BINS` equal parts of the time frame."""
    if not points:
        return []
    start, span = points[0].time, points[-1].time - points[0].time + 1
    parts: dict[int, list[Point]] = {}
    for point in points:
        parts.setdefault((point.time - start) * _BINS // span, []).append(point)
    return [
        Point(round(fmean(p.time for p in part)), fmean(p.value for p in part))
        for part in parts.values()
    ]


@dataclass(frozen=True, slots=True)
class Metric(Generic[P]):
    """A metric of guests or nodes: its name, unit, category, and how a point has it."""

    name: str
    category: str
    unit: Unit
    read: Callable[[P], float | None]
    main: bool = False  # part of an answer that names no metrics

    def points(self, series: Sequence[P]) -> list[Point]:
        """Return the recorded values of a series."""
        values = ((point.time, self.read(point)) for point in series)
        return [Point(time, value) for time, value in values if value is not None]


def summarize_metric(metric: Metric[P], series: Sequence[P], peaks: Sequence[P]) -> Summary | None:
    """Return the summary of one metric of a series, its values rounded as the metric is."""
    found = summarize(metric.points(series), metric.points(peaks))
    if found is None:
        return None
    return found._replace(
        average=rounded(found.average, metric.unit),
        p95=rounded(found.p95, metric.unit),
        maximum=rounded(found.maximum, metric.unit),
        latest=rounded(found.latest, metric.unit),
        trend=rounded(found.trend, metric.unit),
    )


def rounded(value: float, unit: Unit | None) -> float:
    """Round to what a reader needs: whole bytes, percentages to two digits after a zero."""
    if unit in (Unit.BYTES, Unit.BYTES_PER_SECOND):
        return round(value)
    return round(value, 1 if abs(value) >= 1 else 2)


def _percent(part: float | None, whole: float | None = 1) -> float | None:
    """Return a fraction, or part of a whole, as `rows.percent` does, but exact: it is averaged."""
    return part / whole * 100 if part is not None and whole else None


def _pressures(*kinds: str) -> tuple[Metric[Any], ...]:
    """Return the metrics of pressure stalls, which Proxmox has in percent."""
    names = [f"pressure_{kind}" for kind in kinds]
    return tuple(Metric(name, "Pressure", _SHARE, attrgetter(name)) for name in names)


_SHARE, _RATE = Unit.PERCENT, Unit.BYTES_PER_SECOND

GUEST_METRICS: Final[tuple[Metric[GuestRrd], ...]] = (
    Metric("cpu_usage", "Cpu", _SHARE, lambda p: _percent(p.cpu), main=True),
    Metric(
        "memory_usage_percentage",
        "Memory",
        _SHARE,
        lambda p: _percent(p.memory, p.memory_max),
        main=True,
    ),
    Metric(
        "disk_usage_percentage", "Disk", _SHARE, lambda p: _percent(p.disk or None, p.disk_max)
    ),  # VMs have 0
    Metric("disk_read_rate", "Disk", _RATE, lambda p: p.disk_read, main=True),
    Metric("disk_write_rate", "Disk", _RATE, lambda p: p.disk_write, main=True),
    Metric("network_in_rate", "Network", _RATE, lambda p: p.network_in, main=True),
    Metric("network_out_rate", "Network", _RATE, lambda p: p.network_out, main=True),
    *_pressures("cpu_some", "cpu_full", "io_some", "io_full", "memory_some", "memory_full"),
)
NODE_METRICS: Final[tuple[Metric[NodeRrd], ...]] = (
    Metric("cpu_usage", "Cpu", _SHARE, lambda p: _percent(p.cpu), main=True),
    Metric("loadavg", "Cpu", Unit.COUNT, lambda p: p.load_average),
    Metric("iowait", "Cpu", _SHARE, lambda p: _percent(p.io_wait)),
    Metric(
        "memory_usage_percentage",
        "Memory",
        _SHARE,
        lambda p: _percent(p.memory, p.memory_max),
        main=True,
    ),
    Metric("swap_usage_percentage", "Memory", _SHARE, lambda p: _percent(p.swap, p.swap_max)),
    Metric("root_usage_percentage", "Disk", _SHARE, lambda p: _percent(p.root, p.root_max)),
    Metric("network_in_rate", "Network", _RATE, lambda p: p.network_in),
    Metric("network_out_rate", "Network", _RATE, lambda p: p.network_out),
    *_pressures("cpu_some", "io_some", "io_full", "memory_some", "memory_full"),
)
