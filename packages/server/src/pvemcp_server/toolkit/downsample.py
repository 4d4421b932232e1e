"""Downsampling of recorded series: neighbouring points are joined to keep answers readable."""

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean
from typing import Any, TypeVar

from msgspec.structs import asdict

from proxmox_client.api.rrd import GuestRrd, NodeRrd

P = TypeVar("P", GuestRrd, NodeRrd)

MOST_ROWS = 300  # of one answer, over all its series
_LEAST_POINTS = 24  # of one series
# How many neighbours are joined: the resulting intervals are round, from minutes to hours.
_STEPS = (1, 2, 3, 5, 6, 10, 12, 15, 20, 30, 60)


def step_for(points: int, series: int) -> int:
    """Return how many neighbours to join so that all series together stay within MOST_ROWS."""
    kept = max(_LEAST_POINTS, MOST_ROWS // max(1, series))
    return next((step for step in _STEPS if points <= kept * step), _STEPS[-1])


def downsampled(series: Sequence[P], step: int, *, maximum: bool) -> list[P]:
    """Return the series with every `step` points joined to their average or maximum."""
    if step == 1 or len(series) < 2:
        return list(series)
    width = step * interval(series)
    groups = groupby(series, key=lambda point: (point.time - 1) // width)
    return [_joined(list(points), maximum=maximum) for _, points in groups]


def interval(series: Sequence[P]) -> int:
    """Return the seconds between points; 0 for fewer than two."""
    return max(1, series[1].time - series[0].time) if len(series) > 1 else 0


def _joined(points: list[P], *, maximum: bool) -> P:
    """Return one point at the time of the last; a value is None when none was recorded."""
    rows = [asdict(point) for point in points]
    joined: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows if row[name] is not None]
        joined[name] = (max(values) if maximum else fmean(values)) if values else None
    return type(points[0])(**(joined | {"time": points[-1].time}))
