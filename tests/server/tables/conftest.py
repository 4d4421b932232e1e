"""The demo clusters at one moment, as a caller reaches them."""

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
async def _reached(pve):
    async with AsyncExitStack() as stack:
        found = {}
        for one in pve:
            auth, tls = ApiToken(*one.token), Tls(ca_pem=one.ca_pem)
            client = await stack.enter_async_context(Client(one.hosts, auth, tls=tls))
            inventory = Inventory(client, lambda: 3600.0)
            found[one.name] = Cluster(
                one.name, "", client, one.token[0], inventory, EVERYTHING, Notes()
            )
        yield found


@pytest.fixture
def reach(_reached) -> Callable[..., Cluster]:
    """`reach("prod", scope)`: the cluster as far as a scope goes, with notes of its own."""

    def reached(name="prod", scope=EVERYTHING):
        return replace(_reached[name], scope=scope, notes=Notes(), _view=None)

    return reached
