"""Draws charts as PNG, with Pillow: the extra `charts`, which is imported by the first chart."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from itertools import pairwise
from math import floor, log10
from statistics import fmean
from typing import TYPE_CHECKING, Final, NamedTuple

from pvemcp_server.tables.rows import Unit
from pvemcp_server.toolkit.charts import MOST_LINES, MOST_PANELS, Chart, Line, Panel, value_text

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

MOST_BYTES: Final = 60_000
MIME_TYPE: Final = "image/png"
_WIDTH, _PLOT, _ROW = 800, 150, 16
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 16, 26, 22
_PAPER, _INK, _GRID = "#ffffff", "#1b2330", "#dfe3ea"
_COLOURS: Final = (
    *("#2f6fb2", "#c2410c", "#15703c", "#8a5300", "#7c3aed"),
    *("#b3261e", "#0e7490", "#a21caf", "#4d7c0f", "#596579"),
)
_NAME: Final = 34  # characters of a name in the legend
_COLUMNS: Final = 3  # of the legend
_PALETTE: Final = 32  # colours
# points of a line, and by how much it is drawn larger and then scaled down, which smooths it; fewer
# where a picture would be too large, which only noise in every panel makes it
_ATTEMPTS: Final = ((350, 2), (40, 1))
_LARGEST: Final = 1e18  # value that is drawn
_DAY: Final = 86_400


class Picture(NamedTuple):
    """A drawn chart, and the same in words."""

    png: bytes
    alternative: str


class _Frame(NamedTuple):
    """The plot of one panel: its corner in pixels, and the times and values at its edges."""

    top: int
    start: float
    end: float
    low: float
    high: float

    def x(self, time: float) -> float:
        width = _WIDTH - _LEFT - _RIGHT
        return _LEFT + width * (time - self.start) / max(1.0, self.end - self.start)

    def y(self, value: float) -> float:
        return self.top + _PLOT * (self.high - value) / (self.high - self.low)


def draw(chart: Chart) -> Picture:
    """Draw the chart as PNG, under MOST_BYTES. It takes some hundred milliseconds: use a thread."""
    for most_points, scale in _ATTEMPTS:
        png = _png(_thinned(chart, most_points), scale)
        if len(png) < MOST_BYTES:
            break
    return Picture(png, chart.alternative)


def _png(chart: Chart, scale: int) -> bytes:
    from PIL import Image, ImageDraw, ImageFont

    heights = [_TOP + _PLOT + _BOTTOM + _ROW * _legend_rows(panel) for panel in chart.panels]
    width, height = _WIDTH, _TOP + sum(heights)
    large = Image.new("RGB", (width * scale, height * scale), _PAPER)
    lines, frames, top = ImageDraw.Draw(large), [], _TOP
    for panel, own_height in zip(chart.panels, heights, strict=True):
        frames.append(_frame(panel, top + _TOP))
        _draw_lines(lines, panel, frames[-1], scale)
        top += own_height
    image = large.reduce(scale) if scale > 1 else large
    texts = ImageDraw.Draw(image)
    texts.font = ImageFont.load_default(12)
    texts.text((_LEFT, 6), chart.title, fill=_INK)
    for panel, frame in zip(chart.panels, frames, strict=True):
        _draw_texts(texts, panel, frame)
    stream = BytesIO()
    image.quantize(_PALETTE, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _thinned(chart: Chart, most_points: int) -> Chart:
    """Return the panels and lines that are drawn, each line with averages of its points."""
    panels = [
        Panel(
            panel.title,
            panel.unit,
            [
                Line(line.label, _averages(line.points, most_points))
                for line in panel.lines[:MOST_LINES]
            ],
        )
        for panel in chart.panels[:MOST_PANELS]
    ]
    return Chart(chart.title, panels)


def _averages(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    size = -(-len(points) // most)
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [
        (group[-1][0], fmean(max(-_LARGEST, min(_LARGEST, value)) for _, value in group))
        for group in groups
    ]


def _legend_rows(panel: Panel) -> int:
    return -(-len(panel.lines) // _COLUMNS)


def _frame(panel: Panel, top: int) -> _Frame:
    points = [point for line in panel.lines for point in line.points]
    times, values = [time for time, _ in points], [value for _, value in points]
    high = max(max(values) * 1.05, 1e-9)
    if panel.unit is Unit.PERCENT and 50 < high <= 105:
        high = 100.0
    return _Frame(top, min(times), max(times), min(0.0, *values), high)


def _draw_lines(draw: "ImageDraw", panel: Panel, frame: _Frame, scale: int) -> None:
    for value in _values(frame):
        y = frame.y(value) * scale
        draw.line((_LEFT * scale, y, (_WIDTH - _RIGHT) * scale, y), fill=_GRID, width=scale)
    for time in _times(frame):
        x = frame.x(time) * scale
        bottom = (frame.top + _PLOT) * scale
        draw.line((x, frame.top * scale, x, bottom), fill=_GRID, width=scale)
    for line, colour in zip(panel.lines, _COLOURS, strict=False):
        for part in _unbroken(line.points):
            path = [(frame.x(time) * scale, frame.y(value) * scale) for time, value in part]
            if len(path) == 1:
                draw.circle(path[0], 2 * scale, fill=colour)
            else:
                draw.line(path, fill=colour, width=2 * scale)


def _draw_texts(draw: "ImageDraw", panel: Panel, frame: _Frame) -> None:
    draw.text((_LEFT, frame.top - 18), panel.title, fill=_INK)
    for value in _values(frame):
        text = value_text(value, panel.unit)
        draw.text((_LEFT - 6, frame.y(value)), text, fill=_INK, anchor="rm")
    bottom = frame.top + _PLOT
    long = frame.end - frame.start > 2 * _DAY
    for time in _times(frame):
        moment = datetime.fromtimestamp(time, UTC)
        text = f"{moment:%Y-%m-%d}" if long else f"{moment:%H:%M}"
        draw.text((frame.x(time), bottom + 4), text, fill=_INK, anchor="ma")
    for number, (line, colour) in enumerate(zip(panel.lines, _COLOURS, strict=False)):
        row, column = divmod(number, _COLUMNS)
        x = _LEFT + column * (_WIDTH - _LEFT - _RIGHT) // _COLUMNS
        y = bottom + _BOTTOM + row * _ROW
        draw.rectangle((x, y + 3, x + 9, y + 11), fill=colour)
        draw.text((x + 14, y), line.name[:_NAME], fill=_INK)


def _values(frame: _Frame) -> Iterator[float]:
    """Yield about five round values between the edges."""
    rough = (frame.high - frame.low) / 4
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    number = 0
    while number * step <= frame.high * 1.0001:
        yield number * step
        number += 1


def _times(frame: _Frame) -> Iterator[float]:
    """Yield five times between the edges."""
    for number in range(5):
        yield frame.start + (frame.end - frame.start) * (number + 0.5) / 5


def _unbroken(points: Sequence[tuple[float, float]]) -> Iterator[Sequence[tuple[float, float]]]:
    """Yield the parts of a line between its gaps: more than three intervals without a value."""
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(points)]
    if not gaps:
        yield points
        return
    usual, begin = sorted(gaps)[len(gaps) // 2], 0
    for number, gap in enumerate(gaps, 1):
        if gap > 3 * usual:
            yield points[begin:number]
            begin = number
    yield points[begin:]
