"""A call: which clusters it reaches, and what it makes of those that fail."""

from dataclasses import replace

import pytest

from pvemcp_server.errors import CallError

pytestmark = pytest.mark.anyio


async def test_a_cluster_without_an_account_for_this_key_is_noted_and_the_others_answer(
    demo_client,
):
    _shut(demo_client, "home-lab")
    answer = await demo_client("ListVms")
    assert set(answer.column("cluster")) == {"prod"}
    assert "Cluster home-lab has no Proxmox token for this key." in answer.notes


async def test_when_no_cluster_has_an_account_that_is_the_error(demo_client):
    _shut(demo_client, "home-lab", "prod")
    assert "has no Proxmox token" in await demo_client.refused("ListVms")


async def test_cluster_names_are_found_without_their_case(tool_client):
    assert (await tool_client("ListNodes", cluster_name="PROD")).column("node")


async def test_the_only_cluster_need_not_be_named(tool_client):
    alone = replace(
        tool_client, sources=replace(tool_client.sources, connected={"prod": tool_client["prod"]})
    )
    assert (await alone("GetClusterStatus")).data["cluster"] == "prod"
    assert list((await alone("ListNodes")).data[0])[:2] == ["cluster", "node"]


def _shut(demo_client, *names):
    """Let clusters have no account for the caller."""
    open_ = demo_client.sources.open

    async def refusing(name, *rest):
        if name in names:
            raise CallError(f"Cluster {name} has no Proxmox token for this key.")
        return await open_(name, *rest)

    demo_client.sources.open = refusing
