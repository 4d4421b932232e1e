"""Downsampling of recorded series: neighbouring points are joined to one row per step."""

from collections.abc import Collection, Sequence
from itertools import groupby
from statistics import fmean
from typing import Any, Final, TypeVar

from msgspec.structs import asdict

from proxmox_client.api.rrd import GuestRrd, NodeRrd, StorageRrd

P = TypeVar("P", GuestRrd, NodeRrd, StorageRrd)

MOST_CELLS: Final = 900  # of one answer, over all its series: about 4,000 tokens
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_STEPS: Final = (
    *(n * _MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * _HOUR for n in (1, 2, 3, 6, 12)),
    *(n * _DAY for n in (1, 2, 7, 30, 365)),
)


def step_for(series: Collection[Sequence[P]], columns: int, least: int) -> int:
    """Return the seconds of a row: at least `least`, and enough to keep within MOST_CELLS."""
    for step in (least, *filter(least.__lt__, _STEPS)):
        rows = sum(-(-len(points) * interval(points) // step) for points in series)
        if rows * columns <= MOST_CELLS:
            break
    return step


def downsampled(series: Sequence[P], step: int, *, maximum: bool) -> list[P]:
    """Return the series with the points of each `step` seconds joined: average or maximum."""
    if step <= interval(series) or len(series) < 2:
        return list(series)
    groups = groupby(series, key=lambda point: (point.time - 1) // step)
    return [_joined(list(points), maximum=maximum) for _, points in groups]


def interval(series: Sequence[P]) -> int:
    """Return the seconds between points; 0 for fewer than two."""
    return max(1, series[1].time - series[0].time) if len(series) > 1 else 0


def words(step: int) -> str:
    """Return a step as an argument has it: `2h`."""
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if step % size == 0:
            return f"{step // size}{unit}"
    return f"{step} s"


def _joined(points: list[P], *, maximum: bool) -> P:
    """Return one point at the time of the last; a value is None when none was recorded."""
    rows = [asdict(point) for point in points]
    joined: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows if row[name] is not None]
        joined[name] = (max(values) if maximum else fmean(values)) if values else None
    return type(points[0])(**(joined | {"time": points[-1].time}))
