"""The clusters that a call reaches, and those that fail."""

import asyncio
import re
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from proxmox_client.emulator.gateway import Gateway
from pvemcp_server.access import limits
from pvemcp_server.access.model import Resources
from pvemcp_server.errors import CallError
from pvemcp_server.tables.registry import Shares
from pvemcp_server.toolkit import lists
from pvemcp_server.toolkit.registry import tools

from .examples import PROD, examples
from .fault_cases import cluster_is_down

pytestmark = pytest.mark.anyio


async def test_a_cluster_without_an_account_is_noted(
    demo_client,
):
    _remove_accounts(demo_client, "home-lab")
    answer = await demo_client("ListVms")
    assert set(answer.column("cluster")) == {"prod"}
    assert "Cluster home-lab has no Proxmox token for this key." in answer.notes


async def test_no_cluster_with_an_account_is_an_error(demo_client):
    _remove_accounts(demo_client, "home-lab", "prod")
    assert "has no Proxmox token" in await demo_client.refused("ListVms")


async def test_cluster_names_are_found_without_their_case(tool_client):
    assert (await tool_client("ListNodes", cluster_name="PROD")).column("node")


async def test_the_only_cluster_need_not_be_named(tool_client):
    alone = replace(
        tool_client, clusters=replace(tool_client.clusters, connected={"prod": tool_client["prod"]})
    )
    assert (await alone("GetClusterStatus")).data["cluster"] == "prod"
    assert list((await alone("ListNodes")).data[0])[:2] == ["cluster", "node"]


async def test_every_page_of_several_clusters_names_the_cluster_of_each_row(tool_client):
    whole = (await tool_client("ListNodes", format="JsonNormal")).data
    assert {row["cluster"] for row in whole} == {"home-lab", "prod"}
    pages, more = [], {}
    while len(pages) < len(whole):
        answer = await tool_client("ListNodes", format="JsonNormal", limit=2, **more)
        pages += answer.data
        more = {"cursor": answer.notes.rpartition("cursor=")[2]}
    assert [(row["cluster"], row["node"]) for row in pages] == [
        (row["cluster"], row["node"]) for row in whole
    ]


async def test_no_cluster_takes_all_places_of_a_key(tool_client, monkeypatch):
    monkeypatch.setattr(limits, "PLACE_SECONDS", 0.01)
    client = replace(tool_client, limits=limits.CallLimits())
    alone = {"prod": client["prod"]}
    async with AsyncExitStack() as running:
        for _ in range(6):  # of the eight places of a key
            await running.enter_async_context(client.limits.on_cluster("k", "prod", 8))
        for tool, arguments in examples(PROD).items():
            if "cluster_name" in arguments:
                text = await client.refused(tool, **arguments)
                assert text.startswith("This key has 6 calls on prod running already; 2 of"), tool
        assert (await client("ListNodes", cluster_name="home-lab")).data
        assert (await client("ListNodes")).column("cluster")[-1] == "prod"
        only = replace(client, clusters=replace(client.clusters, connected=alone))
        assert (await only("ListNodes", cluster_name="prod")).data
        assert (await replace(client, key_id="other")("ListNodes", cluster_name="prod")).data
    assert (await client("ListNodes", cluster_name="prod")).data


async def test_a_call_beyond_the_places_of_a_cluster_waits_for_the_end_of_one(tool_client):
    client = replace(tool_client, limits=limits.CallLimits())
    answers = await asyncio.gather(
        *(client("GetClusterStatus", cluster_name="prod") for _ in range(8))
    )
    assert not any(answer.failed for answer in answers)


def _remove_accounts(demo_client, *names):
    """Leave the caller without a Proxmox account on these clusters."""
    open_ = demo_client.clusters.open

    async def refusing(name, *rest):
        if name in names:
            raise CallError(f"Cluster {name} has no Proxmox token for this key.")
        return await open_(name, *rest)

    demo_client.clusters.open = refusing


FOUND = {
    name: {key: value for key, value in arguments.items() if key != "cluster_name"}
    for name, arguments in examples(replace(PROD, vmid=300, other_vmid=301, moved_vmid=300)).items()
    if "Cluster, if several" in str(tools()[name].input_schema["properties"]) and name != "Undo"
} | {"ListNodeRrdData": {"nodes": ["pve01"]}}


@pytest.mark.parametrize("tool", FOUND)
async def test_a_guest_or_node_of_one_cluster_needs_no_cluster_name(tool_client, tool):
    dry = {} if tools()[tool].reads else {"dry_run": True}
    named = await tool_client(tool, cluster_name="prod", **FOUND[tool], **dry)
    answer = await tool_client(tool, **FOUND[tool], **dry)
    assert answer.failed == named.failed
    assert "cluster" not in answer.text or "prod" in answer.text
    assert tool_client.audit.events[-1][1].cluster == "prod"
    assert (answer.text == named.text) or not answer.failed  # figures change from call to call


@pytest.mark.parametrize("tool", [name for name in FOUND if "vmid" in FOUND[name]])
async def test_a_guest_of_several_clusters_is_described_on_each(tool_client, tool):
    error = await tool_client.refused(tool, **{**FOUND[tool], "vmid": 101})
    assert error == (
        "cluster_name: say which cluster; home-lab has 101 (qemu homeassistant on pve, running); "
        "prod has 101 (qemu db-primary on pve01, running)."
    )


