"""Emulated clusters with users, and a state where they are configured."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from proxmox_client.emulator import Clock, Emulator, Scenario
from proxmox_client.emulator.cluster import EmulatedCluster
from proxmox_client.emulator.state.user_config import (
    AclEntry,
    Realm,
    SecondFactor,
    Token,
    User,
    UserConfig,
)
from pvemcp_server.access import Access
from pvemcp_server.clusters import Clusters
from pvemcp_server.config import Config
from pvemcp_server.oauth.connections import Connections
from pvemcp_server.oauth.people import People
from pvemcp_server.settings import Values
from pvemcp_server.store import Store
from pvemcp_server.store.records import TlsMode

PASSWORD = "correct horse"
TOTP_SECRET = "JBSWY3DPEHPK3PXP"
NAMES = ("lab", "prod")


@pytest.fixture(scope="module")
async def emulator(anyio_backend: str) -> AsyncIterator[Emulator]:
    """Start two clusters whose server token may only look."""
    scenario = Scenario.cluster("lab", nodes=1, guests=4) + Scenario.cluster(
        "prod", nodes=1, guests=4, seed=2
    )
    async with Emulator(scenario, clock=Clock(20.0)) as running:
        yield running


@pytest.fixture
def users(emulator: Emulator) -> dict[str, UserConfig]:
    """Reset the users of both clusters: alice and bob have a realm of their own on each.

    carol is in the directory corp, which both know, and erin signs in at a provider. On lab, alice
    has an app and recovery keys as second factors.
    """
    for cluster in emulator:
        people = cluster.state.user_config
        for name in [name for name in people.users if name.split("@")[0] in ("alice", "bob")]:
            del people.users[name]
        people.realms["corp"] = Realm("corp", "ad", "Example directory")
        people.acl = [entry for entry in people.acl if entry.ugid.startswith(("mcp@", "viewer@"))]
        for userid, path, role in (
            ("alice@pve", "/", "PVEAuditor"),
            ("bob@pve", "/vms/100", "PVEVMUser"),
            ("carol@corp", "/", "PVEAuditor"),
        ):
            people.users[userid] = User(userid, password=PASSWORD)
            people.acl.append(AclEntry(path, "user", userid, role))
        people.users["bob@pve"].groups = {"ops"}
        people.realms["sso"] = Realm("sso", "openid", "Example provider")
        people.users["erin@sso"] = User("erin@sso")
    on_lab = emulator["lab"].state.user_config.users
    on_lab["alice@pve"].factors = [
        SecondFactor("totp", "totp", TOTP_SECRET),
        SecondFactor("keys", "recovery", "aaaa-bbbb cccc-dddd"),
    ]
    on_lab["bob@pve"].factors = []
    return {cluster.name: cluster.state.user_config for cluster in emulator}


@pytest.fixture
def config(tmp_path) -> Config:
    """Use SQLite only: the tests of the state run on both databases."""
    return Config(state_dir=tmp_path / "var")


@pytest.fixture
async def clusters(store: Store, access: Access, emulator: Emulator) -> AsyncIterator[Clusters]:
    """Configure both clusters."""
    for cluster in emulator:
        token_id, secret = auditor(cluster)
        await access.clusters.create(
            cluster.name,
            cluster.hosts,
            token_id=token_id,
            secret=secret,
            tls_mode=TlsMode.PINNED,
            fingerprints=cluster.fingerprints.values(),
        )
    async with aclosing(Clusters(store, lambda: 3600.0)) as opened:
        yield opened


def auditor(cluster: EmulatedCluster) -> tuple[str, str]:
    """Return a token of the server that may look at everything and change nothing."""
    people, secret = cluster.state.user_config, "00000000-0000-0000-0000-000000000001"
    user = people.users.setdefault("viewer@pve", User("viewer@pve"))
    user.tokens["pvemcp"] = Token("pvemcp", secret, privsep=False)
    people.acl.append(AclEntry("/", "user", "viewer@pve", "PVEAuditor"))
    return "viewer@pve!pvemcp", secret


@dataclass
class Server:
    """What signs users in, with settings that a test may replace."""

    store: Store
    clusters: Clusters
    values: Values = field(default_factory=Values)

    def __post_init__(self) -> None:
        self.people = People(self.store, self.clusters, lambda: self.values)
        self.connections = Connections(self.store, self.clusters, "https://mcp.example")


@pytest.fixture
def server(store: Store, clusters: Clusters, users: dict[str, UserConfig]) -> Server:
    return Server(store, clusters)
