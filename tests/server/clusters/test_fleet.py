"""Inventories of several processes on one PostgreSQL database."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from tests.server.store.part import taking_part

import proxmox_client.api.cluster
from proxmox_client.emulator.cluster import EmulatedCluster
from pvemcp_server.access import open_access
from pvemcp_server.access.model import EVERYTHING
from pvemcp_server.clusters import Cluster, Clusters, Notes
from pvemcp_server.config import Config
from pvemcp_server.store import Store, open_store, watch
from pvemcp_server.store.records import TlsMode

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


@pytest.fixture
def config(tmp_path: Path, new_postgres_database: Callable[[], str]) -> Config:
    return Config(state_dir=tmp_path / "var", database_url=new_postgres_database())


@pytest.fixture
def requests(monkeypatch) -> list[str]:
    """List the clients whose requests for resources are sent."""
    sent: list[str] = []
    resources = proxmox_client.api.cluster.ClusterApi.resources

    async def counted(cluster, *arguments):
        sent.append("GET /cluster/resources")
        return await resources(cluster, *arguments)

    monkeypatch.setattr(proxmox_client.api.cluster.ClusterApi, "resources", counted)
    return sent


@dataclass
class Process:
    """One process of the fleet, as far as it reads clusters."""

    store: Store
    clusters: Clusters

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
    token_id, secret = lab.token
    async with AsyncExitStack() as stack:
        access = await stack.enter_async_context(open_access(store))
        await access.clusters.create(
            "lab",
            lab.hosts,
            token_id=token_id,
            secret=secret,
            tls_mode=TlsMode.PINNED,
            fingerprints=lab.fingerprints.values(),
        )
        other = await stack.enter_async_context(open_store(config))
        stores = [store, other]
        each = [
            await stack.enter_async_context(aclosing(Clusters(opened, lambda: 3600.0)))
            for opened in stores
        ]
        await stack.enter_async_context(taking_part(*stores))
        yield [Process(*pair) for pair in zip(stores, each, strict=True)]


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
