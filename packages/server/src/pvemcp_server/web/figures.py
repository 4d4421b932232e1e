"""Values of a query as people read them, and the bars of a grouped answer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pvemcp_server.admin.queries import QueryAnswer
from pvemcp_server.tables.rows import Unit

SHOWN_BARS: Final = 24
SHOWN_CHARTS: Final = 3
NO_VALUE: Final = "–"


@dataclass(frozen=True)
class Cell:
    """A value of an answer: for people, exactly with its unit, and whether it is a number."""

    text: str
    exact: str = ""  # where the text says less than the value
    is_number: bool = False
    moment: datetime | None = None


@dataclass(frozen=True)
class GroupBar:
    """A group with its figure, and that in percent of the largest one."""

    label: str
    cell: Cell
    share: float


@dataclass(frozen=True)
class GroupChart:
    """The figures of one column by group; `further` groups are not shown."""

    title: str
    bars: list[GroupBar]
    further: int


def rows_of(answer: QueryAnswer, limit: int) -> list[list[Cell]]:
    """Return the first rows of an answer as cells."""
    units = [answer.units.get(column) for column in answer.columns]
    return [list(map(cell_of, row, units)) for row in answer.rows[:limit]]


def charts_of(answer: QueryAnswer) -> list[GroupChart]:
    """Return a chart for each of the first figures of a grouped answer."""
    labels = [answer.columns.index(name) for name in answer.groups if name in answer.columns]
    if not labels or len(answer.rows) < 2:
        return []
    figures = [name for name in answer.figures if name in answer.columns]
    charts = (_chart(answer, labels, name) for name in figures[:SHOWN_CHARTS])
    return [chart for chart in charts if chart.bars]


def _chart(answer: QueryAnswer, labels: Sequence[int], figure: str) -> GroupChart:
    at = answer.columns.index(figure)
    known = [row for row in answer.rows if is_number(row[at]) and row[at] >= 0]
    most = max((row[at] for row in known), default=0) or 1
    bars = [
        GroupBar(
            " · ".join(_label(row[label]) for label in labels),
            cell_of(row[at], answer.units.get(figure)),
            100 * row[at] / most,
        )
        for row in known[:SHOWN_BARS]
    ]
    return GroupChart(figure, bars, len(known) - len(bars))


def _label(value: Any) -> str:
    return NO_VALUE if value in (None, "") else value if isinstance(value, str) else str(value)


def is_number(value: object) -> bool:
    """Return whether it is a number and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def cell_of(value: Any, unit: str | None) -> Cell:
    """Return the cell for a value in this unit."""
    if value is None:
        return Cell(NO_VALUE)
    if is_number(value):
        text = humanized(value, unit)
        exact = f"{value} {unit}" if unit and unit != Unit.COUNT else str(value)
        return Cell(text, exact if text != str(value) else "", is_number=True)
    if not isinstance(value, str):
        return Cell(json.dumps(value, ensure_ascii=False))
    if unit == Unit.TIME and len(value) > len("2026-11-30"):
        try:
            return Cell(value, moment=datetime.fromisoformat(value))
        except ValueError:
            pass
    return Cell(value)


def humanized(value: float, unit: str | None) -> str:
    """Format a number in its unit: 38.0 GiB, 42.1 %, 3 d 4 h, 1,234."""
    match unit:
        case Unit.BYTES:
            return bytes_text(value)
        case Unit.BYTES_PER_SECOND:
            return f"{bytes_text(value)}/s"
        case Unit.MIB:
            return bytes_text(value * 2**20)
        case Unit.PERCENT:
            return f"{value:g} %"
        case Unit.SECONDS:
            return _duration(value)
        case Unit.COUNT:
            return f"{value:,}"
    return str(value)


def bytes_text(count: float) -> str:
    """Format bytes in the largest binary unit: 38.0 GiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def _duration(seconds: float) -> str:
    """Format seconds in their two largest units."""
    if seconds < 60:
        return f"{seconds:g} s"
    parts, rest = [], int(seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        number, rest = divmod(rest, size)
        parts.append(f"{number} {unit}" if number else "")
    first = next(index for index, part in enumerate(parts) if part)
    return " ".join(filter(None, parts[first : first + 2]))
