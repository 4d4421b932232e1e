"""EvacuateNode: where each guest goes and why others stay, what is sent, and the way back."""

import json
from dataclasses import replace

import pytest

from proxmox_client import Unreachable
from proxmox_client.emulator import Clock
from proxmox_client.emulator.state.guest import Kind
from pvemcp_server.access.model import Resources
from pvemcp_server.mcp.elicitation import Decision
from pvemcp_server.toolkit.registry import tools

from .altered import RESOURCES, altered, rows_changed, without_statistics
from .test_bulk import FakeApprovals
from .test_maintenance import BOUND, lab_of, manage, prefer, put, state_of
from .tool_client import PACE, FakeConversation, ToolClient, offered, open_tool_client

pytestmark = pytest.mark.anyio

NODE = {"cluster_name": "lab", "node": "pve1"}
GIB = 1 << 30
EACH_VERSION = pytest.mark.parametrize("_client", ["8.4", "9.2"], indirect=True)


@pytest.fixture(scope="module")
async def _client(anyio_backend, request):
    version = getattr(request, "param", "9.2")
    async with open_tool_client(lab_of(version=version), Clock(PACE)) as client:
        yield client


@pytest.fixture
async def client(_client):
    """Yield a client on a cluster of three nodes: 100 and 101 run on pve1, the others on pve2."""
    state = _client["lab"].emulated.state
    before = {g.vmid: (g.node, g.status, dict(g.config)) for g in state.guests.values()}
    put(_client, 100, 101)
    client = ToolClient(_client.clusters)
    client.requests("lab")
    yield client
    await _client["lab"].emulated.tasks.settle()
    for vmid, (node, status, config) in before.items():
        guest = state.guests[vmid]
        guest.node, guest.status, guest.config = node, status, config
        guest.touch()
    for node in state.nodes.values():
        node.maintenance, node.cpu_model = False, "AMD EPYC 7313P 16-Core Processor"
    for kept in (state.ha_resources, state.ha_rules, state.ha_groups):
        kept.clear()
    _client.refresh()


async def table(client, **place):
    """Return the rows of a dry run by VMID."""
    answer = await client("EvacuateNode", **{**NODE, **place}, dry_run=True)
    assert not answer.failed, answer.text
    return {row.pop("vmid"): row for row in answer.data["guests"]}


def sent(client):
    return [r for r in client.requests("lab") if not r.startswith("GET")]


def container(client):
    """Return a container, on pve1 and running."""
    guest = next(g for g in state_of(client).guests.values() if g.kind is Kind.LXC)
    put(client, 100, 101, guest.vmid)
    return guest


@EACH_VERSION
async def test_a_dry_run_is_the_table_of_all_guests(client):
    guest = container(client)
    state_of(client).guests[101].status = "stopped"
    state_of(client).guests[100].config["hostpci0"] = "0000:65:00.0"
    client.refresh()
    rows = await table(client)
    assert rows[guest.vmid]["how"] == "restart"
    assert rows[101]["how"] == "offline"
    assert {rows[guest.vmid]["target_node"], rows[101]["target_node"]} <= {"pve2", "pve3"}
    assert rows[100]["why_not"] == "devices of the node: hostpci0"
    assert list(rows)[-1] == 101, "running guests come first"
    assert sent(client) == []


@EACH_VERSION
async def test_guests_move_and_the_answer_brings_them_back(client):
    guest = container(client)
    answer = await client("EvacuateNode", **NODE)
    guests = state_of(client).guests
    moved = [100, 101, guest.vmid]
    assert answer.data["success"] is True
    for row in answer.data["results"]:
        assert row.keys() == {"vmid", "success", "target_node"}
        assert row["success"] is True
        assert guests[row["vmid"]].node == row["target_node"] != "pve1"
        assert guests[row["vmid"]].running
    tool, arguments = offered(answer.data["undo"])
    assert (tool, arguments["vmids"]) == ("MigrateVm", moved)
    back = await client(tool, **arguments, wait=True)
    assert back.data["success"] is True
    assert {guests[vmid].node for vmid in moved} == {"pve1"}


