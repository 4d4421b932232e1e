"""Virtual machines and containers."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.state.load import Load
from proxmox_client.emulator.state.sizes import MIB, parse_size

DISK_BUSES: Final = ("scsi", "virtio", "sata", "ide")
CONTAINER_VOLUMES: Final = ("rootfs", "mp")
REMOVAL: Final = 1
REMOVAL_WITH_VOLUME: Final = 2


class Kind(StrEnum):
    """The kind of a guest: virtual machine or container."""

    QEMU = "qemu"
    LXC = "lxc"

    @property
    def word(self) -> str:
        """The word for it in Proxmox's messages."""
        return "VM" if self is Kind.QEMU else "CT"

    @property
    def folder(self) -> str:
        """The folder of its configuration files."""
        return "qemu-server" if self is Kind.QEMU else "lxc"


@dataclass(slots=True)
class Snapshot:
    """A snapshot of a guest's configuration and disks."""

    name: str
    time: int
    description: str = ""
    parent: str = ""
    with_ram: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    state: str = ""
    """What a task left unfinished: prepare or delete; empty for a complete snapshot."""


@dataclass(slots=True)
class AgentProcess:
    """A program that the guest agent started."""

    output: str = ""
    errors: str = ""
    exit_code: int = 0
    running: bool = False


@dataclass(slots=True)
class Agent:
    """The guest agent and what it reports about the guest's operating system."""

    os_id: str = "debian"
    os_name: str = "Debian GNU/Linux 12 (bookworm)"
    kernel: str = "6.1.0-28-amd64"
    addresses: tuple[str, ...] = ()
    answers: bool = True
    boot_seconds: float = 0
    """Seconds after the guest's start until it answers."""
    refused: frozenset[str] = frozenset()
    """The commands that it refuses, by their names in the API, like get-osinfo."""
    disk_used: float = 0.42
    """The used share of the boot disk, as the operating system sees it."""
    processes: dict[int, AgentProcess] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Contents of written files, by path."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A volume in a guest's configuration."""

    slot: str
    volid: str
    size: int

    @property
    def storage(self) -> str:
        return self.volid.partition(":")[0]


