"""Series of measurements."""

from itertools import pairwise

import pytest

from proxmox_client.emulator import Emulator, Scenario

pytestmark = pytest.mark.anyio
FRAMES = {
    "9.2": {"hour": (60, 60), "day": (60, 1440), "week": (1800, 336), "year": (21600, 1440)},
    "8.4": {"hour": (60, 70), "day": (1800, 70), "week": (10800, 70), "year": (604800, 70)},
}


@pytest.fixture(params=["8.4", "9.2"])
async def either(request, asker):
    """Asks a cluster of each version."""
    scenario = Scenario.cluster("lab", version=request.param)
    async with Emulator(scenario) as pve, asker(pve["lab"], pve["lab"].token) as opened:
        yield opened


async def test_every_frame_has_its_steps(either):
    for frame, (step, count) in FRAMES[either.cluster.state.version].items():
        rows = await either.get("/nodes/pve1/rrddata", timeframe=frame)
        assert len(rows) == count
        assert {later["time"] - row["time"] for row, later in pairwise(rows)} == {step}


async def test_pressure_is_measured_since_9(either):
    has_pressure = either.cluster.state.release >= (9, 0)
    for path in ("/nodes/pve1", "/nodes/pve1/qemu/100"):
        last = (await either.get(f"{path}/rrddata", timeframe="hour"))[-1]
        assert ("pressurecpusome" in last) is has_pressure
        assert "cpu" in last


async def test_the_same_moment_is_always_measured_the_same(either):
    first = await either.get("/nodes/pve1/qemu/100/rrddata", timeframe="hour")
    again = await either.get("/nodes/pve1/qemu/100/rrddata", timeframe="hour")
    times = {row["time"] for row in first} & {row["time"] for row in again}
    assert len(times) >= 58
    assert [row for row in first if row["time"] in times] == [
        row for row in again if row["time"] in times
    ]


async def test_the_maximum_lies_above_the_average(either):
    ask = ("/nodes/pve1/qemu/100/rrddata",)
    average = await either.get(*ask, timeframe="hour", cf="AVERAGE")
    maximum = await either.get(*ask, timeframe="hour", cf="MAX")
    assert all(high["cpu"] >= low["cpu"] for high, low in zip(maximum, average, strict=False))


async def test_a_stopped_guest_is_measured_by_its_size_alone(either):
    rows = await either.get("/nodes/pve1/qemu/103/rrddata", timeframe="hour")
    assert either.cluster.state.guests[103].running is False
    assert rows[-1].keys() == {"time", "maxcpu", "maxmem", "maxdisk", "disk"}


async def test_before_a_guest_was_made_there_is_nothing_but_the_time(either):
    guest = either.cluster.state.guests[100]
    guest.created = either.cluster.state.now - 600
    rows = await either.get("/nodes/pve1/qemu/100/rrddata", timeframe="hour")
    assert rows[0].keys() == {"time"}
    assert "cpu" in rows[-1]


async def test_a_storage_filled_over_time(either):
    rows = await either.get("/nodes/pve1/storage/shared/rrddata", timeframe="year")
    assert rows[0]["used"] < rows[-1]["used"] <= rows[-1]["total"]


async def test_a_decade_exists_since_9(either):
    response = await either.ask("GET", "/nodes/pve1/rrddata", timeframe="decade")
    assert (response.status_code == 200) is (either.cluster.state.release >= (9, 0))
