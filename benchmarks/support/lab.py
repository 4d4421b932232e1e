"""An emulated cluster as a server's configuration has it."""

from proxmox_client.emulator.cluster import EmulatedCluster
from pvemcp_server.access import Access
from pvemcp_server.store.records import TlsMode


async def add_lab(access: Access, lab: EmulatedCluster) -> None:
    """Configure the emulated cluster under the name lab, with its certificates pinned."""
    token_id, secret = lab.token
    await access.clusters.create(
        "lab",
        lab.hosts,
        token_id=token_id,
        secret=secret,
        tls_mode=TlsMode.PINNED,
        fingerprints=lab.fingerprints.values(),
    )
