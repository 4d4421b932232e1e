"""ExplainGuest: what a guest does now against its week, where it runs, and what is left out."""

import re
from importlib import import_module
from statistics import fmean

import pytest
from tests.server.tools.altered import RESOURCES, altered, without_statistics

from proxmox_client.emulator import rrd
from proxmox_client.emulator.state import metrics
from proxmox_client.emulator.state.load import Load
from pvemcp_server.access.model import Resources
from pvemcp_server.toolkit.registry import tools

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}
WEB, BIG = 102, 101  # web-03 has two cores; db-primary is the busiest of its node


def week_of(client, vmid):
    """Return the emulator's own series of a guest's CPU use over a week, in percent."""
    state = client["prod"].emulated.state
    rows = rrd.series(state, "week", "AVERAGE", rrd.guest_rows(state.guests[vmid], state))
    return [row["cpu"] * 100 for row in rows if "cpu" in row]


def guest_of(client, vmid):
    return client["prod"].emulated.state.guests[vmid]


def metric(answer, name, of="metrics"):
    return next(row for row in answer.data[of] if row["metric"] == name)


async def test_an_idle_guest_has_nothing_unusual(tool_client):
    answer = await tool_client("ExplainGuest", **PROD, vmid=WEB)
    assert answer.data["findings"] == ["Nothing unusual in what is shown here."]
    assert (answer.data["name"], answer.data["status"]) == ("web-03", "running")


async def test_its_figures_are_those_of_proxmox(tool_client):
    answer = await tool_client("ExplainGuest", **PROD, vmid=WEB)
    guest = guest_of(tool_client, WEB)
    cpu = metric(answer, "cpu")
    assert cpu["week_average"] == pytest.approx(fmean(week_of(tool_client, WEB)), abs=0.06)
    assert cpu["now"] == pytest.approx(guest.load.cpu_at(guest_now(tool_client)) * 100, rel=0.25)
    state = tool_client["prod"].emulated.state
    of_node = rrd.series(state, "hour", "AVERAGE", rrd.node_rows(state.nodes[guest.node], state))
    busy = fmean(row["cpu"] * 100 for row in of_node if "cpu" in row)
    assert metric(answer, "cpu", "node_metrics")["now"] == pytest.approx(busy, abs=0.06)
    assert [row["storage"] for row in answer.data["disks"]] == ["ceph-vm"]
    assert answer.data["filesystems"][0] == {"mount_point": "/", "usage_percentage": 42.0}
    own = [task.type for task in state.tasks.values() if task.id == str(WEB)]
    assert sorted(row["type"] for row in answer.data["tasks"]) == sorted(own)


def guest_now(client):
    return client["prod"].emulated.state.clock.now()


async def test_neighbours_are_the_busiest_guests_of_the_node(tool_client):
    answer = await tool_client("ExplainGuest", **PROD, vmid=WEB)
    state = tool_client["prod"].emulated.state
    shown = [row["vmid"] for row in answer.data["neighbours"]]
    assert WEB not in shown
    node = guest_of(tool_client, WEB).node
    assert all(state.guests[vmid].node == node and state.guests[vmid].running for vmid in shown)
    cores = {row["vmid"]: row["cores_used"] for row in answer.data["neighbours"]}
    running = [g for g in state.guests.values() if g.node == node and g.running and g.vmid != WEB]
    busiest = max(running, key=lambda guest: guest.load.cpu * state.cpus_of(guest))
    assert max(cores, key=cores.get) == busiest.vmid


async def test_a_neighbour_that_uses_the_disks_most_is_named(demo_client):
    state, node = demo_client["prod"].emulated.state, guest_of(demo_client, WEB).node
    idle = min(
        (guest for guest in state.guests_on(node) if guest.running and guest.vmid != WEB),
        key=lambda guest: guest.load.cpu * state.cpus_of(guest),
    )
    idle.load.disk_read = 400 * 2**20
    answer = await demo_client("ExplainGuest", **PROD, vmid=WEB)
    last = answer.data["neighbours"][-1]
    assert last["vmid"] == idle.vmid
    assert last["disk_rate"] == pytest.approx(idle.load.disk_read, rel=0.05)
    [finding] = [text for text in answer.data["findings"] if "reads and writes" in text]
    assert finding == f"On {node}, {idle.vmid} {idle.name} reads and writes 400 MiB/s."