async def test_what_binds_a_guest_to_its_node_is_named(client):
    guest = state_of(client).guests[100]
    usual = dict(guest.config)
    for options, reason in BOUND.values():
        guest.config = usual | options
        rows = await table(client)
        assert reason in rows[100]["why_not"]
        assert rows[101]["how"] == "online"
    answer = await client("EvacuateNode", **NODE)
    assert answer.data["success"] is False
    assert [row["success"] for row in answer.data["results"]] == [False, True]
    assert "no other node has" in answer.data["results"][0]["error"]


def resources(**changes):
    """Return a change of the inventory: values of nodes and guests, by their names."""
    named = lambda row: f"{row['type']}_{row.get('vmid') or row.get('node')}"  # noqa: E731
    return rows_changed(lambda row: {**row, **changes.get(named(row), {})})


# Values of nodes and guests, and the nodes that 100 and 101 go to, or why not
ROOM = (
    ({"qemu_100": {"maxmem": 4 * GIB}, "qemu_101": {"maxmem": 8 * GIB}}, ("pve3", "pve2")),
    ({"node_pve3": {"mem": 0, "maxmem": GIB}}, ("pve2", "pve2")),
    ({"node_pve3": {"status": "unknown"}}, ("pve2", "pve2")),
    ({"node_pve3": {"status": "offline"}}, ("pve2", "pve2")),
    ({"node_pve3": {"maxcpu": 1}}, ("pve2", "pve2")),
    ({"qemu_100": {"maxmem": 900 * GIB}}, ("no node it can go to has 900.0 GiB of memory", "pve2")),
)


@pytest.mark.parametrize(("changes", "expected"), ROOM)
async def test_each_guest_goes_where_it_has_room(client, changes, expected):
    for guest in state_of(client).guests.values():
        guest.status = "running" if guest.node == "pve1" else "stopped"
        guest.config["cores"] = 2
    client.refresh()
    usual = {name: {"mem": GIB, "maxmem": 64 * GIB} for name in ("node_pve2", "node_pve3")}
    usual |= {name: {"maxmem": 4 * GIB} for name in ("qemu_100", "qemu_101")}
    both = {name: {**usual.get(name, {}), **changes.get(name, {})} for name in usual | changes}
    with altered(client["lab"], RESOURCES, resources(**both)):
        rows = await table(client)
    for vmid, words in zip((100, 101), expected, strict=True):
        assert words in rows[vmid].get("target_node", rows[vmid].get("why_not"))


async def test_guests_of_a_node_without_statistics_are_asked_for_their_state(client):
    state_of(client).guests[101].status = "stopped"
    client.refresh()
    usual = await table(client)
    with altered(client["lab"], RESOURCES, without_statistics("pve1")):
        assert await table(client) == usual
    with altered(client["lab"], RESOURCES, without_statistics("pve1", "pve2", "pve3")):
        rows = await table(client)
    assert {row["why_not"] for row in rows.values()} == {
        "the free memory of the nodes it can go to is not known"
    }


async def test_a_cpu_type_of_the_host_needs_equal_processors(client):
    state = state_of(client)
    for vmid in (100, 101):
        state.guests[vmid].config["cpu"] = "host"
    state.nodes["pve2"].cpu_model = "Intel(R) Xeon(R) Gold 6338"
    rows = await table(client)
    assert {rows[100]["target_node"], rows[101]["target_node"]} == {"pve3"}
    state.nodes["pve3"].cpu_model = "Intel(R) Xeon(R) Gold 6338"
    state.guests[101].status = "stopped"
    client.refresh()
    rows = await table(client)
    assert "its CPU type is host" in rows[100]["why_not"]
    assert rows[101]["how"] == "offline"


async def test_mapped_devices_are_where_proxmox_says(client):
    state_of(client).guests[100].config["hostpci0"] = "mapping=gpu"

    def allow(*nodes):
        def change(response):
            check = json.loads(response.body)
            check["data"]["allowed_nodes"] = nodes
            return response._replace(body=json.dumps(check).encode())

        return altered(client["lab"], "/nodes/pve1/qemu/100/migrate", change)

    with allow("pve3"):
        assert (await table(client))[100]["target_node"] == "pve3"
    with allow():
        assert (await table(client))[100]["why_not"] == "no other node has its mapped devices"


