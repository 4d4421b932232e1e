"""What `unknown` means: statistics are missing, and nothing else. Only `offline` is away."""

import anyio
import pytest

from proxmox_client.emulator import FaultKind
from pvemcp_server.access.model import Effect, Resources
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables import tables
from pvemcp_server.toolkit.registry import tools

from .altered import RESOURCES, altered, rows_changed, without_statistics
from .examples import PROD, add_old_volumes, examples
from .few_guests import few_guests

pytestmark = pytest.mark.anyio

SCENARIO = few_guests

NODE = PROD.node
WITHOUT_CLUSTER = {"GetQuerySchema", "ListClusters"}
SAYS_SO = {"GetAttention"}  # a node without statistics is a finding
CALLS = {name: call for name, call in examples(PROD).items() if name not in WITHOUT_CLUSTER}
READS = [name for name in CALLS if tools()[name].effect is Effect.READ and name not in SAYS_SO]
BY_ROOM = {"EvacuateNode"}  # chooses no node without statistics: test_evacuation.py
WRITES = [name for name in CALLS if not tools()[name].reads and name not in BY_ROOM]
KEYS = ("upid", "volid", "vmid", "id", "poolid", "storage", "node", "device", "time")


def identities(answer) -> list[tuple]:
    rows = answer.data if isinstance(answer.data, list) else [answer.data]
    # a shared storage may be listed at another node
    keys = [
        [k for k in KEYS if k != "node" or not {"volid", "full_on"} & row.keys()] for row in rows
    ]
    return [tuple(map(row.get, some)) for row, some in zip(rows, keys, strict=True)]


@pytest.fixture(scope="module", autouse=True)
def volumes(_module_client):
    add_old_volumes(_module_client["prod"].emulated.state, PROD)


@pytest.mark.parametrize("tool", READS)
async def test_a_node_without_statistics_is_read_like_any_other(tool_client, tool):
    tool_client.refresh()
    before = await tool_client(tool, **CALLS[tool])
    with altered(tool_client["prod"], RESOURCES, without_statistics(NODE)):
        answer = await tool_client(tool, **CALLS[tool])
    assert answer.failed == before.failed, answer.text
    if not answer.failed:
        assert identities(answer) == identities(before)
    assert f"missing here: {NODE}" not in answer.notes


@pytest.mark.parametrize("tool", WRITES)
async def test_a_node_without_statistics_is_written_to(tool_client, tool):
    tool_client.refresh()
    before = await tool_client(tool, **CALLS[tool], dry_run=True)
    nodes = (NODE, PROD.target_node)
    with altered(tool_client["prod"], RESOURCES, without_statistics(*nodes)):
        answer = await tool_client(tool, **CALLS[tool], dry_run=True)
    assert answer.failed is before.failed
    if before.failed:
        assert answer.text == before.text
    else:  # the room there is a figure: it is not known without statistics
        assert {**answer.data, "room": ""} == {**before.data, "room": ""}
        assert answer.data.get("room") == before.data.get("room") or "not known" in answer.text


@pytest.mark.parametrize(
    "table", [n for n, table in tables().items() if ClusterKind.PVE in table.kinds]
)
async def test_a_table_has_the_rows_of_a_node_without_statistics(tool_client, table):
    query = {"from": table, "select": ["COUNT(*) as n"]}
    call = {"cluster_name": "prod", "query": query}
    tool_client.refresh()
    before = await tool_client("ExecuteQuery", **call)
    with altered(tool_client["prod"], RESOURCES, without_statistics(NODE)):
        answer = await tool_client("ExecuteQuery", **call)
    assert answer.data == before.data
    assert f"missing here: {NODE}" not in answer.notes


async def test_the_status_names_offline_nodes_and_those_without_statistics(tool_client):
    with altered(tool_client["prod"], RESOURCES, without_statistics(NODE)):
        answer = await tool_client("GetClusterStatus", cluster_name="prod")
    assert (answer.data["nodes_online"], answer.data["offline_nodes"]) == (4, ["pve05"])
    assert answer.data["nodes_without_statistics"] == [NODE]
    assert f"no current statistics of {NODE} on prod" in answer.notes


@pytest.mark.parametrize("tool", ["ListVms", "ListStorage"])
@pytest.mark.parametrize(
    ("states", "words"),
    [
        ({"available", "running", "stopped"}, "rows there show the last known values."),
        ({"unknown"}, "state and use of the rows there are unknown, and so is what is empty"),
        (
            {"available", "running", "unknown"},
            "rows there show the last known values, or that the",
        ),
    ],
)
async def test_rows_of_an_offline_node_are_called_what_they_are(tool_client, tool, states, words):
    def reported(row):
        if row.get("node") != "pve05" or row["type"] == "node":
            return row
        possible = {"available", "unknown"} if row["type"] == "storage" else {"running", "unknown"}
        turn = sorted(possible & states)
        return row | {"status": turn[len(row["id"]) % len(turn)]}

    with altered(tool_client["prod"], RESOURCES, rows_changed(reported)):
        answer = await tool_client(tool, cluster_name="prod")
    assert f"Offline on prod: pve05; {words}" in answer.notes


async def test_lists_and_queries_of_nodes_name_those_without_statistics(tool_client):
    query = {"from": "nodes", "select": ["node"], "where": []}
    with altered(tool_client["prod"], RESOURCES, without_statistics(NODE)):
        answers = [
            await tool_client("ListNodes", cluster_name="prod"),
            await tool_client("ExecuteQuery", cluster_name="prod", query=query),
        ]
    for answer in answers:
        assert f"no current statistics of {NODE} on prod" in answer.notes
        assert "Offline" not in answer.notes  # rows of offline nodes say so themselves