async def test_what_is_exhausted_is_found(demo_client):
    state, guest = demo_client["prod"].emulated.state, guest_of(demo_client, WEB)
    guest.load.cpu, guest.load.swing, guest.load.memory = 1.2, 0.0, 0.97
    guest.load.pressure = 99.0
    guest.agent.disk_used = 0.97
    state.nodes[guest.node].load.cpu = 2.0
    ceph = state.storages["ceph-vm"]
    ceph.other_used = int(ceph.total * 0.97)
    answer = await demo_client("ExplainGuest", **PROD, vmid=WEB)
    findings = " ".join(answer.data["findings"])
    assert "of its 2 cores" in findings
    assert "of its memory is in use" in findings
    assert "The file system / is 97 % full." in findings
    assert "The storage ceph-vm is" in findings
    assert "waits for" in findings


# Use of a node's processors in its last hour, and before; what is said of it
NODE_USE = {
    "busy": (0.776, 0.5, ["{node} uses 77.6 % of its processors."]),
    "at times": (
        0.4,
        0.969,
        ["For 5 % of the week, {node} used 96.9 % of its processors or more."],
    ),
    "idle": (0.4, 0.5, []),
}


async def test_a_busy_node_and_who_uses_it_are_found_for_an_idle_guest(demo_client, monkeypatch):
    state = demo_client["prod"].emulated.state
    node = state.nodes[guest_of(demo_client, WEB).node]
    started, usual, load_of_node = guest_now(demo_client), Load.usage_at, Load()
    monkeypatch.setattr(metrics, "node_load", lambda _node, _state: load_of_node)
    for last_hour, before, expected in NODE_USE.values():

        def use(load, when, last_hour=last_hour, before=before):
            cpu, memory = usual(load, when)
            own = last_hour if when > started - 4500 else before
            return (own if load is load_of_node else cpu), memory

        monkeypatch.setattr(Load, "usage_at", use)
        answer = await demo_client("ExplainGuest", **PROD, vmid=WEB)
        found = [text for text in answer.data["findings"] if "core" in text or "processor" in text]
        top = answer.data["neighbours"][0]
        user = f"On {node.name}, {top['vmid']} {top['name']} uses {top['cores_used']:g} cores."
        busy = [user] if last_hour > 0.7 else []
        assert found == [text.format(node=node.name) for text in expected] + busy
        assert ("Nothing unusual" in answer.data["findings"][0]) is not bool(expected)


async def test_a_guest_that_is_exhausted_at_times_is_found(demo_client, monkeypatch):
    guest, started = guest_of(demo_client, WEB), guest_now(demo_client)
    usual = Load.usage_at

    def use(load, when):
        quiet = when > started - 86_400
        return ((0.3, 0.4) if quiet else (0.96, 0.95)) if load is guest.load else usual(load, when)

    monkeypatch.setattr(Load, "usage_at", use)
    findings = (await demo_client("ExplainGuest", **PROD, vmid=WEB)).data["findings"]
    assert "For 5 % of the week, it used 96 % of its 2 cores or more." in findings
    assert "For 5 % of the week, it used 95 % of its memory or more." in findings


async def test_use_unlike_its_week_is_found(demo_client, monkeypatch):
    guest = guest_of(demo_client, WEB)
    started = guest_now(demo_client)
    quiet = Load.usage_at

    def burst(load, when):
        cpu, memory = quiet(load, when)
        return (0.6 if load is guest.load and when > started - 600 else cpu), memory

    monkeypatch.setattr(Load, "usage_at", burst)
    answer = await demo_client("ExplainGuest", **PROD, vmid=WEB)
    found = " ".join(answer.data["findings"])
    assert "Its cpu is 60 %; for 95 % of its week it was at most 1" in found


