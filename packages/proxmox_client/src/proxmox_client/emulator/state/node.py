"""Nodes and their physical disks."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from proxmox_client.emulator.certificates import Certificate
from proxmox_client.emulator.state.load import Load
from proxmox_client.emulator.state.sizes import GIB

SERVICES: Final = ("pvestatd", "pvedaemon", "pmxcfs")
"""The services that can be stopped on a node."""
STATISTICS_TIMEOUT: Final = 300
"""Seconds after which the last statistics of a node that sends none are dropped."""
RESTART_SECONDS: Final = 10
"""Seconds after the start of pmxcfs in which a node has no statistics of any node."""


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


@dataclass(frozen=True, slots=True)
class Update:
    """A package of which a newer version is available; a new package has no installed version."""

    package: str
    version: str
    installed: str = ""
    origin: str = "Proxmox"
    title: str = ""


@dataclass(frozen=True, slots=True, order=True)
class LogEntry:
    """An entry of a node's system log."""

    time: int
    program: str
    pid: int
    text: str
    unit: str

    def line(self, node: str) -> str:
        """Return the entry as `journalctl -o short` prints it, in UTC."""
        when = datetime.fromtimestamp(self.time, UTC).strftime("%b %d %H:%M:%S")
        return f"{when} {node} {self.program}[{self.pid}]: {self.text}"


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
    maintenance: bool = False
    """Whether it is in HA maintenance (`ha-manager crm-command node-maintenance enable`)."""
    skew: float = 0.0
    """Seconds that its clock is ahead of the cluster's."""
    lost: float = 0.0
    """The time of its last statistics, if it sends none: it is offline, or a service is stopped."""
    stopped: set[str] = field(default_factory=set)
    """Its stopped services, of SERVICES."""
    joined: float = 0.0
    """The time when its pmxcfs was started again."""
    cpu_model: str = "AMD EPYC 7313P 16-Core Processor"
    kernel: str = "6.14.11-4-pve"
    load: Load = field(default_factory=Load)
    disks: list[PhysicalDisk] = field(default_factory=list)
    pci_devices: list[dict[str, Any]] = field(default_factory=list)
    """The answer about its PCI devices."""
    newest_kernel: str = ""
    """The newest installed kernel, if it is not the running one."""
    updates: list[Update] = field(default_factory=list)
    subscription: dict[str, Any] = field(default_factory=dict)
    """The answer about its subscription; empty for a node without one."""
    log: list[LogEntry] = field(default_factory=list)
    """Entries of its system log beside those of its tasks and services."""
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
    def is_member(self) -> bool:
        """Whether the other nodes see it in the cluster: it is online and pmxcfs runs."""
        return self.online and "pmxcfs" not in self.stopped

    def has_statistics(self, receiver: "Node", now: float) -> bool:
        """Return whether the receiving node has statistics of this one, new or old ones."""
        if now - receiver.joined < RESTART_SECONDS:
            return False
        is_sending = self.is_member and "pvestatd" not in self.stopped
        return is_sending or now - self.lost <= STATISTICS_TIMEOUT

    def status(self, receiver: "Node", now: float) -> str:
        """Return its status as seen by the receiving node."""
        if not self.is_member:
            return "offline"
        return "online" if self.has_statistics(receiver, now) else "unknown"

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint if self.certificate else ""
