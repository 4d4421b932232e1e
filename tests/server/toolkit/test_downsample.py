"""Downsampling of series."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_client.api.rrd import NodeRrd
from pvemcp_server.toolkit.downsample import MOST_ROWS, downsampled, step_for

DAY = [NodeRrd(time=60 * n, cpu=n / 1440, memory=None) for n in range(1, 1441)]


def test_a_short_series_is_unchanged():
    assert step_for(70, 1) == 1
    assert downsampled(DAY[:70], 1, maximum=False) == DAY[:70]


def test_a_day_of_minutes_becomes_five_minutes_with_their_average():
    step = step_for(len(DAY), 1)
    points = downsampled(DAY, step, maximum=False)
    assert (step, len(points)) == (5, 288)
    assert points[0].time == 300
    assert points[0].cpu == pytest.approx(3 / 1440)
    assert points[0].memory is None


def test_maximum_keeps_the_highest_joined_value():
    points = downsampled(DAY, 5, maximum=True)
    assert points[0].cpu == pytest.approx(5 / 1440)


@given(points=st.integers(0, 3000), series=st.integers(1, 100))
def test_all_series_together_stay_readable(points, series):
    step = step_for(points, series)
    rows = -(-points // step) * series
    assert rows <= max(MOST_ROWS, 24 * series) * 1.1 or step == 60


@given(step=st.sampled_from([2, 3, 5, 6, 10, 12, 15, 20, 30, 60]))
def test_no_point_is_lost_or_counted_twice(step):
    points = downsampled(DAY, step, maximum=False)
    whole = sum(one.cpu for one in DAY) / len(DAY)
    assert sum(one.cpu for one in points) / len(points) == pytest.approx(whole, rel=0.02)
    assert [one.time for one in points] == sorted({one.time for one in points})
    assert points[-1].time == DAY[-1].time
