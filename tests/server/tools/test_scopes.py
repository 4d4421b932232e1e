"""A role for some resources sees and changes only those, with every tool."""

import json

import pytest

from pvemcp_server.access.model import Resources
from pvemcp_server.toolkit.registry import tools

from .examples import PROD as PLACE
from .examples import examples

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}
ONE_GUEST = Resources(vmids=frozenset({105}))

# Calls about a guest or a node that ONE_GUEST does not cover; lists filter instead of refusing
OUTSIDE = {
    name: arguments
    for name, arguments in examples(PLACE).items()
    if {"vmid", "vmids", "node"} & arguments.keys() and name != "ListBackups"
} | {
    "ListSnapshots": {**PROD, "vmids": [101]},
    "ListNodeRrdData": {**PROD, "nodes": ["pve01"]},
    "ListNodeDisks": {**PROD, "node": "pve01"},
}


@pytest.mark.parametrize("tool", OUTSIDE)
async def test_things_not_granted_are_answered_like_unknown_ones(demo_client, tool):
    scoped = demo_client.scoped(ONE_GUEST)
    error = await scoped.refused(tool, **OUTSIDE[tool])
    assert error.startswith("No "), error
    assert "db-primary" not in error
    assert not any(one.startswith(("POST", "DELETE")) for one in demo_client.requests("prod"))


LISTS = {
    name: {} if name == "ListClusters" else PROD
    for name, tool in tools().items()
    if tool.lists and tool.input_schema.get("required", []) == []
} | {"ListVmRrdData": {**PROD, "vmids": [105]}}


@pytest.mark.parametrize("tool", LISTS)
async def test_lists_show_nothing_of_other_guests(tool_client, tool):
    answer = await tool_client.scoped(ONE_GUEST)(tool, **LISTS[tool])
    assert not answer.failed, answer.text
    everybody = tool_client["prod"].emulated.state.guests
    others = {guest.name for vmid, guest in everybody.items() if vmid != 105}
    shown = {str(value) for row in answer.data for value in row.values()}
    assert not others & shown
    assert not any(name in answer.notes for name in others)
    vmids = {row["vmid"] for row in answer.data if row.get("vmid") is not None}
    assert vmids <= {105}


async def test_the_health_of_a_cluster_counts_what_is_granted(tool_client):
    found = (await tool_client.scoped(ONE_GUEST)("GetClusterStatus", **PROD)).data
    assert (found["vms"]["total"], found["containers"]["total"]) == (1, 0)
    assert found["nodes_total"] == 0


async def test_a_role_for_a_tag_sees_its_guests(tool_client):
    state = tool_client["prod"].emulated.state
    answer = await tool_client.scoped(Resources(tags=frozenset({"staging"})))("ListVms", **PROD)
    tagged = [
        one
        for one in state.guests.values()
        if "staging" in str(one.config.get("tags", "")).split(";")
    ]
    # of guests on a node that is offline Proxmox forgets the tags
    online = {one.vmid for one in tagged if state.nodes[one.node].online}
    assert online
    assert online <= set(answer.column("vmid")) <= {one.vmid for one in tagged}


async def test_a_role_for_a_pool_may_back_up_to_any_storage(demo_client):
    scoped = demo_client.scoped(Resources(pools=frozenset({"production"})))
    call = {**PROD, "vmid": 105, "storage": "pbs-main", "dry_run": True}
    assert (await scoped("BackupVm", **call)).data["storage"] == "pbs-main"
    narrower = demo_client.scoped(
        Resources(pools=frozenset({"production"}), storages=frozenset({"nfs-archive"}))
    )
    error = await narrower.refused("BackupVm", **call)
    assert error == "No storage 'pbs-main' on pve01 of prod. There is nfs-archive."


async def test_a_role_for_one_node_migrates_only_to_that_node(demo_client):
    scoped = demo_client.scoped(Resources(vmids=frozenset({105}), nodes=frozenset({"pve02"})))
    call = {**PROD, "vmid": 105, "online": True, "dry_run": True}
    assert (await scoped("MigrateVm", **call, target_node="pve02")).data["dry_run"]
    error = await scoped.refused("MigrateVm", **call, target_node="pve03")
    assert error.startswith("No node 'pve03' on prod.")


async def test_errors_never_name_hidden_things(tool_client):
    scoped = tool_client.scoped(ONE_GUEST)
    error = await scoped.refused("GetVmConfig", **PROD, vmid=104)
    assert error == "No guest 104 on prod. Did you mean 105?"
    error = await scoped.refused("GetNodeStatus", **PROD, node="pve0")
    assert error == "No node 'pve0' on prod."


async def test_explain_access_has_the_scope_and_nothing_else(tool_client):
    answer = await tool_client.scoped(ONE_GUEST)("ExplainAccess", **PROD)
    assert answer.data["clusters"][0]["granted"][0]["resources"] == {"vmids": [105]}
    assert "db-primary" not in json.dumps(answer.data)
