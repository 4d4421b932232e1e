"""The client of Proxmox Backup Server reads the emulated one over real HTTPS."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from proxmox_client import (
    ApiToken,
    BackupServer,
    BadParameters,
    Client,
    Forbidden,
    Password,
    Tls,
    TlsError,
    Unauthenticated,
    fetch_fingerprint,
)
from proxmox_client.emulator import Clock, EmulatedBackupServer, Emulator, Scenario, demo
from proxmox_client.hosts import Host

pytestmark = pytest.mark.anyio


@dataclass
class Demo:
    """The demo's backup server and cluster prod, whose backups it has."""

    server: EmulatedBackupServer
    emulator: Emulator

    def connect(self, token: tuple[str, str] | None = None) -> BackupServer:
        tls = Tls(fingerprints={self.server.fingerprint})
        return BackupServer(self.server.hosts, ApiToken(*(token or self.server.token)), tls=tls)


@pytest.fixture(scope="module")
async def running(anyio_backend: str) -> AsyncIterator[Demo]:
    every = demo()
    scenario = Scenario({"prod": every.clusters["prod"]}, backup_servers=every.backup_servers)
    async with Emulator(scenario, clock=Clock(200)) as emulator:
        yield Demo(emulator.backup_servers["backup"], emulator)


@pytest.fixture
async def client(running: Demo) -> AsyncIterator[BackupServer]:
    async with running.connect() as opened:
        yield opened


async def test_it_has_the_backups_that_the_cluster_lists_on_its_storage(client, running):
    storage = running.emulator["prod"].state.storages["pbs-main"]
    snapshots = await client.snapshots("main")
    listed = {(s.type, s.id, s.time, s.size) for s in snapshots if s.type != "host"}
    volumes = {(*v.name.split("/")[1:3], v.ctime, v.size) for v in storage.everything()}
    assert len(listed) > 500
    assert listed == volumes
    states = {s.verification.state for s in snapshots if s.verification}
    assert states == {"ok", "failed"}
    assert all(s.verification.time >= s.time for s in snapshots if s.verification)


async def test_a_namespace_has_its_own_snapshots(client):
    assert [each.name for each in await client.namespaces("main")] == ["", "archive"]
    archived = await client.snapshots("main", "archive")
    assert {each.id for each in archived} == {"101", "103", "150"}
    assert {each.id for each in await client.snapshots("main", "archive", "101")} == {"101"}


async def test_only_backups_with_a_key_are_encrypted(client):
    kinds = {(s.type, s.is_encrypted) for s in await client.snapshots("main")}
    assert kinds == {("vm", False), ("ct", False), ("host", True)}


async def test_datastores_have_sizes_history_and_deduplication(client):
    main, offsite = await client.datastores()
    assert (main.store, offsite.store) == ("main", "offsite")
    assert main.total == main.used + main.available
    assert len(main.history) == 1440
    assert main.history[0] < main.history[-1]
    assert main.garbage_collection.deduplication_factor == pytest.approx(9, rel=0.01)
    assert main.estimated_full_date > offsite.estimated_full_date


async def test_jobs_of_every_kind_have_their_last_run(client):
    for read, ids in (
        (client.verify_jobs, {"v-main", "v-offsite"}),
        (client.prune_jobs, {"p-main"}),
        (client.sync_jobs, {"s-offsite"}),
        (client.gc_jobs, {""}),
    ):
        jobs = await read()
        assert {job.id for job in jobs} == ids
        assert all(job.last_run < job.last_end < job.next_run for job in jobs), read
    [failed] = await client.sync_jobs()
    assert failed.last_state == "sync failed with some errors."


@pytest.mark.parametrize(("version", "listed"), [("3.2", 2), ("3.4", 2), ("4.1", 2)])
async def test_jobs_that_push_are_listed_where_the_version_has_a_parameter(
    client, running, version, listed
):
    state = running.server.state
    before = state.version, list(state.jobs)
    pushing = state.jobs[-1].__class__("sync", "s-push", "main", "daily", pushes=True)
    state.version, state.jobs = version, [*state.jobs, pushing]
    try:
        assert len(await client.sync_jobs()) == listed
        assert (await client.version()).version == f"{version}.2"
    finally:
        state.version, state.jobs = before


async def test_a_token_sees_only_what_it_has_privileges_for(running):
    token = running.server.add_account(
        "narrow@pbs!t", {"/datastore/main/archive": frozenset({"Datastore.Audit"})}
    )
    async with running.connect(token) as narrow:
        [partly] = await narrow.datastores()
        assert (partly.store, partly.total) == ("main", None)
        assert [each.name for each in await narrow.namespaces("main")] == ["archive"]
        assert await narrow.verify_jobs() == []
        assert list(await narrow.permissions()) == ["/datastore/main/archive"]
        with pytest.raises(Forbidden, match=r"^permission check failed$"):
            await narrow.snapshots("main")


async def test_the_text_of_an_error_is_its_body(client, running):
    with pytest.raises(BadParameters, match="no such datastore 'nowhere'"):
        await client.snapshots("nowhere")
    async with running.connect((running.server.token[0], "wrong")) as stranger:
        with pytest.raises(Unauthenticated, match="invalid API token secret"):
            await stranger.version()


async def test_the_header_of_a_cluster_is_refused_and_the_other_way_round(running):
    server, prod = running.server, running.emulator["prod"]
    pinned = Tls(fingerprints={server.fingerprint, *prod.fingerprints.values()})
    async with Client(server.hosts, ApiToken(*server.token), tls=pinned) as cluster:
        with pytest.raises(Unauthenticated):
            await cluster.version()
    async with BackupServer(prod.hosts, ApiToken(*prod.token), tls=pinned) as other:
        with pytest.raises(Unauthenticated):
            await other.version()


async def test_nothing_is_sent_to_a_server_with_another_certificate(running):
    host = running.server.hosts[0]
    assert await fetch_fingerprint(host) == running.server.fingerprint
    tls = Tls(fingerprints={":".join(["AB"] * 32)})
    async with BackupServer([host], ApiToken(*running.server.token), tls=tls) as stranger:
        with pytest.raises(TlsError):
            await stranger.version()


def test_the_default_port_is_8007_and_a_password_is_refused():
    token = ApiToken("mcp@pbs!t", "secret")
    assert BackupServer(["pbs.example"], token)._pool.host(0) == "pbs.example:8007"
    assert Host.parse("pbs.example").port == 8006
    with pytest.raises(TypeError):
        BackupServer(["pbs.example"], Password("root@pam", "secret"))
