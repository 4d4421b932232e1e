"""One client and one inventory per cluster and Proxmox identity."""

import anyio
import pytest

from pvemcp_server.access.model import EVERYTHING, Caller, Grant, Resources, Role
from pvemcp_server.clusters import Notes, connections
from pvemcp_server.errors import CallError, UnknownName

pytestmark = pytest.mark.anyio
ROLE = Role(1, "all", "", (Grant(frozenset({"*"})),))


def caller(**identities: int) -> Caller:
    return Caller("k", "key", ROLE, identities=identities)


async def add_identity(access, new_token, name: str) -> int:
    """Another token of the emulated cluster, with no rights of its own."""
    token_id, secret = new_token(name)
    await access.clusters.add_identity("lab", name, token_id=token_id, secret=secret)
    return (await access.clusters.identity("lab", name)).id


async def test_callers_of_one_identity_share_client_and_inventory(clusters):
    one = await clusters.open("lab", caller(), EVERYTHING, Notes())
    two = await clusters.open("lab", caller(), EVERYTHING, Notes())
    assert one.pve is two.pve
    assert one.inventory is two.inventory


async def test_another_identity_has_a_client_and_an_inventory_of_its_own(
    clusters, access, new_token
):
    bound = await add_identity(access, new_token, "narrow")
    default = await clusters.open("lab", caller(), EVERYTHING, Notes())
    narrow = await clusters.open("lab", caller(lab=bound), EVERYTHING, Notes())
    assert default.inventory is not narrow.inventory
    assert default.pve._pool is narrow.pve._pool, "a cluster's limits hold for all its accounts"
    assert len((await default.inventory_view()).guests) == 6
    assert (await narrow.inventory_view()).guests == ()
    assert narrow.account.endswith("!narrow")


async def test_a_binding_whose_identity_is_gone_never_falls_back_to_another_account(clusters):
    with pytest.raises(CallError, match="no Proxmox token for this key"):
        await clusters.open("lab", caller(lab=999), EVERYTHING, Notes())


async def test_a_reconfigured_cluster_is_opened_anew(clusters, access, store):
    before = await clusters.open("lab", caller(), EVERYTHING, Notes())
    await access.clusters.change("lab", description="changed")
    await store.watch.now()
    after = await clusters.open("lab", caller(), EVERYTHING, Notes())
    assert after.description == "changed"
    assert after.pve is not before.pve


async def test_what_was_read_before_a_change_is_not_kept_after_it(
    clusters, access, store, monkeypatch
):
    await clusters.open("lab", caller(), EVERYTHING, Notes())
    await clusters.forget()
    read = store.clusters.all

    async def read_and_then_change():
        found = await read()
        monkeypatch.setattr(store.clusters, "all", read)
        await access.clusters.change("lab", description="changed")
        await store.watch.now()
        return found

    monkeypatch.setattr(store.clusters, "all", read_and_then_change)
    await clusters.open("lab", caller(), EVERYTHING, Notes())
    after = await clusters.open("lab", caller(), EVERYTHING, Notes())
    assert after.description == "changed"


async def test_a_replaced_client_serves_its_calls_to_their_end_and_is_closed_after_them(
    clusters, access, store, monkeypatch
):
    before = await clusters.open("lab", caller(), EVERYTHING, Notes())
    closed, close = anyio.Event(), before.pve.aclose

    async def closing() -> None:
        await close()
        closed.set()

    monkeypatch.setattr(before.pve, "aclose", closing)
    monkeypatch.setattr(connections, "LONGEST_CALL", 2.0)
    await access.clusters.change("lab", description="changed")
    await store.watch.now()
    assert await before.pve.version()
    assert not closed.is_set()
    with anyio.fail_after(10):
        await closed.wait()


async def test_an_unknown_cluster_is_named_with_those_there_are(clusters):
    with pytest.raises(UnknownName, match="lab"):
        await clusters.open("lap", caller(), EVERYTHING, Notes())


async def test_a_guest_outside_the_scope_is_answered_like_one_that_does_not_exist(clusters):
    whole = await clusters.open("lab", caller(), EVERYTHING, Notes())
    seen, hidden, *_ = (guest.vmid for guest in (await whole.inventory_view()).guests)
    scope = Resources(vmids=frozenset({seen}))
    narrow = await clusters.open("lab", caller(), scope, Notes())
    with pytest.raises(UnknownName) as of_hidden:
        await narrow.guest(hidden)
    with pytest.raises(UnknownName) as of_missing:
        await narrow.guest(109)
    assert str(of_hidden.value).replace(str(hidden), "N") == str(of_missing.value).replace(
        "109", "N"
    )


async def test_what_fails_for_one_key_is_noted_and_the_rest_is_answered(clusters, lab):
    notes = Notes()
    cluster = await clusters.open("lab", caller(), EVERYTHING, notes)
    nodes = [one.node for one in (await cluster.inventory_view()).nodes]
    await lab.node_down(nodes[-1])
    found = await cluster.each(nodes, lambda node: cluster.pve.node(node).status(), what="node")
    assert list(found) == nodes[:-1]
    assert any(f"node {nodes[-1]}" in line for line in notes)
