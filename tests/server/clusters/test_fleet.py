"""Inventories of several processes on one PostgreSQL database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, fields, replace
from pathlib import Path

import anyio
import pytest
from tests.server.store.part import taking_part

from proxmox_client import Unreachable
from proxmox_client.emulator.cluster import EmulatedCluster
from pvemcp_server.access import Access, open_access
from pvemcp_server.access.model import EVERYTHING
from pvemcp_server.clusters import Cluster, Clusters, InventoryView, Notes, shared_inventory
from pvemcp_server.clusters.inventory import POOLED
from pvemcp_server.config import Config
from pvemcp_server.errors import StateUnavailable
from pvemcp_server.store import Store, open_store, watch

from .conftest import add_lab

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


@pytest.fixture
def config(tmp_path: Path, new_postgres_database: Callable[[], str]) -> Config:
    return Config(state_dir=tmp_path / "var", database_url=new_postgres_database())


@dataclass
class Process:
    """One process of the fleet, as far as it reads clusters."""

    store: Store
    clusters: Clusters
    access: Access

    async def open(self, identity: int | None = None) -> Cluster:
        identities = {} if identity is None else {"lab": identity}
        return await self.clusters.open("lab", identities, EVERYTHING, Notes())

    async def read(self, identity: int | None = None) -> Cluster:
        cluster = await self.open(identity)
        await cluster.inventory_view()
        return cluster


@pytest.fixture
async def fleet(
    config: Config, store: Store, lab: EmulatedCluster, monkeypatch
) -> AsyncIterator[list[Process]]:
    """Start two processes whose inventories stay fresh for an hour; they poll for calls only."""
    monkeypatch.setattr(watch, "LISTEN_SECONDS", 3600.0)
    async with AsyncExitStack() as stack:
        access = await stack.enter_async_context(open_access(store))
        await add_lab(access, lab)
        other = await stack.enter_async_context(open_store(config))
        stores = [store, other]
        each = [
            await stack.enter_async_context(aclosing(Clusters(opened, lambda: 3600.0)))
            for opened in stores
        ]
        await stack.enter_async_context(taking_part(*stores))
        yield [Process(*pair, access) for pair in zip(stores, each, strict=True)]


async def is_outdated(cluster: Cluster) -> None:
    """Wait until the process knows of a write after its inventory."""
    inventory = cluster.inventory
    with anyio.fail_after(5):
        while inventory._written <= inventory.latest.taken:  # noqa: ASYNC110 - the other process notifies
            await anyio.sleep(0.005)


async def test_a_write_by_one_process_outdates_the_inventory_of_the_other(fleet, requests):
    one, other = fleet
    ours, theirs = await one.read(), await other.read()
    before = len(requests)
    ours.changed()
    await is_outdated(theirs)
    view = await (await other.open()).inventory_view()
    assert view.taken > theirs.inventory._written
    assert len(requests) == before + 1


async def test_a_process_does_not_outdate_what_it_read_after_its_own_write(fleet, requests):
    one, other = fleet
    ours, theirs = await one.read(), await other.read()
    ours.changed()
    after = await (await one.open()).inventory_view()
    await is_outdated(theirs)  # by then the own note has arrived too
    await one.store.watch.poll()
    assert await (await one.open()).inventory_view() is after


async def test_a_note_that_could_not_be_stored_is_stored_later(fleet, monkeypatch):
    one, other = fleet
    ours, theirs = await one.read(), await other.read()
    stores, failures = one.store.cluster_writes._store, iter([True])

    async def store(noted):
        if next(failures, False):
            raise OSError("no answer")
        await stores(noted)

    monkeypatch.setattr("pvemcp_server.store.cluster_writes.RETRY_SECONDS", 0.01)
    monkeypatch.setattr(one.store.cluster_writes, "_store", store)
    ours.changed()
    await is_outdated(theirs)


async def test_a_process_that_heard_nothing_finds_a_write_with_its_next_call(fleet, monkeypatch):
    one, other = fleet
    ours, theirs = await one.read(), await other.read()
    monkeypatch.setattr(other.store.watch, "_receive", lambda _text: None)
    other.store.fleet.on_message("changed", lambda _text: None)
    ours.changed()
    await one.store.cluster_writes.flush()
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.0)  # half a second later
    after = await (await other.open()).inventory_view()
    assert after.taken > theirs.inventory._written > 0


async def views(fleet: list[Process]) -> list[InventoryView]:
    """Read the inventory in all processes at once."""
    clusters = [await process.open() for process in fleet]
    return list(await asyncio.gather(*(cluster.inventory_view() for cluster in clusters)))


async def grow_old(fleet: list[Process], seconds: float = 7200.0) -> None:
    """Let the inventories of all processes, and the published one, be older."""
    for process in fleet:
        for connection in process.clusters._open.values():
            latest = connection.inventory._latest
            connection.inventory._latest = replace(latest, taken=latest.taken - seconds)
    await fleet[0].store.fleet.fetch("UPDATE inventories SET taken = taken - $1", seconds)


async def know_each_other(fleet: list[Process]) -> None:
    """Wait until each process knows of the others."""
    for process in fleet:
        await process.store.fleet._beat(process.store.fleet._session)
        assert process.store.shared_inventories.are_used


async def test_all_processes_ask_proxmox_once_per_period(fleet, requests):
    await know_each_other(fleet)
    for period in range(1, 21):
        several = await views(fleet) + await views(fleet)
        assert len({view.guests for view in several}) == 1
        assert len(several[0].guests) == 6
        assert len(requests) == period
        await grow_old(fleet)


async def test_a_published_inventory_has_all_that_was_fetched(fleet):
    await know_each_other(fleet)
    first = await (await fleet[0].open()).inventory_view()
    second = await (await fleet[1].open()).inventory_view()
    for field in fields(InventoryView):
        if field.compare and field.name != "taken":
            assert getattr(second, field.name) == getattr(first, field.name)
    assert abs(second.taken - first.taken) < 1, "one clock in this test"


async def test_a_read_after_a_write_elsewhere_is_not_one_published_before(fleet, requests):
    await know_each_other(fleet)
    one, other = fleet
    ours, theirs = await one.read(), await other.read()
    assert len(requests) == 1
    ours.changed()
    await is_outdated(theirs)
    assert (await views(fleet))[0].taken > theirs.inventory._written - 1
    assert len(requests) >= 2


@pytest.mark.parametrize(
    "holder", ["killed", "frozen"], ids=["is killed", "does not come to its end"]
)
async def test_another_process_takes_over_when_the_holder(fleet, requests, monkeypatch, holder):
    monkeypatch.setattr(shared_inventory, "WAIT_SECONDS", 0.05)
    await know_each_other(fleet)
    one, other = fleet
    connection = await one.clusters.connection("lab")
    lease = await one.store.shared_inventories.lease(connection.identity.id, 0.0)
    assert lease.is_ours
    if holder == "killed":
        monkeypatch.setattr(shared_inventory, "WAIT_SECONDS", 3600.0)
        await other.store.fleet.fetch(
            "UPDATE processes SET seen = 0 WHERE id = $1", one.store.fleet.id
        )
    assert len((await (await other.open()).inventory_view()).guests) == 6
    assert len(requests) == 1


async def holder_of(process: Process) -> str | None:
    """Return who holds the lease of the inventory."""
    (row,) = await process.store.fleet.fetch("SELECT holder FROM inventories")
    holder: str | None = row["holder"]
    return holder


async def test_a_lease_that_never_ends_makes_others_wait_once(fleet, requests, monkeypatch):
    monkeypatch.setattr(shared_inventory, "WAIT_SECONDS", 0.05)
    await know_each_other(fleet)
    one, other = fleet
    connection = await one.clusters.connection("lab")
    await one.store.shared_inventories.lease(connection.identity.id, 0.0)
    await other.read()
    assert await holder_of(other) is None


async def test_a_lease_that_is_not_needed_is_given_back(fleet, requests):
    await know_each_other(fleet)
    one, other = fleet
    await one.read()
    connection = await other.clusters.connection("lab")
    # as when it was taken at the very moment at which an inventory grows too old
    await other.store.shared_inventories.lease(connection.identity.id, 0.0)
    await other.read()
    assert len(requests) == 1
    assert await holder_of(other) is None


async def test_a_read_that_is_cancelled_while_it_takes_the_lease_gives_it_back(fleet, monkeypatch):
    await know_each_other(fleet)
    one, other = fleet
    lease, granted = one.store.shared_inventories.lease, anyio.Event()

    async def slow(*arguments):
        await lease(*arguments)
        granted.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(one.store.shared_inventories, "lease", slow)
    inventory = (await one.open()).inventory
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(inventory.view)
        await granted.wait()
        assert await holder_of(other) == one.store.fleet.id
        tasks.cancel_scope.cancel()
    await inventory.aclose()
    assert await holder_of(other) is None


async def test_an_inventory_of_a_token_that_was_replaced_is_not_waited_for(
    fleet, requests, monkeypatch, new_token
):
    monkeypatch.setattr(shared_inventory, "WAIT_SECONDS", 3600.0)
    await know_each_other(fleet)
    one, other = fleet
    await one.read()
    token_id, secret = new_token("another")
    await one.access.clusters.change_identity("lab", "default", token_id=token_id, secret=secret)
    await other.store.watch.poll()
    with anyio.fail_after(5):
        assert (await (await other.open()).inventory_view()).guests == ()


async def test_an_inventory_from_before_the_clock_was_set_back_is_old(fleet, requests):
    await know_each_other(fleet)
    one, other = fleet
    await one.read()
    await grow_old(fleet)
    await other.store.fleet.fetch("UPDATE inventories SET taken = taken + 3600 + 7200")
    for process in (other, one):
        view = await (await process.open()).inventory_view()
        assert len(view.guests) == 6
    assert len(requests) == 2, "one for both"


async def test_a_process_that_was_killed_before_the_clock_was_set_back_is_dead(fleet):
    one, other = fleet
    await know_each_other(fleet)
    await one.store.fleet.fetch(
        "INSERT INTO processes VALUES ('killed', extract(epoch FROM now()) + 3600)"
    )
    await know_each_other(fleet)
    assert other.store.fleet.others == (one.store.fleet.id,)


async def test_no_inventory_waits_for_a_connection_that_was_lost(fleet, requests, monkeypatch):
    monkeypatch.setattr("pvemcp_server.store.fleet.RETRY_SECONDS", 3600.0)
    monkeypatch.setattr("pvemcp_server.store.fleet.WAIT_SECONDS", 3600.0)
    await know_each_other(fleet)
    one, _ = fleet
    cluster = await one.open()
    one.store.fleet._leave()
    with anyio.fail_after(5):
        assert len((await cluster.inventory_view()).guests) == 6


async def test_a_failed_fetch_lets_the_next_process_try_at_once(fleet, lab, monkeypatch):
    monkeypatch.setattr(shared_inventory, "WAIT_SECONDS", 3600.0)
    await know_each_other(fleet)
    for node in list(lab.state.nodes):
        await lab.node_down(node)
    for process in fleet:
        with pytest.raises(Unreachable):
            await (await process.open()).inventory_view()
    for node in list(lab.state.nodes):
        await lab.node_up(node)
    for process in fleet:
        inventory = (await process.open()).inventory
        inventory.retry_after = inventory._retry_at = 0.0
    assert len((await views(fleet))[0].guests) == 6


async def test_no_identity_opens_the_published_inventory_of_another(fleet, new_token):
    await know_each_other(fleet)
    one, other = fleet
    access = one.access
    token_id, secret = new_token("narrow")
    await access.clusters.add_identity("lab", "narrow", token_id=token_id, secret=secret)
    narrow = (await access.clusters.identity("lab", "narrow")).id
    await one.store.watch.poll()
    await one.read()
    default = (await one.clusters.connection("lab")).identity.id
    # also if an intruder moves the row in the database
    await one.store.fleet.fetch("DELETE FROM inventories WHERE identity_id = $1", narrow)
    await one.store.fleet.fetch(
        "INSERT INTO inventories SELECT $1, NULL, taken, sealed FROM inventories "
        "WHERE identity_id = $2",
        narrow,
        default,
    )
    await other.store.watch.poll()
    assert (await (await other.open(narrow)).inventory_view()).guests == ()


async def test_what_is_published_is_sealed_and_bounded(fleet, requests, monkeypatch):
    await know_each_other(fleet)
    view = await (await fleet[0].open()).inventory_view()
    (row,) = await fleet[0].store.fleet.fetch("SELECT sealed FROM inventories")
    assert view.guests[0].name.encode() not in row["sealed"]
    monkeypatch.setattr("pvemcp_server.store.shared_inventories.MOST_BYTES", 10)
    await grow_old(fleet)
    assert all(len(each.guests) == 6 for each in await views(fleet))
    assert len(requests) == 3, "each process asks Proxmox itself for what is too large"


async def test_an_absent_database_keeps_no_process_from_asking_proxmox(fleet, monkeypatch):
    await know_each_other(fleet)
    cluster = await fleet[0].open()

    async def fetch(*_arguments):
        raise StateUnavailable("away")

    monkeypatch.setattr(fleet[0].store.fleet, "fetch_now", fetch)
    assert len((await cluster.inventory_view()).guests) == 6


async def test_a_single_process_publishes_nothing(fleet):
    fleet[0].store.fleet.others = ()
    await fleet[0].read()
    assert await fleet[0].store.fleet.fetch("SELECT identity_id FROM inventories") == []


async def test_accounts_that_see_the_same_share_its_memory(fleet, lab):
    one = fleet[0]
    token_id, secret = lab.token
    accounts = []
    for name in ("ada", "grace"):
        await one.access.clusters.add_identity("lab", name, token_id=token_id, secret=secret)
        accounts.append((await one.access.clusters.identity("lab", name)).id)
    await one.store.watch.poll()
    first, second = [await (await one.open(each)).inventory_view() for each in accounts]
    assert first is not second
    for name in POOLED:
        for ours, theirs in zip(getattr(first, name), getattr(second, name), strict=True):
            assert (ours is theirs) == (ours == theirs)
    assert first.storages[0] is second.storages[0]
