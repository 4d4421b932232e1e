"""Nodes and their physical disks."""

from dataclasses import dataclass, field
from typing import Any

from proxmox_client.emulator.certificates import Certificate
from proxmox_client.emulator.state.load import Load
from proxmox_client.emulator.state.sizes import GIB


@dataclass(slots=True)
class PhysicalDisk:
    """A physical disk of a node."""

    device: str
    size: int
    model: str
    serial: str
    kind: str = "nvme"
    vendor: str = "unknown"
    used: str = "LVM"
    health: str = "PASSED"
    wearout: int | str = 97
    """Remaining life in percent, or N/A."""
    rpm: int = 0


@dataclass(slots=True)
class Node:
    """A node of the cluster."""

    name: str
    number: int
    address: str
    cpus: int = 16
    sockets: int = 1
    memory: int = 64 * GIB
    swap: int = 8 * GIB
    root_total: int = 100 * GIB
    root_used: float = 0.2
    """The used share of the root file system."""
    booted: float = 0.0
    online: bool = True
    skew: float = 0.0
    """Seconds that its clock is ahead of the cluster's."""
    lost: float = 0.0
    """The time when it went offline."""
    cpu_model: str = "AMD EPYC 7313P 16-Core Processor"
    kernel: str = "6.14.11-4-pve"
    load: Load = field(default_factory=Load)
    disks: list[PhysicalDisk] = field(default_factory=list)
    description: str = ""
    certificate: Certificate | None = None
    port: int = 0
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"node/{self.name}"

    @property
    def path(self) -> str:
        """Its ACL path."""
        return f"/nodes/{self.name}"

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint if self.certificate else ""
