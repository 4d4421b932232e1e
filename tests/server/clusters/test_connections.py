"""Connections: one client and one inventory for each cluster and Proxmox identity."""

import anyio
import pytest

from pvemcp_server.access.model import EVERYTHING, Resources
from pvemcp_server.clusters import Notes, connections
from pvemcp_server.errors import CallError, UnknownName

pytestmark = pytest.mark.anyio


async def add_identity(access, new_token, name: str) -> int:
    """Add a token of the emulated cluster without privileges."""
    token_id, secret = new_token(name)
    await access.clusters.add_identity("lab", name, token_id=token_id, secret=secret)
    return (await access.clusters.identity("lab", name)).id


async def test_callers_of_one_identity_share_client_and_inventory(clusters):
    first = await clusters.open("lab", {}, EVERYTHING, Notes())
    second = await clusters.open("lab", {}, EVERYTHING, Notes())
    assert first.pve is second.pve
    assert first.inventory is second.inventory


async def test_each_identity_has_its_own_client_and_inventory(clusters, access, new_token):
    bound = await add_identity(access, new_token, "narrow")
    default = await clusters.open("lab", {}, EVERYTHING, Notes())
    narrow = await clusters.open("lab", {"lab": bound}, EVERYTHING, Notes())
    assert default.inventory is not narrow.inventory
    assert default.pve._pool is narrow.pve._pool, "a cluster's limits hold for all its accounts"
    assert len((await default.inventory_view()).guests) == 6
    assert (await narrow.inventory_view()).guests == ()
    assert narrow.account.endswith("!narrow")


async def test_a_binding_to_a_removed_identity_never_uses_the_default(clusters):
    with pytest.raises(CallError, match="no Proxmox token for this key"):
        await clusters.open("lab", {"lab": 999}, EVERYTHING, Notes())


async def test_a_changed_cluster_is_opened_again(clusters, access, store):
    before = await clusters.open("lab", {}, EVERYTHING, Notes())
    await access.clusters.change("lab", description="changed")
    await store.watch.poll()
    after = await clusters.open("lab", {}, EVERYTHING, Notes())
    assert after.description == "changed"
    assert after.pve is not before.pve


async def test_configuration_read_before_a_change_is_not_cached(
    clusters, access, store, monkeypatch
):
    await clusters.open("lab", {}, EVERYTHING, Notes())
    await clusters.forget()
    read = store.clusters.all

    async def read_and_then_change():
        records = await read()
        monkeypatch.setattr(store.clusters, "all", read)
        await access.clusters.change("lab", description="changed")
        await store.watch.poll()
        return records

    monkeypatch.setattr(store.clusters, "all", read_and_then_change)
    await clusters.open("lab", {}, EVERYTHING, Notes())
    after = await clusters.open("lab", {}, EVERYTHING, Notes())
    assert after.description == "changed"


async def test_a_replaced_client_is_closed_after_its_calls(clusters, access, store, monkeypatch):
    before = await clusters.open("lab", {}, EVERYTHING, Notes())
    closed, close = anyio.Event(), before.pve.aclose

    async def closing() -> None:
        await close()
        closed.set()

    monkeypatch.setattr(before.pve, "aclose", closing)
    monkeypatch.setattr(connections, "LONGEST_CALL", 2.0)
    await access.clusters.change("lab", description="changed")
    await store.watch.poll()
    assert await before.pve.version()
    assert not closed.is_set()
    with anyio.fail_after(10):
        await closed.wait()


async def test_an_unknown_cluster_error_names_the_configured_ones(clusters):
    with pytest.raises(UnknownName, match="lab"):
        await clusters.open("lap", {}, EVERYTHING, Notes())


async def test_a_guest_outside_the_scope_looks_missing(clusters):
    whole = await clusters.open("lab", {}, EVERYTHING, Notes())
    visible, hidden, *_ = (guest.vmid for guest in (await whole.inventory_view()).guests)
    scope = Resources(vmids=frozenset({visible}))
    narrow = await clusters.open("lab", {}, scope, Notes())
    with pytest.raises(UnknownName) as of_hidden:
        await narrow.guest(hidden)
    with pytest.raises(UnknownName) as of_missing:
        await narrow.guest(109)
    assert str(of_hidden.value).replace(str(hidden), "N") == str(of_missing.value).replace(
        "109", "N"
    )


async def test_a_failure_of_one_node_is_noted_and_the_others_answered(clusters, lab):
    notes = Notes()
    cluster = await clusters.open("lab", {}, EVERYTHING, notes)
    nodes = [node.node for node in (await cluster.inventory_view()).nodes]
    await lab.node_down(nodes[-1])
    answers, missing = await cluster.ask_all(nodes, lambda node: cluster.pve.node(node).status())
    cluster.note_missing(missing, "node")
    assert list(answers) == nodes[:-1]
    assert any(f"node {nodes[-1]}" in line for line in notes)