async def test_a_node_without_statistics_is_noted_and_makes_no_storage_suspect(demo_client):
    node = guest_of(demo_client, WEB).node
    with altered(demo_client["prod"], RESOURCES, without_statistics(node)):
        answer = await demo_client("ExplainGuest", **PROD, vmid=WEB)
    assert answer.data["neighbours"] == []
    assert f"Proxmox has no current statistics of {node} on prod" in answer.notes
    assert answer.data["findings"] == ["Nothing unusual in what is shown here."]


async def test_states_in_which_nothing_runs_are_found(demo_client):
    guest = guest_of(demo_client, WEB)
    guest.paused = True
    paused = await demo_client("ExplainGuest", **PROD, vmid=WEB)
    assert paused.data["status"] == "paused"
    assert paused.data["findings"][0].startswith("It is paused")
    guest.paused, guest.status = False, "stopped"
    guest.config["lock"] = "backup"
    demo_client.refresh()
    stopped = await demo_client("ExplainGuest", **PROD, vmid=WEB)
    assert stopped.data["findings"] == [
        "It is stopped: nothing in it runs.",
        "It is locked: backup.",
    ]
    assert stopped.data["filesystems"] == []
    assert not any(row["now"] for row in stopped.data["metrics"])


async def test_before_version_9_no_pressure_is_claimed(tool_client):
    answer = await tool_client("ExplainGuest", cluster_name="home-lab", vmid=200)
    assert not any(row["metric"].startswith("pressure") for row in answer.data["metrics"])


async def test_a_role_for_one_guest_gets_no_neighbours_and_no_node(tool_client):
    scoped = tool_client.scoped(Resources(vmids=frozenset({WEB})))
    answer = await scoped("ExplainGuest", **PROD, vmid=WEB)
    assert answer.data["neighbours"] == answer.data["node_metrics"] == []
    assert answer.data["disks"][0]["storage_usage_percentage"] is None
    assert f"The use of {guest_of(tool_client, WEB).node} is unknown" in answer.notes
    guests = tool_client["prod"].emulated.state.guests
    neighbours = {g.name for g in guests.values() if g.node == guests[WEB].node} - {"web-03"}
    assert not neighbours & set(re.findall(r"[\w.-]+", answer.text + answer.notes))


async def test_a_part_whose_tool_is_not_granted_is_noted(tool_client):
    hint = "ListChanges with vmid has changes of its options."
    assert hint in (await tool_client("ExplainGuest", **PROD, vmid=BIG)).notes
    granted = frozenset(tools()) - {"ListTasks", "ListStorage", "ListChanges"}
    client = type(tool_client)(tool_client.clusters, tools=granted)
    answer = await client("ExplainGuest", **PROD, vmid=BIG)
    assert answer.data["tasks"] == []
    assert hint not in answer.notes
    assert "No tasks of prod here: ListTasks is not granted there." in answer.notes
    assert "No storages of prod here: ListStorage is not granted there." in answer.notes


async def test_a_part_that_fails_is_noted_and_costs_only_itself(demo_client):
    demo_client["prod"].emulated.fault("error", path="/nodes/[^/]*/qemu/102/rrddata", message="no")
    answer = await demo_client("ExplainGuest", **PROD, vmid=WEB)
    assert not answer.failed
    assert metric(answer, "cpu")["week_average"] is None
    assert "metrics of guest 102" in answer.notes


async def test_it_costs_few_calls_and_tokens(tool_client):
    await tool_client("ListNodes", **PROD)  # the inventory is cached by then
    tool_client.requests("prod")
    answer = await tool_client("ExplainGuest", **PROD, vmid=BIG, format="Toon")
    online = sum(node.online for node in tool_client["prod"].emulated.state.nodes.values())
    assert len(tool_client.requests("prod")) <= 8 + online  # tasks take one of each node
    assert len(answer.text) < 1900  # about 700 tokens


async def test_neighbours_of_a_large_cluster_are_not_measured(tool_client, monkeypatch):
    module = import_module("pvemcp_server.tools.guests.explanation")
    monkeypatch.setattr(module, "_MOST_GUESTS", 10)
    tool_client.requests("prod")
    answer = await tool_client("ExplainGuest", **PROD, vmid=BIG)
    assert "The disk use of neighbours is only read on clusters of up to 10 guests" in answer.notes
    assert not any("/metrics/export" in request for request in tool_client.requests("prod"))
