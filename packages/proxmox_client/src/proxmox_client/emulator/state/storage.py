"""Storages and what lies on them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.state.sizes import GIB

BLOCK_TYPES: Final = frozenset({"lvm", "lvmthin", "zfspool", "rbd", "iscsi"})
"""Types whose volumes are block devices without a file name."""


@dataclass(slots=True)
class Volume:
    """Something that lies on a storage."""

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
    """The state of the last verification of a backup on a backup server."""
    parent: str | None = None
    config: str = ""
    """The guest's configuration inside a backup."""

    @property
    def name(self) -> str:
        """What follows the storage's name."""
        return self.volid.partition(":")[2]

    @property
    def weight(self) -> int:
        """Bytes it takes from its storage."""
        return self.size if self.used is None else self.used


@dataclass(slots=True)
class Storage:
    """A configured storage; a local one is a different place on every node."""

    name: str
    type: str
    content: tuple[str, ...]
    shared: bool = False
    nodes: tuple[str, ...] = ()
    """The nodes it is limited to; none means all."""
    total: int = 500 * GIB
    other_used: int = 20 * GIB
    """Bytes in use by what the API does not list."""
    options: dict[str, Any] = field(default_factory=dict)
    enabled: bool = True
    stuck: bool = False
    """Whether nothing comes back from it, like from a share whose server is gone."""
    _places: dict[str, dict[str, Volume]] = field(default_factory=dict)
    _used: dict[str, int] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The object its permissions are granted on."""
        return f"/storage/{self.name}"

    @property
    def is_backup_server(self) -> bool:
        return self.type == "pbs"

    def on(self, node: str) -> bool:
        """Whether this node has it."""
        return not self.nodes or node in self.nodes

    def volumes(self, node: str) -> dict[str, Volume]:
        """What lies on it, as this node sees it."""
        return self._places.setdefault(self._place(node), {})

    def everything(self) -> Iterator[Volume]:
        """What lies on it anywhere."""
        for place in self._places.values():
            yield from place.values()

    def used(self, node: str) -> int:
        """Bytes in use, as this node sees it."""
        return min(self.total, self.other_used + self._used.get(self._place(node), 0))

    def put(self, node: str, volume: Volume) -> Volume:
        """Lay something on it."""
        self.remove(node, volume.volid)
        self.volumes(node)[volume.volid] = volume
        self._weigh(node, volume.weight)
        return volume

    def remove(self, node: str, volid: str) -> Volume | None:
        """Take something from it, if it is there."""
        volume = self.volumes(node).pop(volid, None)
        if volume is not None:
            self._weigh(node, -volume.weight)
        return volume

    def resize(self, node: str, volid: str, size: int) -> None:
        """Change the size of a volume."""
        volume = self.volumes(node).get(volid)
        if volume is None:
            raise ApiError(f"volume '{volid}' does not exist")
        self._weigh(node, size - volume.weight)
        volume.size = size
        volume.used = None if volume.used is None else size

    def _place(self, node: str) -> str:
        return "" if self.shared else node

    def _weigh(self, node: str, change: int) -> None:
        place = self._place(node)
        self._used[place] = self._used.get(place, 0) + change
