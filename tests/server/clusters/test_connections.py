"""Connections: one client and one inventory for each cluster and Proxmox identity."""

import gc
from asyncio import gather
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from time import monotonic
from weakref import ref

import anyio
import pytest
from psutil import Process

from proxmox_client import SocketBudget, Unauthenticated
from pvemcp_server.access import Access
from pvemcp_server.access.model import EVERYTHING, Resources
from pvemcp_server.clusters import Clusters, Notes, connections
from pvemcp_server.clusters.connections import OWN_IDLE_SECONDS, Connection
from pvemcp_server.errors import CallError, UnknownName
from pvemcp_server.store import Store

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


async def test_a_write_by_one_account_outdates_the_inventories_of_all(clusters, access, new_token):
    second = await add_identity(access, new_token, "second")
    cluster = await clusters.open("lab", {}, EVERYTHING, Notes())
    others = (await clusters.connection("lab", second)).inventory
    cluster.changed()
    assert others._written > 0
    assert cluster.inventory._written > 0


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
    await access.clusters.change("lab", description="first")
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


@dataclass
class Fleet:
    """Two clusters of this process and of another one that has the same state."""

    access: Access
    store: Store
    own: Clusters
    other: Clusters
    other_store: Store
    bound: int
    of_user: int

    async def changed(self) -> None:
        """Let both processes see a change."""
        await self.store.watch.poll()
        await self.other_store.watch.poll()

    async def opened(self) -> dict[str, dict[str, Connection]]:
        """Open all connections of both processes: by process, then by cluster and identity."""
        places = {
            "lab": ("lab", None),
            "lab narrow": ("lab", self.bound),
            "lab user": ("lab", self.of_user),
            "twin": ("twin", None),
        }
        found: dict[str, dict[str, Connection]] = {"own": {}, "other": {}}
        for process, clusters in (("own", self.own), ("other", self.other)):
            for title, (name, identity) in places.items():
                with suppress(UnknownName, CallError):
                    found[process][title] = await clusters.connection(name, identity)
        return found


@pytest.fixture
async def fleet(clusters, access, store, other_store, lab, new_token) -> AsyncIterator[Fleet]:
    token_id, secret = lab.token
    await access.clusters.create("twin", lab.hosts, token_id=token_id, secret=secret)
    bound = await add_identity(access, new_token, "narrow")
    key, _ = await access.keys.create("user")
    token_id, secret = new_token("user")
    record = await access.clusters.get("lab")
    of_user = await store.identities.add(
        cluster_id=record.id,
        connection_id=key.id,
        name="user",
        token_id=token_id,
        secret=secret,
    )
    async with aclosing(Clusters(other_store, lambda: 3600.0)) as other:
        yield Fleet(access, store, clusters, other, other_store, bound, of_user.id)


async def move(fleet: Fleet) -> None:
    secrets = dict.fromkeys(("default", "narrow", "third"), "another")
    await fleet.access.clusters.change("lab", hosts=["lab.example"], secrets=secrets)


LAB = {"lab", "lab narrow", "lab user"}
CHANGES = {
    "another cluster": (lambda f: f.access.clusters.change("twin", description="x"), {"twin"}),
    "a removed cluster": (lambda f: f.access.clusters.remove("twin"), {"twin"}),
    "a new cluster": (
        lambda f: f.access.clusters.create(
            "new", ["new.example"], token_id="mcp@pve!bb", secret="secret"
        ),
        set(),
    ),
    "a new identity": (
        lambda f: f.access.clusters.add_identity(
            "lab", "third", token_id="mcp@pve!cc", secret="secret"
        ),
        set(),
    ),
    "a binding": (lambda f: f.access.clusters.bind("lab", "narrow", key="user"), set()),
    "a replaced secret": (
        lambda f: f.access.clusters.change_identity("lab", "narrow", secret="another"),
        {"lab narrow"},
    ),
    "the same secret again": (
        lambda f: f.access.clusters.change_identity("lab", "narrow", secret="another"),
        {"lab narrow"},
    ),
    "another token": (
        lambda f: f.access.clusters.change_identity("lab", "narrow", token_id="mcp@pve!dd"),
        {"lab narrow"},
    ),
    "another default": (
        lambda f: f.access.clusters.make_default("lab", "narrow"),
        {"lab", "lab narrow"},
    ),
    "the end of a user's connection": (
        lambda f: f.store.identities.remove(f.of_user),
        {"lab user"},
    ),
    "other hosts": (move, LAB),
}


