"""An emulated cluster, and a state where it is configured."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from uuid import uuid4

import pytest

import proxmox_client.api.cluster
from proxmox_client import ApiToken, Client, Tls
from proxmox_client.emulator import Clock, Emulator, Scenario
from proxmox_client.emulator.cluster import EmulatedCluster
from proxmox_client.emulator.state.user_config import Token
from pvemcp_server.access import Access
from pvemcp_server.clusters import Clusters, Inventory
from pvemcp_server.config import Config
from pvemcp_server.store import Store
from pvemcp_server.store.records import TlsMode


@pytest.fixture
async def lab() -> AsyncIterator[EmulatedCluster]:
    scenario = Scenario.cluster("lab", nodes=2, guests=6)
    async with Emulator(scenario, clock=Clock(200.0)) as emulator:
        yield emulator["lab"]


@pytest.fixture
async def pve(lab: EmulatedCluster) -> AsyncIterator[Client]:
    tls = Tls(fingerprints=lab.fingerprints.values())
    async with Client(lab.hosts, ApiToken(*lab.token), tls=tls, name="lab") as client:
        yield client


@pytest.fixture
async def inventory(pve: Client) -> AsyncIterator[Inventory]:
    """Open an inventory that stays fresh for an hour, so that only a test makes it stale."""
    async with aclosing(Inventory(pve, lambda: 3600.0)) as opened:
        yield opened


@pytest.fixture
def config(tmp_path) -> Config:
    """Use SQLite only: the tests of the state run on both databases."""
    return Config(state_dir=tmp_path / "var")


NewToken = Callable[[str], tuple[str, str]]


@pytest.fixture
def new_token(lab: EmulatedCluster) -> NewToken:
    """Create tokens without privileges; the function returns the id and secret."""

    def create(name: str) -> tuple[str, str]:
        secret = str(uuid4())
        lab.state.user_config.users["mcp@pve"].tokens[name] = Token(name, secret)
        return f"mcp@pve!{name}", secret

    return create


async def add_lab(access: Access, lab: EmulatedCluster) -> None:
    """Configure the emulated cluster under the name lab."""
    token_id, secret = lab.token
    await access.clusters.create(
        "lab",
        lab.hosts,
        token_id=token_id,
        secret=secret,
        tls_mode=TlsMode.PINNED,
        fingerprints=lab.fingerprints.values(),
    )


@pytest.fixture
def requests(monkeypatch) -> list[str]:
    """List the requests for resources that are sent."""
    sent: list[str] = []
    resources = proxmox_client.api.cluster.ClusterApi.resources

    async def counted(cluster, *arguments):
        sent.append("GET /cluster/resources")
        return await resources(cluster, *arguments)

    monkeypatch.setattr(proxmox_client.api.cluster.ClusterApi, "resources", counted)
    return sent


@pytest.fixture
async def clusters(store: Store, access: Access, lab: EmulatedCluster) -> AsyncIterator[Clusters]:
    await add_lab(access, lab)
    async with aclosing(Clusters(store, lambda: 3600.0)) as opened:
        yield opened
