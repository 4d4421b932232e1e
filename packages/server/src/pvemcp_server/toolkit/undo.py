"""How writes are undone: the call that reverses one, and what must still hold for it.

A write that can be reversed appends an Undo to `call.undos` once it was sent. Its answer names the
call, and the pipeline keeps it for the tool Undo, which makes it for the same API key. A write that
cannot is kept too: otherwise Undo would reverse an older one than the user means.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pvemcp_server.toolkit.next_call import NextCall


@dataclass(frozen=True, slots=True)
class LeftState:
    """What a write left of a guest: where that has changed since, undoing would change more."""

    node: str | None = None
    state: str | None = None  # running, stopped or paused
    pid: int | None = None  # of its process: another one if it was started again
    digest: str | None = None  # of its whole configuration
    options: Mapping[str, str | None] = field(default_factory=dict)
    """Options of the configuration, as after the next restart; None is an option that is unset."""
    storages: Mapping[str, str] = field(default_factory=dict)  # of its disks, by their names
    snapshots: Mapping[str, int | None] = field(default_factory=dict)
    """When each snapshot was taken, by its name; None while that is not known."""


@dataclass(frozen=True, slots=True)
class LeftVolume:
    """A file of a storage that a write made, with its size and time."""

    node: str
    volid: str
    size: int
    created: int | None


@dataclass(frozen=True, slots=True)
class LeftValues:
    """What a request to Proxmox's API left at a path: values as texts, None where there is none."""

    path: str  # encoded
    values: Mapping[str, str | None] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)  # that choose the object there


@dataclass(frozen=True, slots=True)
class Undo:
    """The call that reverses a write, and what the write left: by VMID, a volume, or values."""

    call: NextCall
    left: Mapping[int, LeftState] = field(default_factory=dict)
    volume: LeftVolume | None = None
    values: LeftValues | None = None


@dataclass(frozen=True, slots=True)
class KeptUndo:
    """An Undo as it is kept: `done` is the sentence on the write that it reverses."""

    id: int
    cluster: str
    done: str
    undo: Undo
    newer: str = ""  # the sentence on a later write, which no call reverses


class UndoLog(Protocol):
    """The last writes of each API key."""

    async def add(
        self, key_id: str, cluster: str, done: str, vmids: Collection[int], undo: Undo | None
    ) -> None:
        """Keep a write on these guests, and how it is undone."""

    async def last(self, key_id: str, cluster: str | None, vmid: int | None) -> KeptUndo | None:
        """Return the last one of the key, of a cluster or guest if one is named."""

    async def remove(self, kept: KeptUndo) -> None:
        """Drop one that was carried out."""


def merged(undos: Iterable[Undo]) -> list[Undo]:
    """Return the calls, those that differ in their `vmids` only as one."""
    groups: dict[str, list[Undo]] = {}
    for undo in undos:
        others = {k: v for k, v in undo.call.arguments.items() if k != "vmids"}
        groups.setdefault(NextCall(undo.call.tool, others).text, []).append(undo)
    return [_merge(group) for group in groups.values()]


def _merge(undos: list[Undo]) -> Undo:
    first = undos[0]
    if len(undos) == 1:
        return first
    vmids = sorted({vmid for each in undos for vmid in each.call.arguments["vmids"]})
    arguments: dict[str, Any] = {**first.call.arguments, "vmids": vmids}
    left = {vmid: state for each in undos for vmid, state in each.left.items()}
    return Undo(NextCall(first.call.tool, arguments), left)