async def test_a_change_opens_again_what_it_changed_and_nothing_else(fleet):
    before = await fleet.opened()
    assert before["own"].keys() == before["other"].keys() == LAB | {"twin"}
    for title, (change, changed) in CHANGES.items():
        await change(fleet)
        await fleet.changed()
        after = await fleet.opened()
        for process, were_open in before.items():
            kept = {name for name, each in were_open.items() if after[process].get(name) is each}
            assert were_open.keys() - kept == changed & were_open.keys(), (title, process)
        before = after


async def test_a_change_keeps_sockets_of_the_cluster_when_only_an_identity_changed(fleet):
    before = (await fleet.opened())["own"]["lab narrow"]
    await fleet.access.clusters.change_identity("lab", "narrow", secret="another")
    await fleet.changed()
    after = (await fleet.opened())["own"]["lab narrow"]
    assert after.client is not before.client
    assert after.client._pool is before.client._pool


async def test_a_secret_replaced_while_it_is_read_is_read_again(clusters, access, store):
    read = store.identities.secret

    async def read_and_then_change(identity, record):
        old = await read(identity, record)
        store.identities.secret = read
        await access.clusters.change_identity("lab", "default", secret="another")
        await store.watch.poll()
        return old

    store.identities.secret = read_and_then_change
    connection = await clusters.connection("lab")
    with pytest.raises(Unauthenticated):  # the old one is still valid at Proxmox
        await connection.client.version()


async def test_a_replaced_client_ends_its_calls_and_leaves_no_socket(clusters, access, store):
    base = sockets()
    before = await clusters.open("lab", {}, EVERYTHING, Notes())
    await before.pve.version()
    assert sockets() > base
    for number in range(3):
        await access.clusters.change("lab", description=str(number))
        await store.watch.poll()
        await eventually(lambda: sockets() == base)
        assert await before.pve.version(), "a call in progress goes on"
        await eventually(lambda: sockets() == base)
        after = await clusters.open("lab", {}, EVERYTHING, Notes())
        await after.pve.version()
        assert sockets() > base


async def test_clusters_beyond_the_bound_of_sockets_wait_and_answer(fleet, store, lab):
    names = ["lab", *(f"lab {number}" for number in range(5))]
    token_id, secret = lab.token
    record = await fleet.access.clusters.get("lab")
    trust = {"tls_mode": record.tls_mode, "fingerprints": record.fingerprints}
    for name in names[1:]:
        await fleet.access.clusters.create(
            name, lab.hosts, token_id=token_id, secret=secret, **trust
        )
    base, budget, most = sockets(), SocketBudget(2), 0
    async with aclosing(Clusters(store, lambda: 0.0, sockets=budget)) as clusters:

        async def read(name: str) -> int:
            nonlocal most
            cluster = await clusters.open(name, {}, EVERYTHING, Notes())
            view = await cluster.inventory_view()
            most = max(most, budget.used)
            return len(view.guests)

        assert await gather(*map(read, names * 3)) == [6] * len(names) * 3
        assert most <= 2
    assert budget.used == 0
    await eventually(lambda: sockets() == base)


def sockets() -> int:
    """Count the sockets that this process has open to an emulator, at both ends."""
    return sum(each.status == "ESTABLISHED" for each in Process().net_connections("tcp"))


async def eventually(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not holds():  # noqa: ASYNC110 - the system closes sockets
            await anyio.sleep(0.005)


async def test_the_connection_of_a_user_is_forgotten_when_idle(fleet, monkeypatch):
    before = (await fleet.opened())["own"]
    fleet.own.forget_idle()
    later = monotonic() + OWN_IDLE_SECONDS + 1
    assert (await fleet.opened())["own"] == before
    monkeypatch.setattr(connections, "monotonic", lambda: later)
    fleet.own.forget_idle()
    after = (await fleet.opened())["own"]
    assert {title for title in before if after[title] is not before[title]} == {"lab user"}


async def test_nothing_of_an_ended_connection_is_kept(fleet):
    before = (await fleet.opened())["own"]
    gone = [ref(each) for each in (before["lab user"], before["twin"])]
    del before
    await fleet.store.identities.remove(fleet.of_user)
    await fleet.access.clusters.remove("twin")
    await fleet.changed()
    gc.collect()
    assert [each() for each in gone] == [None, None]


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