@dataclass(slots=True)
class Guest:
    """A virtual machine or container, running or not."""

    vmid: int
    kind: Kind
    node: str
    config: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0
    status: str = "stopped"
    paused: bool = False
    started: float = 0.0
    stopped: float = 0.0
    """The time of its last stop; 0 for a guest that never ran."""
    pid: int = 0
    parent: str = ""
    """The name of the snapshot that the current state is based on."""
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    pending: dict[str, Any] = field(default_factory=dict)
    """Values that take effect at the next start."""
    removals: dict[str, int] = field(default_factory=dict)
    """Options to remove at the next start: REMOVAL or REMOVAL_WITH_VOLUME, by name."""
    load: Load = field(default_factory=Load)
    agent: Agent | None = None
    honors_shutdown: bool = True
    """Whether it shuts down on request; false for a guest that hangs."""
    disk_used: float = 0.3
    """The used share of a container's root disk."""
    row: bytes | None = None
    """Its cached row in /cluster/resources without metrics, as JSON; reset by `touch`."""
    _sizes: tuple[int, int] | None = None
    """Its cached memory and disk size in bytes; reset by `touch`."""

    @property
    def name(self) -> str:
        default = f"VM {self.vmid}" if self.kind is Kind.QEMU else f"CT{self.vmid}"
        key = "name" if self.kind is Kind.QEMU else "hostname"
        return str(self.config.get(key, default))

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def template(self) -> bool:
        return bool(self.config.get("template"))

    @property
    def lock(self) -> str:
        return str(self.config.get("lock", ""))

    @property
    def path(self) -> str:
        """Its ACL path."""
        return f"/vms/{self.vmid}"

    def cpus(self, of_node: int) -> float:
        """Return its processors; a container without a limit uses all `of_node` of its node.

        Source: vmstatus in PVE/LXC.pm and PVE/QemuServer.pm.
        """
        if self.kind is Kind.LXC:
            limit = float(self.config.get("cpulimit", 0))
            return int(self.config.get("cores", 0)) or limit or of_node
        return int(self.config.get("cores", 1)) * int(self.config.get("sockets", 1))

    @property
    def sizes(self) -> tuple[int, int]:
        """Its memory and the size of its boot disk, in bytes."""
        if self._sizes is None:
            self._sizes = (self.memory, self.disk_size)
        return self._sizes

    @property
    def memory(self) -> int:
        """Its memory in bytes."""
        text = str(self.config.get("memory", 512)).removeprefix("current=").partition(",")[0]
        return int(text) * MIB

    @property
    def swap(self) -> int:
        """A container's swap in bytes."""
        return int(self.config.get("swap", 512)) * MIB

    @property
    def disk_size(self) -> int:
        """The size of its boot disk in bytes."""
        disks = {disk.slot: disk for disk in self.disks()}
        if self.kind is Kind.LXC:
            return disks["rootfs"].size if "rootfs" in disks else 0
        boot = str(self.config.get("boot", "")).removeprefix("order=").split(";")
        boot_disk = next((disks[slot] for slot in boot if slot in disks), None)
        return (boot_disk or next(iter(disks.values()), Disk("", "", 0))).size

    @property
    def digest(self) -> str:
        """The checksum of its configuration file."""
        sections = (self.config, self.pending, self.removals)
        text = "\n".join(
            f"{key}: {value}" for part in sections for key, value in sorted(part.items())
        )
        return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    @property
    def agent_enabled(self) -> bool:
        """Whether the guest agent is enabled in the configuration."""
        value = str(self.config.get("agent", "0"))
        return value.removeprefix("enabled=")[:1] == "1"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses: a fixed one of its configuration, else those by DHCP."""
        option = "ipconfig0" if self.kind is Kind.QEMU else "net0"
        parts = dict(part.partition("=")[::2] for part in str(self.config.get(option)).split(","))
        fixed = (parts.get(name, "").partition("/") for name in ("ip", "ip6"))
        return tuple(address for address, slash, _ in fixed if slash) or (
            self.agent.addresses if self.agent else ()
        )

    def disks(self) -> Iterator[Disk]:
        """List the volumes of its running configuration, without CD-ROMs."""
        yield from disks_of(self.config, self.kind)

    @property
    def next_config(self) -> dict[str, Any]:
        """Its configuration with all pending changes applied."""
        remaining = {key: value for key, value in self.config.items() if key not in self.removals}
        return remaining | self.pending

    def require_unlocked(self) -> None:
        """Raise ApiError if a task holds its lock."""
        if self.lock:
            raise ApiError(f"{self.kind.word} is locked ({self.lock})")

    def ran_at(self, when: float) -> bool:
        """Return whether it ran at a time of its life; earlier stops are not on record."""
        return self.running or when < self.stopped

    def touch(self) -> None:
        """Invalidate the cached row and sizes; call it after every change."""
        self.row = self._sizes = None

    def uptime(self, now: float) -> int:
        """Return the seconds since its start, 0 if it is stopped."""
        return max(1, int(now - self.started)) if self.running else 0


def disks_of(config: dict[str, Any], kind: Kind) -> Iterator[Disk]:
    """List the volumes in a configuration, without CD-ROMs and bind mounts."""
    prefixes = DISK_BUSES if kind is Kind.QEMU else CONTAINER_VOLUMES
    slots = sorted(key for key in config if key.startswith(prefixes))
    for slot in slots:
        if slot.rstrip("0123456789") in prefixes and isinstance(config[slot], str):
            disk = _parse_disk(slot, config[slot])
            if disk is not None:
                yield disk


@lru_cache(maxsize=4096)
def _parse_disk(slot: str, value: str) -> Disk | None:
    volid, _, options = value.partition(",")
    volid = volid.removeprefix("file=").removeprefix("volume=")
    if ":" not in volid or "media=cdrom" in options:
        return None
    size = next((part[5:] for part in options.split(",") if part.startswith("size=")), "0")
    return Disk(slot, volid, parse_size(size))
