"""Summaries and forecasts of recorded series."""

import math
from statistics import fmean

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pvemcp_server.tables.rows import Unit
from pvemcp_server.tables.series import DAY, Point, forecast, regression, rounded, summarize

START = 1_796_000_000
GIB = 2**30

values = st.floats(-1e12, 1e12, allow_nan=False)


@st.composite
def series(draw, least=1):
    step = draw(st.sampled_from([60, 1800, 21600]))
    found = draw(st.lists(st.none() | values, min_size=least, max_size=60))
    return [Point(START + n * step, v) for n, v in enumerate(found) if v is not None]


@given(points=series())
def test_a_summary_agrees_with_its_definitions(points):
    summary = summarize(points)
    if not points:
        assert summary is None
        return
    recorded = [point.value for point in points]
    at_or_below = sum(value <= summary.p95 for value in recorded)
    below = sum(value < summary.p95 for value in recorded)
    assert summary.average == pytest.approx(fmean(recorded))
    assert below < 0.95 * len(recorded) <= at_or_below
    assert summary.p95 in recorded
    assert summary.maximum == max(recorded)
    assert Point(summary.maximum_time, summary.maximum) == next(
        point for point in points if point.value == summary.maximum
    )
    assert (summary.latest_time, summary.latest) == points[-1]


@given(points=series(), peaks=series())
def test_the_maximum_comes_from_the_peaks(points, peaks):
    assume(points and peaks)
    summary = summarize(points, peaks)
    assert summary.maximum == max(point.value for point in peaks)
    assert summary._replace(maximum=0, maximum_time=0) == summarize(points)._replace(
        maximum=0, maximum_time=0
    )


@given(start=st.integers(-1000, 1000), slope=st.integers(-50, 50), count=st.integers(2, 60))
def test_the_trend_of_a_line_is_its_rise(start, slope, count):
    points = [Point(START + 60 * n, start + slope * n) for n in range(count)]
    assert summarize(points).trend == pytest.approx(slope * (count - 1), abs=1e-6)
    assert regression(points).error == pytest.approx(0, abs=1e-6)


@given(points=series(least=3), shift=st.floats(-1e9, 1e9))
def test_a_trend_depends_on_neither_level_nor_order_of_size(points, shift):
    assume(len(points) > 1)
    moved = [Point(time, value + shift) for time, value in points]
    size = max(abs(point.value) for point in points) + abs(shift) + 1
    assert summarize(moved).trend == pytest.approx(summarize(points).trend, abs=size * 1e-9)


@given(
    used=st.integers(1, 900),
    per_day=st.integers(1, 30),
    days=st.integers(8, 30),
    size=st.just(1000),
)
def test_steady_growth_is_full_on_the_day_that_it_adds_up_to(used, per_day, days, size):
    points = [Point(START + n * 21600, (used + per_day * n / 4) * GIB) for n in range(days * 4)]
    found = forecast(points, size * GIB)
    assert found.growth == pytest.approx(per_day * GIB)
    assert found.uncertainty == pytest.approx(0, abs=GIB / 1000)
    now, latest = points[-1]
    expected = now + max(0, size * GIB - latest) / (per_day * GIB) * DAY
    for time in (found.full, found.earliest, found.latest):
        assert time == pytest.approx(expected, abs=1000)


@given(noise=st.lists(st.floats(-1, 1), min_size=30, max_size=30), per_day=st.floats(-5, 5))
def test_the_uncertainty_orders_the_dates(noise, per_day):
    points = [
        Point(START + n * DAY, (500 + per_day * n + 20 * rest) * GIB)
        for n, rest in enumerate(noise)
    ]
    found = forecast(points, 1000 * GIB)
    earliest, full, latest = (
        math.inf if time is None else time for time in (found.earliest, found.full, found.latest)
    )
    assert points[-1].time <= earliest <= full <= latest


def test_a_forecast_needs_a_quarter_of_its_time_frame():
    assert forecast([], 1) is None
    assert forecast([Point(START + 60 * n, n) for n in range(7)], 100) is None


def test_storages_that_shrink_or_are_full_have_no_or_the_present_date():
    shrinking = [Point(START + n * DAY, 100 - n) for n in range(30)]
    assert forecast(shrinking, 200)[2:] == (None, None, None)
    full = [Point(START + n * DAY, 100) for n in range(30)]
    assert forecast(full, 100)[2:] == (full[-1].time,) * 3


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (12.3456, Unit.PERCENT, 12.3),
        (0.126, Unit.PERCENT, 0.13),
        (1234.6, Unit.BYTES_PER_SECOND, 1235),
    ],
)
def test_values_are_rounded_as_their_unit_needs(value, unit, expected):
    assert rounded(value, unit) == expected
