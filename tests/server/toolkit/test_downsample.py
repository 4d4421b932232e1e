"""Downsampling of series."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_client.api.rrd import NodeRrd
from pvemcp_server.toolkit.downsample import MOST_CELLS, downsampled, step_for, words

DAY = [NodeRrd(time=60 * n, cpu=n / 1440, memory=None) for n in range(1, 1441)]


def test_a_step_of_the_interval_changes_nothing():
    assert step_for([DAY[:70]], 5, 60) == 60
    assert downsampled(DAY[:70], 60, maximum=False) == DAY[:70]


def test_a_day_of_minutes_becomes_five_minutes_with_their_average():
    points = downsampled(DAY, 300, maximum=False)
    assert len(points) == 288
    assert points[0].time == 300
    assert points[0].cpu == pytest.approx(3 / 1440)
    assert points[0].memory is None


def test_maximum_keeps_the_highest_joined_value():
    points = downsampled(DAY, 300, maximum=True)
    assert points[0].cpu == pytest.approx(5 / 1440)


@given(
    points=st.integers(0, 1440),
    series=st.integers(1, 100),
    columns=st.integers(3, 25),
    least=st.sampled_from([60, 900, 86_400]),
)
def test_all_series_together_stay_within_the_cells_of_an_answer(points, series, columns, least):
    step = step_for([DAY[:points]] * series, columns, least)
    rows = -(-points * 60 // step) * series
    assert step >= least
    assert rows * columns <= MOST_CELLS or rows == series


@given(step=st.sampled_from([120, 300, 900, 3600]))
def test_no_point_is_lost_or_counted_twice(step):
    points = downsampled(DAY, step, maximum=False)
    average = sum(point.cpu for point in DAY) / len(DAY)
    assert sum(point.cpu for point in points) / len(points) == pytest.approx(average, rel=0.02)
    assert [point.time for point in points] == sorted({point.time for point in points})
    assert points[-1].time == DAY[-1].time


@pytest.mark.parametrize(("step", "text"), [(60, "1m"), (5400, "90m"), (7200, "2h"), (86400, "1d")])
def test_a_step_is_written_as_it_is_picked(step, text):
    assert words(step) == text
