"""The guests that a task of Proxmox is about, as far as its type and ID say."""

import re
from collections.abc import Mapping
from typing import Final

from proxmox_client import Upid
from proxmox_client.api.resources import GuestResource

_VMID: Final = re.compile(r"(?<!\d)[1-9]\d{2,8}(?!\d)", re.ASCII)
# Tasks on guests of their node that their IDs do not name; those of the cluster are named bulk…
_OF_THEIR_NODE: Final = frozenset({"vzdump", "startall", "stopall", "suspendall", "migrateall"})
_OF_CLUSTER: Final = "bulk"


def guests_of_task(task: Upid, guests: Mapping[int, GuestResource]) -> set[int]:
    """Return the VMIDs that the ID names, else those of the guests that it may be at work on."""
    if named := {int(number) for number in _VMID.findall(task.id)}:
        return named
    if task.type in _OF_THEIR_NODE:
        return {vmid for vmid, guest in guests.items() if guest.node == task.node}
    return set(guests) if task.type.startswith(_OF_CLUSTER) else set()
