"""Series with more points than anybody reads, made shorter by joining neighbours."""

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean
from typing import Any, TypeVar

from msgspec.structs import asdict

from proxmox_client.api.rrd import GuestRrd, NodeRrd

P = TypeVar("P", GuestRrd, NodeRrd)

MOST_ROWS = 300  # of one answer, over all its series
_LEAST_POINTS = 24  # of one series
# How many neighbours become one: intervals stay such as people use, from minutes to hours.
_STEPS = (1, 2, 3, 5, 6, 10, 12, 15, 20, 30, 60)


def step_for(points: int, series: int) -> int:
    """How many neighbours to join, so that all series together stay readable."""
    wanted = max(_LEAST_POINTS, MOST_ROWS // max(1, series))
    return next((step for step in _STEPS if points <= wanted * step), _STEPS[-1])


def thinned(series: Sequence[P], step: int, *, maximum: bool) -> list[P]:
    """The series with every `step` points joined: their average, or the highest of them."""
    if step == 1 or len(series) < 2:
        return list(series)
    width = step * interval(series)
    groups = groupby(series, key=lambda point: (point.time - 1) // width)
    return [_joined(list(points), maximum=maximum) for _, points in groups]


def interval(series: Sequence[P]) -> int:
    """Seconds between points."""
    return max(1, series[1].time - series[0].time) if len(series) > 1 else 0


def _joined(points: list[P], *, maximum: bool) -> P:
    """One point at the time of the last, from all that was recorded."""
    fields = [asdict(point) for point in points]
    joined: dict[str, Any] = {}
    for name in fields[0]:
        told = [one[name] for one in fields if one[name] is not None]
        joined[name] = (max(told) if maximum else fmean(told)) if told else None
    return type(points[0])(**(joined | {"time": points[-1].time}))
