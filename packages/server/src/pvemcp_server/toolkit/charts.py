"""Charts of recorded metrics: what is drawn, and the same in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from pvemcp_server.errors import Precondition
from pvemcp_server.tables.rows import Unit

MOST_PANELS: Final = 4
MOST_LINES: Final = 10  # of one panel; more would share their colours
_STEPS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, slots=True)
class Line:
    """A series of one guest, node or storage: `points` are Unix times in seconds and values."""

    name: str
    points: Sequence[tuple[float, float]]

    @property
    def label(self) -> str:
        """The name as one line."""
        return " ".join(self.name.split())


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: the lines of one metric in one unit."""

    title: str
    unit: Unit
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Chart:
    """The diagrams of one answer, over common times."""

    title: str
    panels: Sequence[Panel]

    @property
    def alternative(self) -> str:
        """Return what the picture shows, for readers who do not see it."""
        parts = [f"{panel.title}: {_in_words(panel)}." for panel in self.panels[:MOST_PANELS]]
        return " ".join([f"Chart: {self.title}.", *parts])


def require_charts() -> None:
    """Raise Precondition if the library that draws charts is not installed."""
    if find_spec("PIL") is None:
        raise Precondition(
            "This server cannot draw charts: Pillow is not installed.",
            hint="An administrator installs it with pip install 'pvemcp-server[charts]'; without "
            "`chart` the answer is the same.",
        )


def value_text(value: float, unit: Unit) -> str:
    """Format a value for an axis: 42 %, 1.5 MiB/s, 0.35."""
    if unit is Unit.PERCENT:
        return f"{value:.3g} %"
    if unit not in {Unit.BYTES, Unit.BYTES_PER_SECOND}:
        return f"{value:.3g}"
    suffix = "/s" if unit is Unit.BYTES_PER_SECOND else ""
    power = 0
    while abs(value) >= 1024 and power < len(_STEPS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.3g} {_STEPS[power]}{suffix}"


def _in_words(panel: Panel) -> str:
    lines = []
    for line in panel.lines[:MOST_LINES]:
        values = [value for _, value in line.points]
        low, high, last = (
            value_text(v, panel.unit) for v in (min(values), max(values), values[-1])
        )
        lines.append(f"{line.label} from {low} to {high}, last {last}")
    rest = len(panel.lines) - MOST_LINES
    return "; ".join([*lines, *([f"{rest} more are not drawn"] if rest > 0 else [])])
