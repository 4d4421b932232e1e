"""The demo: two clusters and a backup server."""

from proxmox_client.emulator.scenario import backup_server
from proxmox_client.emulator.scenario.home_lab import home_lab
from proxmox_client.emulator.scenario.model import Scenario
from proxmox_client.emulator.scenario.prod import prod


def demo() -> Scenario:
    """Return the demo scenario.

    It has home-lab (1 node, 14 guests), prod (5 nodes, 120 guests), and the backup server backup.
    """
    return Scenario(
        {"home-lab": home_lab, "prod": prod},
        backup_servers={backup_server.NAME: backup_server.backup_server},
    )
