"""Metrics over time: summaries, rows by step, and what offline nodes have recorded."""

from statistics import fmean

import pytest

from proxmox_client import Qemu
from proxmox_client.api.rrd import GuestRrd
from proxmox_client.emulator import rrd
from pvemcp_server.tables import tables
from pvemcp_server.tables.rows import Unit, fields_of, moment
from pvemcp_server.toolkit.rrd_rows import NodePoint, VmPoint

from .tool_client import ToolClient

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}
FRAMES = {"Hour": "hour", "Day": "day", "Week": "week", "Month": "month", "Year": "year"}


def recorded(client: ToolClient, cluster: str, kind: str, name, frame: str) -> tuple[list, list]:
    """Return the emulator's own rows of a guest or node: averages and maxima."""
    state = client[cluster].emulated.state
    row_at = (
        rrd.guest_rows(state.guests[name], state)
        if kind == "guest"
        else rrd.node_rows(state.nodes[name], state)
    )
    frame = FRAMES[frame]
    return rrd.series(state, frame, "AVERAGE", row_at), rrd.series(state, frame, "MAX", row_at)


READS = {
    "cpu_usage": (lambda row: row["cpu"] * 100, 1),
    "memory_usage_percentage": (
        lambda row: (
            (row["mem"] / row["maxmem"] if "mem" in row else row["memused"] / row["memtotal"]) * 100
        ),
        1,
    ),
    "disk_read_rate": (lambda row: row["diskread"], 0),
    "disk_write_rate": (lambda row: row["diskwrite"], 0),
    "network_in_rate": (lambda row: row["netin"], 0),
    "network_out_rate": (lambda row: row["netout"], 0),
    "pressure_io_some": (lambda row: row["pressureiosome"], 1),
}