async def test_local_disks_go_where_their_storage_has_space(client):
    guest = state_of(client).guests[100]
    guest.config["scsi7"] = "local:100/vm-100-disk-7.qcow2,size=64G"
    small = rows_changed(
        lambda row: (
            {**row, "maxdisk": 65 * GIB, "disk": (60 if row["node"] == "pve2" else 0) * GIB}
            if row["type"] == "storage" and row["storage"] == "local"
            else row
        )
    )
    with altered(client["lab"], RESOURCES, small):
        rows = await table(client)
        assert rows[100]["target_node"] == "pve3"
        guest.config["scsi7"] = "local:100/vm-100-disk-7.qcow2,size=640G"
        rows = await table(client)
    assert "has 640.0 GiB on local free for its disks" in rows[100]["why_not"]


@EACH_VERSION
async def test_ha_moves_its_guests_where_its_rules_allow(client):
    manage(client, 100)
    prefer(client, "pve3", strict=True)
    assert (await table(client))[100]["target_node"] == "pve3"
    answer = await client("EvacuateNode", **NODE)
    assert ":hamigrate:100:" in client.audit.events[-1][1].upid
    assert "`ha-manager crm-command node-maintenance enable pve1`" in answer.notes
    await client["lab"].emulated.tasks.settle()
    assert state_of(client).guests[100].node == "pve3"


@EACH_VERSION
async def test_a_guest_that_ha_would_move_back_stays_until_ha_maintenance(client):
    state = state_of(client)
    manage(client, 100)
    prefer(client, "pve1:2,pve2:1")
    rows = await table(client)
    assert rows[100]["why_not"].startswith("HA prefers its node and would move it back: run `ha-m")
    state.nodes["pve1"].maintenance = True
    assert (await table(client))[100]["how"] == "by HA maintenance"
    answer = await client("EvacuateNode", **NODE)
    assert [row["vmid"] for row in answer.data["results"]] == [101]
    assert "pve1 is in HA maintenance, by which HA moves 100." in answer.notes
    assert not [each for each in sent(client) if "/100/" in each]


async def test_guests_that_ha_keeps_together_go_to_one_node(client):
    manage(client, 100, 101)
    for affinity, nodes in (("positive", 1), ("negative", 2)):
        state_of(client).ha_rules["r"] = {
            "rule": "r", "type": "resource-affinity", "affinity": affinity,
            "resources": "vm:100,vm:101",
        }  # fmt: skip
        rows = await table(client)
        assert len({rows[100]["target_node"], rows[101]["target_node"]}) == nodes


async def test_no_guest_goes_to_a_node_in_ha_maintenance(client):
    manage(client, 102)
    state_of(client).nodes["pve3"].maintenance = True
    rows = await table(client)
    assert {row["target_node"] for row in rows.values()} == {"pve2"}


async def test_a_role_moves_its_guests_to_its_nodes_only(client):
    scoped = client.scoped(Resources(vmids=frozenset({100}), target_nodes=frozenset({"pve3"})))
    answer = await scoped("EvacuateNode", **NODE, dry_run=True)
    [row] = answer.data["guests"]
    assert (row["vmid"], row["target_node"]) == (100, "pve3")
    assert "Guests that the role of this key does not cover stay there" in answer.data["would"]
    assert "room" not in answer.data
    assert "pve2" not in answer.text + answer.notes
    errors = [await scoped.refused("EvacuateNode", **{**NODE, "node": n}) for n in ("pve2", "pve7")]
    assert errors[0].replace("pve2", "…") == errors[1].replace("pve7", "…")
    without = client.scoped(Resources(vmids=frozenset({100})))
    reason = "100: it can go to none of the nodes that this call may use"
    assert reason in await without.refused("EvacuateNode", **NODE)
    assert not sent(client)


async def test_the_way_back_is_offered_to_those_who_may_take_it(client):
    client.tools = frozenset(tools()) - {"MigrateVm"}
    assert "undo" not in (await client("EvacuateNode", **NODE)).data


