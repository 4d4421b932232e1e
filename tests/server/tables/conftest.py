"""The demo clusters at one moment, as a caller sees them."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from proxmox_client import ApiToken, Client, Tls
from proxmox_client.emulator import Emulator, ManualClock, demo
from pvemcp_server.access.model import EVERYTHING
from pvemcp_server.clusters import Cluster, Inventory, Notes


@pytest.fixture(scope="module")
async def pve(anyio_backend):
    async with Emulator(demo(), clock=ManualClock()) as emulator:
        yield emulator


@pytest.fixture(scope="module")
async def _clusters(pve):
    async with AsyncExitStack() as stack:
        clusters = {}
        for emulated in pve:
            name, account = emulated.name, emulated.token[0]
            auth, tls = ApiToken(*emulated.token), Tls(ca_pem=emulated.ca_pem)
            client = await stack.enter_async_context(Client(emulated.hosts, auth, tls=tls))
            inventory = Inventory(client, lambda: 3600.0)
            clusters[name] = Cluster(name, "", client, account, inventory, EVERYTHING, Notes())
        yield clusters


@pytest.fixture
def open_cluster(_clusters) -> Callable[..., Cluster]:
    """Return `open_cluster("prod", scope)`: the cluster with that scope and new notes."""

    def opened(name="prod", scope=EVERYTHING):
        return replace(_clusters[name], scope=scope, notes=Notes(), _view=None)

    return opened
