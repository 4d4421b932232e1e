"""The two demo clusters."""

from proxmox_client.emulator.scenario.home_lab import home_lab
from proxmox_client.emulator.scenario.model import Scenario
from proxmox_client.emulator.scenario.prod import prod


def demo() -> Scenario:
    """Return the demo scenario: home-lab (1 node, 14 guests) and prod (5 nodes, 120 guests)."""
    return Scenario({"home-lab": home_lab, "prod": prod})
