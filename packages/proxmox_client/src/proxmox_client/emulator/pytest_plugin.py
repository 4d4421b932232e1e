"""Fixtures for tests: `pytest_plugins = ["proxmox_client.emulator.pytest_plugin"]`.

    async def test_something(proxmox):
        cluster = proxmox["lab"]
        …  # cluster.hosts, cluster.ca_pem, cluster.token, cluster.state, cluster.fault(…)

Override `proxmox_scenario` for other clusters and `proxmox_clock` for another speed.
"""

from collections.abc import AsyncIterator

import pytest

from proxmox_client.emulator.background_server import Emulator
from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.scenario.model import Scenario

SPEED = 200.0
"""The speed of the clock in tests: a failed sign-in takes 15 ms instead of 3 s."""


@pytest.fixture
def proxmox_scenario() -> Scenario:
    """Return the scenario: the cluster `lab` with three nodes and twelve guests."""
    return Scenario.cluster("lab", nodes=3, guests=12)


@pytest.fixture
def proxmox_clock() -> Clock:
    """Return the clock of the clusters."""
    return Clock(SPEED)


@pytest.fixture
async def proxmox(
    anyio_backend: object,  # noqa: ARG001 - lets anyio run this fixture
    proxmox_scenario: Scenario,
    proxmox_clock: Clock,
) -> AsyncIterator[Emulator]:
    """Run the emulator for one test."""
    async with Emulator(proxmox_scenario, clock=proxmox_clock) as emulator:
        yield emulator
