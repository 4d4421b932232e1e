"""The two demo clusters."""

from proxmox_client.emulator.scenario.home_lab import home_lab
from proxmox_client.emulator.scenario.model import Scenario
from proxmox_client.emulator.scenario.prod import prod


def demo() -> Scenario:
    """home-lab, one node with 14 guests, and prod, five nodes with 120."""
    return Scenario({"home-lab": home_lab, "prod": prod})
