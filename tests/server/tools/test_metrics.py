"""Metrics over time: summaries, rows by step, and what offline nodes have recorded."""

from datetime import UTC, datetime, timedelta
from statistics import fmean

import pytest

from proxmox_client import MethodMissing, Qemu
from proxmox_client.api.cluster import ClusterApi, MetricSample
from proxmox_client.api.rrd import GuestRrd
from proxmox_client.emulator import rrd
from proxmox_client.emulator.state import metrics
from pvemcp_server.tables import tables
from pvemcp_server.tables.metrics import points_of
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
    # 250 and 600 tokens are about 610 and 1,200 characters of numbers
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
    assert answer.notes == "Each row is of the 1h until its time."
    newest = datetime.fromisoformat(answer.data[-1]["time"]).timestamp()
    state = tool_client["prod"].emulated.state
    assert newest == max(time for time in rrd.times(state, "day"))


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
        (
            "prod",
            "Day",
            "1m",
            (
                "Each row is of the 15m until its time, to bound the answer: a shorter "
                "time_frame, fewer nodes, metrics or fields make it finer."
            ),
        ),
        ("home-lab", "Day", "1m", "Each row is of the 30m until its time, recorded no finer."),
        ("prod", "Day", "30m", "Each row is of the 30m until its time."),
    ],
)
async def test_rows_that_are_longer_than_the_step_say_why(tool_client, cluster, frame, step, note):
    node = {"prod": "pve01", "home-lab": "pve"}[cluster]
    answer = await tool_client(
        "ListNodeRrdData", cluster_name=cluster, nodes=[node], metrics="Cpu", time_frame=frame,
        step=step, limit=100,
    )  # fmt: skip
    assert answer.notes == note


async def test_fewer_fields_give_finer_rows(tool_client):
    week = {**PROD, "vmids": [101], "time_frame": "Week", "step": "1h", "limit": 200}
    wide = await tool_client("ListVmRrdData", **week)
    assert "fields make it finer" in wide.notes
    one = await tool_client("ListVmRrdData", **week, fields=["time", "CpuUsage"])
    assert "Each row is of the 1h until its time." in one.notes
    assert len(one.data) in (168, 169)


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


def query_of(table: str, frame: str, select: list[str], **parts) -> dict:
    frames = {"field": "time_frame", "operator": "=", "value": [frame]}
    where = {"conditions": [frames, *parts.pop("conditions", [])]}
    return {"from": table, "select": select, "where": where, **parts}


LAB = {"cluster_name": "home-lab"}


def averages(client: ToolClient, frame: str, read) -> dict[int, float]:
    """Return the averages of all guests of home-lab that have recorded something."""
    found = {}
    for guest in client["home-lab"].emulated.state.guests.values():
        if not guest.template:
            average, _ = recorded(client, "home-lab", "guest", guest.vmid, frame)
            values = [read(row) for row in average if "cpu" in row]
            found |= {guest.vmid: fmean(values)} if values else {}
    return found


async def test_most_network_last_week_is_one_query(tool_client):
    query = query_of(
        "guest_metrics", "week", ["vmid", "network_rate"], orderBy="network_rate desc", limit=5
    )
    tool_client.requests("home-lab")
    answer = await tool_client("ExecuteQuery", **LAB, query=query)
    expected = averages(tool_client, "Week", lambda row: row["netin"] + row["netout"])
    top = sorted(expected.items(), key=lambda pair: -pair[1])[:5]
    assert [(row["vmid"], row["network_rate"]) for row in answer.data] == [
        (vmid, round(rate)) for vmid, rate in top
    ]
    counted = [r for r in tool_client.requests("home-lab") if "rrddata" in r]
    assert "time_frame" not in answer.notes
    assert len(counted) == len(set(counted))  # one per guest