async def test_containers_restart_only_with_consent_to_the_whole_table(client):
    container(client)
    would = (await client("EvacuateNode", **NODE, dry_run=True)).data["would"]
    client.conversation.decision = Decision.NO
    assert "The user declined" in await client.refused("EvacuateNode", **NODE)
    assert client.conversation.questions == [would]
    approvals = FakeApprovals()
    conversation = FakeConversation(decision=Decision.CANNOT_ASK)
    unasked = replace(client, approvals=approvals, conversation=conversation)
    assert "waiting for approval" in await unasked.refused("EvacuateNode", **NODE)
    assert not sent(client)
    assert (await unasked("EvacuateNode", **NODE)).data["success"] is True
    assert approvals.approved == {}
    assert [kind for kind, _ in client.audit.events][-2:] == ["intent", "outcome"]


def everyone(client):
    """Let all six guests run on pve1."""
    put(client, *state_of(client).guests)
    return sorted(state_of(client).guests)


async def test_two_guests_move_at_once(client, monkeypatch):
    vmids, most = everyone(client), []
    state, emulated = state_of(client), client["lab"].emulated
    start = emulated.tasks.start

    def counted(*arguments):
        upid = start(*arguments)
        most.append(sum(task.running and "migrate" in task.type for task in state.tasks.values()))
        return upid

    monkeypatch.setattr(emulated.tasks, "start", counted)
    answer = await client("EvacuateNode", **NODE)
    assert [row["vmid"] for row in answer.data["results"]] == vmids
    assert max(most) == 2


async def test_it_stops_at_the_first_failure_if_the_caller_wants_that(client, monkeypatch):
    vmids = everyone(client)
    transport = client["lab"].pve.transport
    send = transport.request

    async def request(method, path, parameters):
        if method == "POST" and path.endswith("/migrate"):
            raise Unreachable("pve1", "the connection broke")
        return await send(method, path, parameters)

    monkeypatch.setattr(transport, "request", request)
    assert "It succeeded on no guest." in await client.refused("EvacuateNode", **NODE)
    error = await client.refused("EvacuateNode", **NODE, stop_at_failure=True)
    assert "Not sent: guest " in error
    assert error.count(" failed before.") == 1
    assert all(str(vmid) in error for vmid in vmids)


async def test_what_gets_no_place_within_the_wait_is_not_sent(client):
    vmids = everyone(client)
    client.change(task_wait_max_seconds=0)
    answer = await client("EvacuateNode", **NODE)
    rows = {row["vmid"]: row for row in answer.data["results"]}
    assert [vmid for vmid in vmids if rows[vmid]["success"]] == vmids[:2]
    assert "Repeat the call" in rows[vmids[-1]]["error"]
    assert len(sent(client)) == 2


async def test_more_guests_than_one_call_moves_wait_for_the_next(client, monkeypatch):
    monkeypatch.setattr("pvemcp_server.tools.maintenance.evacuation.MOST_GUESTS", 1)
    rows = await table(client)
    assert rows[100]["how"] == "online"
    assert rows[101]["why_not"] == "one call moves 1 guests: repeat it"
    answer = await client("EvacuateNode", **NODE)
    assert [row["vmid"] for row in answer.data["results"]] == [100]
    assert not answer.data["success"]
    assert answer.notes == "Left for further calls, as one moves 1: 1 guest of pve1."


async def test_a_question_has_no_names_of_guests_for_further_calls(client, monkeypatch):
    monkeypatch.setattr("pvemcp_server.tools.maintenance.evacuation.MOST_GUESTS", 1)
    first, *later = everyone(client)
    preview = await client("EvacuateNode", **NODE, dry_run=True)
    assert str(first) in preview.data["would"]
    assert not [vmid for vmid in later if str(vmid) in preview.data["would"]]


async def test_what_cannot_be_evacuated_is_refused(client):
    assert "pve3 on lab has no guests to move." in await client.refused(
        "EvacuateNode", **{**NODE, "node": "pve3"}
    )
    offline = resources(node_pve1={"status": "offline"})
    with altered(client["lab"], RESOURCES, offline):
        assert "is offline" in await client.refused("EvacuateNode", **NODE)
    alone = resources(node_pve2={"status": "offline"}, node_pve3={"status": "offline"})
    with altered(client["lab"], RESOURCES, alone):
        error = await client.refused("EvacuateNode", **NODE)
    assert error == "No other node of lab is online."
