"""Configurations that reads of many guests fetched, kept for the next such read.

Nothing of Proxmox proves that a configuration is unchanged: its digest is in the configuration
only, `/cluster/resources` has none, and the `version` of `/cluster/status` is that of Corosync's
file. So the time bounds them, a write through this server ends them, and so does each change of
what the list of guests shows of a configuration.
"""

from collections.abc import Iterable
from time import monotonic
from typing import Any, Final, NamedTuple

from proxmox_client.api.guests import BothConfigs
from proxmox_client.api.resources import GuestResource

KEPT_SECONDS: Final = 300.0
MOST_KEPT: Final = 10_000
_SHOWN: Final = (
    *("type", "node", "name", "status", "template", "tags", "pool", "lock"),
    *("cpu_count", "memory_max", "disk_max"),
)


class Kept(NamedTuple):
    """A configuration, the row of its guest when it was read, and when that was."""

    configs: BothConfigs[Any]
    row: GuestResource
    read: float  # on the monotonic clock, before the request was sent

    def fits(self, row: GuestResource) -> bool:
        """Return whether the list shows the guest unchanged, and not started again."""
        started = (row.uptime or 0) < (self.row.uptime or 0)
        same = (getattr(row, name) == getattr(self.row, name) for name in _SHOWN)
        return not started and all(same)


class KeptConfigs:
    """The kept configurations of one cluster, as one Proxmox identity sees them, by VMID."""

    def __init__(self) -> None:
        self._kept: dict[int, Kept] = {}  # the longest kept first

    def of(self, rows: Iterable[GuestResource], written: float) -> dict[int, Kept]:
        """Return those of these guests that may be used; `written` is when the last write was."""
        self.drop_expired(written)
        found = {row.vmid: (row, self._kept.get(row.vmid)) for row in rows}
        return {vmid: kept for vmid, (row, kept) in found.items() if kept and kept.fits(row)}

    def put(self, row: GuestResource, configs: BothConfigs[Any], read: float) -> None:
        """Keep a configuration; the one that was kept longest goes when there are too many."""
        self._kept.pop(row.vmid, None)
        self._kept[row.vmid] = Kept(configs, row, read)
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]

    def drop_expired(self, written: float) -> None:
        """Forget those that are too old, or were read before the last write."""
        oldest = max(monotonic() - KEPT_SECONDS, written)
        for vmid in [vmid for vmid, kept in self._kept.items() if kept.read <= oldest]:
            del self._kept[vmid]

    def __len__(self) -> int:
        return len(self._kept)
