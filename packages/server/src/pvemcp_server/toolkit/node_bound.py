"""What binds a guest to its node: devices, drives and linked clones that no migration can move."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from proxmox_client.api.configs import GuestDisk
from proxmox_client.properties import Properties, flag, parse
from pvemcp_server.shown_names import shown_volume

# the name of a volume that builds on another: `base-102-disk-0/vm-103-disk-0`
_LINKED_CLONE: Final = re.compile(r"[:/](base(?:vol)?-\d+-[^/:]+)/", re.ASCII)
_DEVICE: Final = re.compile(r"(hostpci|usb|serial|parallel)\d+", re.ASCII)


class Obstacle(NamedTuple):
    """Why a guest cannot move, as the end of a sentence about it, and what to do first."""

    text: str
    remedy: str


def bound_devices(options: Mapping[str, Any]) -> list[str]:
    """Return the devices of the node among a guest's options.

    Mapped devices, sockets and SPICE are not bound to a node.
    """
    return [
        name
        for name, device in _devices(options)
        if "mapping" not in device and device.get("host") not in ("socket", "spice")
    ]


def mapped_devices(options: Mapping[str, Any]) -> list[str]:
    """Return the mapped devices among a guest's options: nodes may have one or lack it."""
    return [name for name, device in _devices(options) if "mapping" in device]


def _devices(options: Mapping[str, Any]) -> Iterator[tuple[str, Properties]]:
    for name in sorted(filter(_DEVICE.fullmatch, options)):
        yield name, parse(str(options[name]), "host")


def bound_drive(drive: GuestDisk, *, shared: bool | None) -> Obstacle | None:
    """Return why Proxmox can neither copy a drive nor find it on another node, if so.

    These are CDs and paths of the node. Not a cloud-init drive: Proxmox creates it again there.
    `shared` is whether its storage is, or None if that is not known.
    """
    if flag(drive.options.get("shared")) if shared is None else shared:
        return None
    is_image = drive.storage is not None and not drive.is_cloud_init
    volume = shown_volume(drive.volume)
    if drive.volume == "cdrom" or (drive.media == "cdrom" and is_image):
        text = f"has a local CD-ROM in its drive {drive.id}: {volume}"
        return Obstacle(text, "Eject it first.")
    if drive.volume.startswith("/"):
        text = f"uses a path of its node: {drive.id} is {volume}"
        return Obstacle(text, "Detach it first.")
    return None


def clone_base(disk: GuestDisk) -> str | None:
    """Return the volume that a linked clone builds on: a local one does not move with it."""
    match = _LINKED_CLONE.search(disk.volume)
    return match[1] if match else None