def check(row: dict, average: list, maximum: list) -> None:
    """Compare a summary with the recorded rows."""
    read, digits = READS[row["metric"]]
    values = [read(point) for point in average if "cpu" in point]
    peaks = [(read(point), point["time"]) for point in maximum if "cpu" in point]
    peak, time = max(peaks, key=lambda pair: (pair[0], -pair[1]))
    accuracy = 0.51 * 10**-digits
    assert row["average"] == pytest.approx(fmean(values), abs=accuracy)
    assert row["p95"] == pytest.approx(
        sorted(values)[-(-95 * len(values) // 100) - 1], abs=accuracy
    )
    assert row["maximum"] == pytest.approx(peak, abs=accuracy)
    assert row["latest"] == pytest.approx(values[-1], abs=accuracy)
    assert row["maximum_time"] == rrd_time(time)


def rrd_time(epoch: int) -> str:
    return f"{moment(epoch):%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(("cluster", "vmid"), [("prod", 101), ("home-lab", 100)])
async def test_a_guest_is_summarized_exactly(tool_client, cluster, vmid, frame):
    answer = await tool_client(
        "ListVmRrdData", cluster_name=cluster, vmids=[vmid], time_frame=frame
    )
    average, maximum = recorded(tool_client, cluster, "guest", vmid, frame)
    assert answer.column("metric") == [
        "cpu_usage", "memory_usage_percentage", "disk_read_rate", "disk_write_rate",
        "network_in_rate", "network_out_rate",
    ]  # fmt: skip
    for row in answer.data:
        check(row, average, maximum)


async def test_all_nodes_are_summarized_with_the_history_of_an_offline_one(tool_client):
    answer = await tool_client("ListNodeRrdData", **PROD, time_frame="Month")
    for row in answer.data:
        check(row, *recorded(tool_client, "prod", "node", row["node"], "Month"))
    state = tool_client["prod"].emulated.state
    assert set(answer.column("node")) == set(state.nodes)
    lost = state.nodes["pve05"].lost
    end = max(time for time in rrd.times(state, "month") if time <= lost)
    assert answer.notes == f"Recorded until then only: pve05 {rrd_time(end)[:-4]}Z."


async def test_summaries_are_short(tool_client):
    """250 and 600 tokens are about 610 and 1,200 characters of numbers."""
    day = await tool_client("ListVmRrdData", **PROD, vmids=[101], format="JsonCompact")
    month = await tool_client("ListNodeRrdData", **PROD, time_frame="Month", format="JsonCompact")
    assert len(day.text) < 610
    assert len(month.text + month.notes) < 1200


async def test_guests_of_an_offline_node_have_their_history(tool_client):
    state = tool_client["prod"].emulated.state
    vmid = next(g.vmid for g in state.guests.values() if g.node == "pve05" and g.running)
    answer = await tool_client("ListVmRrdData", **PROD, vmids=[vmid, 101])
    assert set(answer.column("vmid")) == {vmid, 101}
    assert f"Recorded until then only: {vmid} " in answer.notes


async def test_an_unreachable_node_does_not_block_its_history(demo_client):
    for _ in range(3):
        await demo_client.refused("GetNodeStatus", **PROD, node="pve05")
    answer = await demo_client("ListNodeRrdData", **PROD, nodes=["pve05"])
    assert set(answer.column("node")) == {"pve05"}


async def test_pressure_of_a_node_over_a_day(tool_client):
    answer = await tool_client("ListNodeRrdData", **PROD, nodes=["pve01"], metrics=["Pressure"])
    assert answer.column("metric") == [
        "pressure_cpu_some", "pressure_io_some", "pressure_io_full", "pressure_memory_some",
        "pressure_memory_full",
    ]  # fmt: skip
    assert all(row["maximum"] > row["p95"] > row["average"] > 0 for row in answer.data)


async def test_a_step_gives_rows_over_time(tool_client):
    answer = await tool_client(
        "ListNodeRrdData", **PROD, nodes=["pve01"], metrics=["Cpu", "Pressure"], step="1h"
    )
    assert set(answer.data[0]) == {
        "node", "time", "cpu_usage", "cpu_total", "loadavg", "iowait", "pressure_cpu_some",
        "pressure_io_some", "pressure_io_full", "pressure_memory_some", "pressure_memory_full",
    }  # fmt: skip
    assert len(answer.data) in (24, 25)
    assert answer.column("time") == sorted(answer.column("time"))
    assert answer.notes == ""


@pytest.mark.parametrize("consolidation", ["Average", "Maximum"])
async def test_rows_of_guests_are_flat(tool_client, consolidation):
    answer = await tool_client(
        "ListVmRrdData",
        **PROD,
        vmids=[101, 105],
        metrics=["Cpu", "Network"],
        time_frame="Hour",
        consolidation=consolidation,
        step="5m",
    )
    assert {row["name"] for row in answer.data} == {"db-primary", "web-frontend"}
    assert set(answer.data[0]) == {
        "vmid", "name", "time", "cpu_usage", "cpu_total", "network_in_rate", "network_out_rate",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cluster", "frame", "step", "note"),
    [
        ("prod", "Day", "1m", "Each row is of 15m: to bound the answer."),
        ("home-lab", "Day", "1m", "Each row is of 30m: recorded no finer."),
        ("prod", "Day", "30m", ""),
    ],
)
async def test_rows_that_are_longer_than_the_step_say_why(tool_client, cluster, frame, step, note):
    node = {"prod": "pve01", "home-lab": "pve"}[cluster]
    answer = await tool_client(
        "ListNodeRrdData", cluster_name=cluster, nodes=[node], metrics="Cpu", time_frame=frame,
        step=step,
    )  # fmt: skip
    assert answer.notes == note


async def test_a_step_of_another_form_is_refused(tool_client):
    error = await tool_client.refused("ListNodeRrdData", **PROD, step="5 minutes")
    assert "15m, 1h, 1d" in error


@pytest.mark.parametrize("step", [None, "1h"])
async def test_missing_pressure_metrics_of_8_4_are_noted(tool_client, step):
    answer = await tool_client(
        "ListNodeRrdData", cluster_name="home-lab", nodes=["pve"], metrics="Pressure", step=step
    )
    assert answer.data == []
    assert "pressure (PSI) comes with Proxmox VE 9.0" in answer.notes


@pytest.mark.parametrize("step", [None, "3h"])
@pytest.mark.parametrize(
    ("metrics", "reason"),
    [("Pressure", "; pressure (PSI) comes with Proxmox VE 9.0."), ("Cpu", ".")],
)
async def test_a_note_on_missing_metrics_fits_the_question(
    tool_client, monkeypatch, metrics, reason, step
):
    async def empty(*_arguments):
        return [GuestRrd(time=1_790_000_000 + 1_800 * n) for n in range(600)]

    monkeypatch.setattr(Qemu, "rrd", empty)
    call = {**PROD, "vmids": [101, 105], "metrics": metrics, "time_frame": "Week", "step": step}
    answer = await tool_client("ListVmRrdData", **call)
    assert answer.data == []
    assert answer.notes == f"None of this was recorded in this time_frame{reason}"


async def test_metrics_of_an_unknown_guest_name_the_nearest(tool_client):
    error = await tool_client.refused("ListVmRrdData", **PROD, vmids=[99999])
    assert error.startswith("No guest 99999 on prod.")


@pytest.mark.parametrize("given", [{"vmids": []}, {"vmids": [1]}])
async def test_metrics_of_nothing_are_refused_by_argument(tool_client, given):
    error = await tool_client.refused("ListVmRrdData", **PROD, **given)
    assert error.startswith("vmids")


def test_rates_and_counters_never_share_a_name():
    units: dict[str, set[Unit | None]] = {}
    rows = [table.row for table in tables().values()]
    for row in (*rows, VmPoint, NodePoint):
        for field in fields_of(row).values():
            units.setdefault(field.name, set()).add(field.unit)
    mixed = {
        name for name, some in units.items() if Unit.BYTES_PER_SECOND in some and len(some) > 1
    }
    assert mixed == set()
    assert all(
        name.endswith("_rate") for name, some in units.items() if Unit.BYTES_PER_SECOND in some
    )
