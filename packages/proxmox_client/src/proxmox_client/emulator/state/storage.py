"""Storages and their volumes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.state.sizes import GIB

BLOCK_TYPES: Final = frozenset({"lvm", "lvmthin", "zfspool", "rbd", "iscsi"})
"""Storage types whose volumes are block devices, not files."""


@dataclass(slots=True)
class Volume:
    """A volume of a storage: a disk, a backup or a file."""

    volid: str
    content: str
    format: str
    size: int
    ctime: int
    vmid: int = 0
    used: int | None = None
    subtype: str = ""
    notes: str = ""
    protected: bool = False
    encrypted: str = ""
    verified: str = ""
    """The result of the last verification on a backup server."""
    parent: str | None = None
    config: str = ""
    """The guest configuration in a backup."""

    @property
    def name(self) -> str:
        """The volume ID without the storage."""
        return self.volid.partition(":")[2]

    @property
    def allocated(self) -> int:
        """The bytes that it occupies on its storage."""
        return self.size if self.used is None else self.used


@dataclass(slots=True)
class Storage:
    """A configured storage; a local storage has separate volumes on every node."""

    name: str
    type: str
    content: tuple[str, ...]
    shared: bool = False
    nodes: tuple[str, ...] = ()
    """The nodes that have it; empty means all."""
    total: int = 500 * GIB
    other_used: int = 20 * GIB
    """Bytes used by files that the API does not list."""
    options: dict[str, Any] = field(default_factory=dict)
    enabled: bool = True
    stuck: bool = False
    """Whether requests to it hang, like to an NFS share whose server is down."""
    failure: str = ""
    """The error of its content while it cannot be used, like an NFS share whose server is away."""
    failed_nodes: tuple[str, ...] = ()
    """The nodes with the failure; empty means all."""
    _volumes: dict[str, dict[str, Volume]] = field(default_factory=dict)
    _used: dict[str, int] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Its ACL path."""
        return f"/storage/{self.name}"

    @property
    def is_backup_server(self) -> bool:
        return self.type == "pbs"

    def on(self, node: str) -> bool:
        """Return whether it is available on a node."""
        return not self.nodes or node in self.nodes

    def failure_on(self, node: str) -> str:
        """Return the error of its content on a node, or an empty string."""
        return self.failure if not self.failed_nodes or node in self.failed_nodes else ""

    def volumes(self, node: str) -> dict[str, Volume]:
        """Return its volumes on a node, by volume ID."""
        return self._volumes.setdefault(self._key(node), {})

    def everything(self) -> Iterator[Volume]:
        """List its volumes on all nodes."""
        for volumes in self._volumes.values():
            yield from volumes.values()

    def used(self, node: str) -> int:
        """Return the bytes in use on a node."""
        return min(self.total, self.other_used + self._used.get(self._key(node), 0))

    def put(self, node: str, volume: Volume) -> Volume:
        """Add a volume, replacing one with the same ID."""
        self.remove(node, volume.volid)
        self.volumes(node)[volume.volid] = volume
        self._add_used(node, volume.allocated)
        return volume

    def remove(self, node: str, volid: str) -> Volume | None:
        """Remove and return a volume; return None if it does not exist."""
        volume = self.volumes(node).pop(volid, None)
        if volume is not None:
            self._add_used(node, -volume.allocated)
        return volume

    def resize(self, node: str, volid: str, size: int) -> None:
        """Change the size of a volume; raise ApiError if it does not exist."""
        volume = self.volumes(node).get(volid)
        if volume is None:
            raise ApiError(f"volume '{volid}' does not exist")
        self._add_used(node, size - volume.allocated)
        volume.size = size
        volume.used = None if volume.used is None else size

    def _key(self, node: str) -> str:
        return "" if self.shared else node

    def _add_used(self, node: str, change: int) -> None:
        key = self._key(node)
        self._used[key] = self._used.get(key, 0) + change