@pytest.mark.parametrize("status", ["running", "stopped", "paused"])
async def test_a_filter_by_state_names_guests_of_unknown_state(tool_client, status):
    with altered(tool_client["prod"], RESOURCES, without_statistics(NODE)):
        answer = await tool_client("ListVms", cluster_name="prod", status=status)
    assert "leaves them out; GetVmStatus asks their node, unless it is offline." in answer.notes
    assert "no current statistics of pve01" in answer.notes
    assert "Offline on prod: pve05" in answer.notes


@pytest.mark.parametrize("tool", ["ListVms", "ExecuteQuery"])
async def test_no_call_is_advised_that_an_offline_node_refuses(tool_client, tool):
    where = {"conditions": [{"field": "status", "operator": "=", "value": "stopped"}]}
    arguments = {
        "ListVms": {"status": "stopped"},
        "ExecuteQuery": {"query": {"from": "guests", "where": where}},
    }
    answer = await tool_client(tool, cluster_name="prod", **arguments[tool])
    assert "Offline on prod: pve05" in answer.notes
    assert "GetVmStatus" not in answer.notes


@pytest.mark.parametrize("table", ["backups", "storage_content"])
@pytest.mark.parametrize("select", ["volid", "COUNT(*)"])
async def test_a_storage_that_cannot_be_read_is_named(tool_client, table, select):
    prod = tool_client["prod"]
    storages = {row["storage"] for row in (await tool_client("ListStorage")).data}
    fault = prod.emulated.fault(
        FaultKind.ERROR, path=".*/storage/", message="storage is not online"
    )
    try:
        with altered(prod, RESOURCES, without_statistics(*(f"pve0{n}" for n in range(1, 6)))):
            answer = await tool_client("ExecuteQuery", query={"from": table, "select": [select]})
    finally:
        prod.emulated.faults.remove(fault)
    assert storages
    assert "Missing from prod: content of storage" in answer.notes
    assert "not online" in answer.notes


async def test_the_status_does_not_wait_for_a_node_that_hangs(tool_client, monkeypatch):
    monkeypatch.setattr("pvemcp_server.tools.cluster.status.DETAIL_SECONDS", 0.3)
    prod = tool_client["prod"]
    fault = prod.emulated.fault(FaultKind.HANG, path="/nodes/pve02/")
    try:
        with anyio.fail_after(10):
            answer = await tool_client("GetClusterStatus", cluster_name="prod")
    finally:
        prod.emulated.faults.remove(fault)
    assert answer.data["quorate"]
    assert "Missing from prod: paused guests of node pve02" in answer.notes


# pve05 of the demo is offline; these tables have rows about what is on it, or would have
ON_NODES = [
    *("guests", "snapshots", "qemu_configs", "lxc_configs", "disks", "networks", "storages"),
    *("node_disks", "tasks", "backups", "storage_content", "addresses", "filesystems"),
    *(
        "bridges",
        "certificates",
        "clocks",
        "node_versions",
        "pci_devices",
        "services",
        "subscriptions",
    ),
    *("available_templates", "updates", "zfs_pools", "firewall_rules", "firewall_options", "smart"),
]


@pytest.mark.parametrize("table", ON_NODES)
@pytest.mark.parametrize("select", [[], ["COUNT(*) as n"]], ids=["rows", "a count"])
async def test_a_query_names_a_node_that_is_offline(tool_client, table, select):
    tool_client.refresh()
    answer = await tool_client("ExecuteQuery", query={"from": table, "select": select})
    assert "pve05" in answer.notes


@pytest.mark.parametrize(
    "tool",
    [
        *("ListVms", "ListSnapshots", "ListStorage", "ListNodeDisks", "ListTasks", "ListBackups"),
        "ListStorageRrdData",
    ],
)
async def test_a_list_names_a_node_that_is_offline(tool_client, tool):
    answer = await tool_client(tool, cluster_name="prod")
    assert "pve05" in answer.notes


@pytest.mark.parametrize("tool", ["ListVms", "ListNodes", "ListStorage", "ListBackups"])
async def test_an_empty_list_names_a_narrow_role(tool_client, tool):
    client = tool_client.scoped(Resources(pools=frozenset({"nothing-in-it"})))
    answer = await client(tool, cluster_name="prod")
    assert answer.data == []
    assert "The role of this key covers a part of prod only" in answer.notes


async def test_the_status_names_a_narrow_role(tool_client):
    client = tool_client.scoped(Resources(pools=frozenset({"nothing-in-it"})))
    answer = await client("GetClusterStatus", cluster_name="prod")
    assert answer.data["nodes_total"] == 0
    assert "covers a part of prod only, and no node in it" in answer.notes


async def test_a_storage_of_unknown_content_is_listed_and_written_to(demo_client):
    def change(row):
        return {k: v for k, v in row.items() if k != "content" or row["storage"] != "pbs-main"}

    place = {"cluster_name": "prod", "node": "pve01", "storage": "pbs-main"}
    before = len((await demo_client("ListBackups", **place)).data)
    with altered(demo_client["prod"], RESOURCES, rows_changed(change)):
        assert len((await demo_client("ListBackups", **place)).data) == before > 0
        assert (await demo_client("ListStorageContent", **place)).data
        backup = {"vmid": 101, "storage": "pbs-main", "dry_run": True}
        assert not (await demo_client("BackupVm", cluster_name="prod", **backup)).failed
