"""Fixtures: clients that call tools on emulated clusters, and Proxmox accounts with few rights."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from proxmox_client.emulator import EmulatedCluster as Emulated
from proxmox_client.emulator import ManualClock, demo
from proxmox_client.emulator.state.user_config import AclEntry as Acl
from proxmox_client.emulator.state.user_config import Token, User

from .tool_client import FakeClusters, ToolClient, connect, open_tool_client


@pytest.fixture
async def demo_client(anyio_backend: str) -> AsyncIterator[ToolClient]:
    """Yield a client on demo clusters of the test's own, home-lab (8.4) and prod (9.2)."""
    async with open_tool_client(demo()) as client:
        yield client


@pytest.fixture(scope="module")
async def _module_client(
    anyio_backend: str, request: pytest.FixtureRequest
) -> AsyncIterator[ToolClient]:
    """Yield the client of `tool_client`, as constants of the module say.

    SCENARIO makes its clusters, for example few_guests. With KEEPS_ANSWERS the emulator is asked
    only once for the same, for a module that reads everything several times and changes nothing.
    """
    scenario = getattr(request.module, "SCENARIO", demo)
    kept = getattr(request.module, "KEEPS_ANSWERS", False)
    async with open_tool_client(scenario(), ManualClock(), kept=kept) as client:
        yield client


@pytest.fixture
def tool_client(_module_client: ToolClient) -> ToolClient:
    """Return a client for reads on demo clusters that the module shares, with a stopped clock.

    Two calls in a row see the same.
    """
    return ToolClient(_module_client.clusters)


@pytest.fixture(scope="session")
def open_client() -> Callable[..., Any]:
    """Return a function that opens a client on clusters of a scenario."""
    return open_tool_client


@pytest.fixture
def new_token() -> Callable[..., tuple[str, str]]:
    """Return a function that makes an API token: `new_token(emulated, ("/vms", "PVEAuditor"))`."""
    numbers = itertools.count(1)

    def make(
        emulated: Emulated, *grants: tuple[str, str], separated: bool = True
    ) -> tuple[str, str]:
        people, name = emulated.state.user_config, f"t{next(numbers)}"
        user = people.users.setdefault("narrow@pve", User("narrow@pve"))
        secret = f"00000000-0000-0000-0000-{len(user.tokens):012d}"
        user.tokens[name] = Token(name, secret, privsep=separated)
        account = f"narrow@pve!{name}"
        for path, role in grants:
            people.acl.append(Acl(path, "user", "narrow@pve", role))
            people.acl.append(Acl(path, "token", account, role))
        return account, secret

    return make


@pytest.fixture
async def with_token() -> AsyncIterator[Callable[..., Any]]:
    """Yield a function that returns the client with another API token on one of its clusters."""
    async with AsyncExitStack() as stack:

        async def reconnect(client: ToolClient, name: str, token: tuple[str, str]) -> ToolClient:
            connected = await stack.enter_async_context(connect(client[name].emulated, token))
            clusters = FakeClusters({**client.clusters.connected, name: connected})
            return replace(client, clusters=clusters)

        yield reconnect
