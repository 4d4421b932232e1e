"""RRD data."""

from itertools import pairwise

import pytest

from proxmox_client.emulator import Emulator, Scenario
from proxmox_client.emulator.tasks.power import set_stopped

pytestmark = pytest.mark.anyio
FRAMES = {
    "9.2": {"hour": (60, 60), "day": (60, 1440), "week": (1800, 336), "year": (21600, 1440)},
    "8.4": {"hour": (60, 70), "day": (1800, 70), "week": (10800, 70), "year": (604800, 70)},
}


@pytest.fixture(params=["8.4", "9.2"])
async def client(request, open_client):
    """Open a client of a cluster of each version."""
    scenario = Scenario.cluster("lab", version=request.param)
    async with Emulator(scenario) as pve, open_client(pve["lab"], pve["lab"].token) as client:
        yield client


async def test_every_time_frame_has_its_steps(client):
    for frame, (step, count) in FRAMES[client.cluster.state.version].items():
        rows = await client.get("/nodes/pve1/rrddata", timeframe=frame)
        assert len(rows) == count
        assert {later["time"] - row["time"] for row, later in pairwise(rows)} == {step}


async def test_pressure_is_measured_from_9_on(client):
    has_pressure = client.cluster.state.release >= (9, 0)
    for path in ("/nodes/pve1", "/nodes/pve1/qemu/100"):
        last = (await client.get(f"{path}/rrddata", timeframe="hour"))[-1]
        assert ("pressurecpusome" in last) is has_pressure
        assert "cpu" in last


async def test_a_time_always_has_the_same_values(client):
    first = await client.get("/nodes/pve1/qemu/100/rrddata", timeframe="hour")
    second = await client.get("/nodes/pve1/qemu/100/rrddata", timeframe="hour")
    times = {row["time"] for row in first} & {row["time"] for row in second}
    assert len(times) >= 58
    assert [row for row in first if row["time"] in times] == [
        row for row in second if row["time"] in times
    ]


async def test_the_maximum_is_above_the_average(client):
    path = "/nodes/pve1/qemu/100/rrddata"
    average = await client.get(path, timeframe="hour", cf="AVERAGE")
    maximum = await client.get(path, timeframe="hour", cf="MAX")
    assert all(high["cpu"] >= low["cpu"] for high, low in zip(maximum, average, strict=False))


async def test_a_stopped_guest_has_its_history_until_it_stopped(client):
    guest = client.cluster.state.guests[103]
    assert not guest.running
    guest.stopped = client.cluster.state.now - 3 * 86400
    rows = await client.get("/nodes/pve1/qemu/103/rrddata", timeframe="week")
    used = [row["time"] for row in rows if "cpu" in row]
    assert used == [row["time"] for row in rows if row["time"] < guest.stopped]
    assert len(rows) > len(used) > len(rows) / 3


async def test_a_guest_that_stops_now_keeps_its_history(client):
    before = await client.get("/nodes/pve1/qemu/100/rrddata", timeframe="hour")
    set_stopped(client.cluster.state.guests[100], client.cluster.state)
    after = await client.get("/nodes/pve1/qemu/100/rrddata", timeframe="hour")
    assert [row["time"] for row in after[:-2] if "cpu" in row] == [
        row["time"] for row in before[-len(after) :][: len(after) - 2]
    ]


async def test_a_stopped_guest_has_its_size_only(client):
    rows = await client.get("/nodes/pve1/qemu/103/rrddata", timeframe="hour")
    assert client.cluster.state.guests[103].running is False
    assert rows[-1].keys() == {"time", "maxcpu", "maxmem", "maxdisk", "disk"}


async def test_rows_before_the_creation_have_the_time_only(client):
    guest = client.cluster.state.guests[100]
    guest.created = client.cluster.state.now - 600
    rows = await client.get("/nodes/pve1/qemu/100/rrddata", timeframe="hour")
    assert rows[0].keys() == {"time"}
    assert "cpu" in rows[-1]


async def test_the_usage_of_a_storage_grows_over_time(client):
    rows = await client.get("/nodes/pve1/storage/shared/rrddata", timeframe="year")
    assert rows[0]["used"] < rows[-1]["used"] <= rows[-1]["total"]


async def test_the_time_frame_decade_exists_from_9_on(client):
    response = await client.request("GET", "/nodes/pve1/rrddata", timeframe="decade")
    assert (response.status_code == 200) is (client.cluster.state.release >= (9, 0))
