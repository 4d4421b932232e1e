"""Fixtures for tests: `pytest_plugins = ["proxmox_client.emulator.pytest_plugin"]`.

    async def test_something(proxmox):
        cluster = proxmox["lab"]
        …  # cluster.hosts, cluster.ca_pem, cluster.token, cluster.state, cluster.fault(…)

Redefine `proxmox_scenario` for other clusters, `proxmox_clock` for another pace.
"""

from collections.abc import AsyncIterator

import pytest

from proxmox_client.emulator.background_server import Emulator
from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.scenario.model import Scenario

PACE = 200.0
"""How much faster than life tests run: a refused sign-in takes 15 ms."""


@pytest.fixture
def proxmox_scenario() -> Scenario:
    """The clusters to emulate: here one of three nodes and twelve guests, named lab."""
    return Scenario.cluster("lab", nodes=3, guests=12)


@pytest.fixture
def proxmox_clock() -> Clock:
    """The clusters' time."""
    return Clock(PACE)


@pytest.fixture
async def proxmox(
    anyio_backend: object,  # noqa: ARG001 - lets anyio run this fixture
    proxmox_scenario: Scenario,
    proxmox_clock: Clock,
) -> AsyncIterator[Emulator]:
    """The running emulator."""
    async with Emulator(proxmox_scenario, clock=proxmox_clock) as emulator:
        yield emulator