@pytest.mark.parametrize("tool", [name for name in FOUND if "node" in FOUND[name]])
async def test_a_node_of_several_clusters_is_described_on_each(tool_client, tool):
    both = {"prod": tool_client["prod"], "twin": tool_client["prod"]}
    client = replace(tool_client, clusters=replace(tool_client.clusters, connected=both))
    error = await client.refused(tool, **FOUND[tool])
    known = "prod has pve01 (online); twin has pve01 (online)"
    assert error == f"cluster_name: say which cluster; {known}."


async def test_a_cluster_without_an_answer_may_have_the_guest_too(demo_client):
    await cluster_is_down(demo_client)
    demo_client.refresh()
    error = await demo_client.refused("GetVmStatus", vmid=300)
    assert error == (
        "cluster_name: say which cluster; prod has 300 (lxc dns-1 on pve01, running); "
        "home-lab does not answer."
    )


async def test_a_guest_that_the_role_hides_elsewhere_is_not_described(tool_client):
    narrow = tool_client.scoped(Resources(tags=frozenset({"production"})))
    assert (await narrow("GetVmStatus", vmid=101)).data["cluster"] == "prod"
    error = await narrow.refused("GetVmStatus", vmid=300)
    assert error.startswith("No guest 300 on any cluster you reach. There are ")


@pytest.mark.parametrize("tool", ["GetVmConfig", "GetVmStatus", "CreateVmSnapshot", "BackupVm"])
async def test_a_guest_of_another_cluster_is_found_there(tool_client, tool):
    more = {"snapshot_name": "new"} if tool == "CreateVmSnapshot" else {}
    error = await tool_client.refused(tool, cluster_name="home-lab", vmid=300, **more)
    assert error.startswith("No guest 300 on home-lab. ")
    assert error.endswith(" It is on prod: give cluster_name.")


async def test_a_guest_that_another_cluster_hides_is_not_named(tool_client):
    narrow = tool_client.scoped(Resources(pools=frozenset({"web"})))
    for vmid in (300, 999_999):  # a guest outside of the pool, and none
        error = await narrow.refused("GetVmStatus", cluster_name="home-lab", vmid=vmid)
        assert "cluster_name" not in error


async def test_an_unknown_guest_is_answered_with_some_numbers_and_how_many_more(tool_client):
    error = await tool_client.refused("GetVmStatus", cluster_name="prod", vmid=777_777_777)
    assert re.search(r"There are \d+, \d+, \d+, \d+, \d+ and \d{2,} more\.$", error)


@pytest.mark.parametrize(
    ("tool", "argument", "column"),
    [("ListVms", "node", "node"), ("ListVms", "Name", "Name"), ("ListStorage", "node", "node")],
)
async def test_a_filter_that_a_list_does_not_have_points_to_queries(
    tool_client, tool, argument, column
):
    error = await tool_client.refused(tool, **{argument: "x"})
    assert error.endswith(f"ExecuteQuery filters by {column}.")


async def test_a_name_in_place_of_a_number_says_where_numbers_are(tool_client):
    for tool, arguments in (("GetVmStatus", {"vmid": "web"}), ("ListSnapshots", {"vmids": "web"})):
        error = await tool_client.refused(tool, cluster_name="prod", **arguments)
        assert "ListVms shows the number of each name." in error


async def test_many_reads_of_one_key_do_not_delay_another_key(demo_client, monkeypatch):
    answer, answered, busy = Gateway.answer, [], asyncio.Event()

    async def recorded(gateway, request):
        answered.append(request.path)
        if len(answered) == 10:
            busy.set()
        await asyncio.sleep(0)
        return await answer(gateway, request)

    monkeypatch.setattr(Gateway, "answer", recorded)
    await demo_client("ListVms", cluster_name=PROD.cluster)  # the inventory is cached from here on
    tables = ("firewall_options", "firewall_rules", "snapshots")
    queries = [
        asyncio.create_task(
            demo_client("ExecuteQuery", cluster_name=PROD.cluster, query={"from": table})
        )
        for table in tables
    ]
    await busy.wait()
    before = len(answered)
    other = replace(demo_client, key_id="other")
    status = await other("GetVmStatus", cluster_name=PROD.cluster, vmid=101)
    others = len(answered) - before
    assert not status.failed
    await asyncio.gather(*queries)
    assert others < 60 < len(answered) / 4


BUDGETED = {"ListBackups": {}, "GetBackupContents": {"backup": 9_999}, "GetAttention": {}}


@pytest.mark.parametrize("tool", BUDGETED)
async def test_a_call_to_all_clusters_shares_one_budget_of_requests(tool_client, monkeypatch, tool):
    monkeypatch.setattr(lists, "Shares", lambda _most: Shares(4))
    tool_client.refresh()
    names = ("home-lab", "prod")
    for name in names:
        tool_client.requests(name)
    answer = await tool_client(tool, **BUDGETED[tool])
    sent = [
        sum(path.startswith("GET /nodes/") for path in tool_client.requests(name)) for name in names
    ]
    assert 0 < sum(sent) <= 4, answer.text