async def test_oversized_guests_over_a_month_are_one_query(tool_client):
    small = {"field": "cpu_p95", "operator": "<", "value": ["10"]}
    idle = {"field": "memory_p95", "operator": "<", "value": ["50"]}
    query = query_of(
        "guest_metrics", "month", ["vmid", "cpu_p95", "memory_p95", "guest.memory_max"],
        conditions=[small, idle], orderBy="guest.memory_max desc", limit=3,
    )  # fmt: skip
    answer = await tool_client("ExecuteQuery", **LAB, query=query)
    assert answer.data
    for row in answer.data:
        average, _ = recorded(tool_client, "home-lab", "guest", row["vmid"], "Month")
        values = sorted(point["cpu"] * 100 for point in average if "cpu" in point)
        assert row["cpu_p95"] == pytest.approx(values[-(-95 * len(values) // 100) - 1], abs=0.06)
        assert row["cpu_p95"] < 10


async def test_what_guests_do_now_takes_two_requests_for_all(tool_client):
    tool_client.requests("prod")
    query = query_of("guest_metrics", "now", ["vmid", "cpu_average", "disk_rate"],
                     orderBy="disk_rate desc", limit=5)  # fmt: skip
    answer = await tool_client("ExecuteQuery", **PROD, query=query)
    requests = [r for r in tool_client.requests("prod") if "resources" not in r]
    assert len(requests) == 2
    guests = tool_client["prod"].emulated.state.guests
    for row in answer.data:
        load = guests[row["vmid"]].load
        assert row["disk_rate"] == pytest.approx(load.disk_read + load.disk_write, abs=1)
        assert row["cpu_average"] > 0
    on = [g for g in guests.values() if g.running and g.node != "pve05"]
    assert answer.data[0]["disk_rate"] == pytest.approx(
        max(g.load.disk_read + g.load.disk_write for g in on), abs=1
    )


@pytest.mark.parametrize("version", ["8.1", "forbidden"])
async def test_now_without_the_export_takes_a_call_per_guest(
    demo_client, with_token, new_token, monkeypatch, version
):
    if version == "forbidden":
        token = new_token(demo_client["home-lab"].emulated, ("/vms", "PVEAuditor"))
        client = await with_token(demo_client, "home-lab", token)
    else:
        client = demo_client

        async def missing(*_arguments: object, **_options: object) -> None:
            raise MethodMissing(501, "Method not implemented", "")

        monkeypatch.setattr(ClusterApi, "metrics", missing)
    query = query_of("guest_metrics", "now", ["vmid", "cpu_average"], orderBy="cpu_average desc")
    answer = await client("ExecuteQuery", cluster_name="home-lab", query=query)
    assert "now is the average of the last minute, at a call per guest" in answer.notes
    assert answer.data[0]["cpu_average"] > 1


async def test_nodes_over_a_month_are_one_query_with_the_offline_one(tool_client):
    select = ["node", "cpu_average", "cpu_p95", "cpu_maximum", "memory_p95", "latest_time"]
    query = query_of("node_metrics", "month", select, orderBy="cpu_p95 desc")
    answer = await tool_client("ExecuteQuery", **PROD, query=query)
    assert set(answer.column("node")) == set(tool_client["prod"].emulated.state.nodes)
    for row in answer.data:
        average, maximum = recorded(tool_client, "prod", "node", row["node"], "Month")
        values = [point["cpu"] * 100 for point in average if "cpu" in point]
        peak = max(point["cpu"] * 100 for point in maximum if "cpu" in point)
        last = max(point["time"] for point in average if "cpu" in point)
        assert row["cpu_average"] == pytest.approx(fmean(values), abs=0.06)
        assert row["cpu_maximum"] == pytest.approx(peak, abs=0.06)
        assert row["latest_time"] == rrd_time(last)


async def test_nodes_now_have_their_rates(tool_client):
    query = query_of("node_metrics", "now", ["node", "network_in_rate", "iowait"])
    answer = await tool_client("ExecuteQuery", **PROD, query=query)
    state = tool_client["prod"].emulated.state
    for row in answer.data:
        node = state.nodes[row["node"]]
        if node.online:
            load = metrics.node_load(node, state)
            assert row["network_in_rate"] == pytest.approx(load.net_in + 9000, abs=1)
        else:
            assert row["network_in_rate"] is None


@pytest.mark.parametrize("table", ["guest_metrics", "node_metrics"])
async def test_metrics_without_a_time_frame_say_which_they_are_of(tool_client, table):
    answer = await tool_client(
        "ExecuteQuery", cluster_name="home-lab", query={"from": table, "select": ["time_frame"]}
    )
    assert set(answer.column("time_frame")) == {"hour"}
    assert "time_frame hour: a condition on it picks now, day, week, month, year." in answer.notes


async def test_an_unknown_time_frame_is_refused_with_the_known_ones(tool_client):
    query = query_of("guest_metrics", "fortnight", ["vmid"])
    answer = await tool_client("ExecuteQuery", **PROD, query=query)
    assert "week" in answer.text + answer.notes


async def test_a_ranking_by_counters_names_the_rates(tool_client):
    query = {"from": "guests", "select": ["vmid", "network_out"], "orderBy": "network_out desc"}
    answer = await tool_client("ExecuteQuery", **PROD, query=query)
    assert "guest_metrics has rates" in answer.notes


def test_counters_become_rates_and_a_restart_none():
    def sample(time: int, value: float) -> MetricSample:
        return MetricSample("qemu/100", "net_in", "derive", value, time)

    [point] = points_of([sample(1020, 500), sample(1000, 100), sample(1010, 300)], GuestRrd)
    assert (point.time, point.network_in) == (1020, 20)
    [restarted] = points_of([sample(1000, 100), sample(1010, 0)], GuestRrd)
    assert restarted.network_in is None
    assert points_of([], GuestRrd) == []


GROWTH = 0.0011  # per day, of what the emulator's storages hold now


@pytest.mark.parametrize("frame", ["Day", "Month"])
async def test_growth_of_storages_is_near_and_the_first_to_be_full_leads(tool_client, frame):
    answer = await tool_client("ListStorageRrdData", **PROD, time_frame=frame)
    state = tool_client["prod"].emulated.state
    for row in answer.data:
        storage = state.storages[row["storage"]]
        used = storage.used(row["node"])
        assert row["growth_per_day"] == pytest.approx(used * GROWTH, rel=0.03)
        days = (storage.total - used) / (used * GROWTH)
        full = datetime.fromisoformat(row["full_on"]).timestamp()
        assert full == pytest.approx(state.now + days * 86400, abs=days * 0.03 * 86400)
        assert row["full_earliest"] < row["full_on"] < row["full_latest"]
    assert answer.column("full_on") == sorted(answer.column("full_on"))
    assert "Offline on prod, so missing here: pve05." in answer.notes


async def test_a_shared_storage_has_one_row_also_when_a_node_is_named(tool_client):
    answer = await tool_client("ListStorageRrdData", **PROD)
    shared = [name for name in answer.column("storage") if name == "ceph-vm"]
    assert shared == ["ceph-vm"]
    named = await tool_client("ListStorageRrdData", **PROD, storage="ceph-vm", node="pve03")
    assert named.column("node") == ["pve03"]


async def test_when_a_storage_is_full_is_one_call(tool_client):
    answer = await tool_client("ListStorageRrdData", storage="nfs-archive", format="JsonCompact")
    assert "full_on" in answer.text
    assert len(answer.text + answer.notes) < 600


@pytest.mark.parametrize("on", ["+20d", "%Y-%m-%d", "%d.%m.%Y"])
async def test_how_full_a_storage_is_on_a_date_is_one_call(tool_client, on):
    state = tool_client["prod"].emulated.state
    date = datetime.fromtimestamp(state.now, UTC) + timedelta(days=20)
    arguments = {**PROD, "storage": "nfs-archive", "on": date.strftime(on)}
    [row] = (await tool_client("ListStorageRrdData", **arguments)).data
    storage = state.storages["nfs-archive"]
    now = storage.used(row["node"]) / storage.total * 100
    assert row["forecast_percentage"] == pytest.approx(now * (1 + 20 * GROWTH), abs=0.2)
    assert row["forecast_low"] <= row["forecast_percentage"] <= row["forecast_high"]
    assert row["forecast_for"][:10] == f"{date:%Y-%m-%d}"
    query = query_of("storage_metrics", "month", ["storage", "forecast_for"])
    rows = (await tool_client("ExecuteQuery", **PROD, query=query)).data
    in_30_days = datetime.fromtimestamp(state.now, UTC) + timedelta(days=30)
    assert {row["forecast_for"][:10] for row in rows} == {f"{in_30_days:%Y-%m-%d}"}


async def test_a_forecast_for_the_past_is_refused(tool_client):
    error = await tool_client.refused("ListStorageRrdData", **PROD, on="yesterday")
    assert error == "on: it is over: a forecast needs a date to come."


async def test_storages_that_will_be_full_soon_are_one_query(tool_client):
    query = query_of(
        "storage_metrics", "month", ["storage", "growth_per_day", "full_on"],
        conditions=[{"field": "full_on", "operator": "<", "value": ["+90d"]}],
    )  # fmt: skip
    answer = await tool_client("ExecuteQuery", **PROD, query=query)
    assert answer.column("storage") == ["nfs-archive"]


async def test_growth_of_an_unknown_storage_names_the_known_ones(tool_client):
    error = await tool_client.refused("ListStorageRrdData", **PROD, storage="local-lvm")
    assert error.startswith("No storage 'local-lvm' on prod. Did you mean local")
