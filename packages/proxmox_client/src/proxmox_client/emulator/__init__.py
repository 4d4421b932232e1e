"""An emulator of the Proxmox VE API in a process, for development and tests.

    async with Emulator(Scenario.cluster("lab", nodes=3, guests=20)) as pve:
        cluster = pve["lab"]
        cluster.hosts, cluster.fingerprints, cluster.ca_pem, cluster.token

Needs the extra `emulator`: pip install 'pvemcp-client[emulator]'
"""

try:
    from proxmox_client.emulator.background_server import Emulator
    from proxmox_client.emulator.backup_server.server import EmulatedBackupServer
    from proxmox_client.emulator.clock import Clock, ManualClock
    from proxmox_client.emulator.cluster import EmulatedCluster
    from proxmox_client.emulator.faults import Fault, FaultKind
    from proxmox_client.emulator.http.connection import ConnectionLimits
    from proxmox_client.emulator.scenario.demo import demo
    from proxmox_client.emulator.scenario.model import Scenario
except ModuleNotFoundError as missing:
    if missing.name not in ("cryptography", "h11", "yaml"):
        raise
    text = f"The emulator needs {missing.name}: pip install 'pvemcp-client[emulator]'"
    raise ModuleNotFoundError(text, name=missing.name) from None

__all__ = [
    "Clock",
    "ConnectionLimits",
    "EmulatedBackupServer",
    "EmulatedCluster",
    "Emulator",
    "Fault",
    "FaultKind",
    "ManualClock",
    "Scenario",
    "demo",
]
