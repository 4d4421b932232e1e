"""Whether anything still needs a volume."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

from proxmox_client import Lxc, ProxmoxError, Qemu
from proxmox_client.api.configs import GuestConfig
from proxmox_client.api.guests import BothConfigs
from proxmox_client.api.resources import GuestResource
from proxmox_client.api.storage import Volume
from proxmox_client.properties import parse
from pvemcp_server.clusters import Cluster, InventoryView, Notes
from pvemcp_server.errors import Precondition
from pvemcp_server.tables import fanout
from pvemcp_server.tables.registry import LoadRequest
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.missing_privileges import extents_of
from pvemcp_server.toolkit.needs import Extent

_OWNED = {"images", "rootdir"}
# what guests can hold, and which kinds of guests; backups and templates are held by nobody
_HOLDERS = {
    "images": ("qemu", "lxc"),
    "rootdir": ("qemu", "lxc"),
    "iso": ("qemu",),
    "snippets": ("qemu", "lxc"),
}


@dataclass
class Uses:
    """What still needs a volume, in words; what the caller may not see is not named."""

    named: list[str] = field(default_factory=list)
    hidden: bool = False
    unread: int = 0  # guests that might hold it and could not be asked
    blind: bool = False  # whether there may be guests that the account does not see

    def add(self, use: str, *, seen: bool) -> None:
        if seen:
            self.named.append(use)
        else:
            self.hidden = True


async def users_of(
    cluster: Cluster,
    volume: Volume,
    seen: Sequence[Volume],
    others: Sequence[Volume],
    want: LoadRequest,
) -> Uses:
    """What still needs the volume: clones, its guest and its snapshots, drives of any guest.

    Proxmox lets volumes be deleted under a guest's feet. `others` is all there is beside it,
    `seen` what the caller sees of that. Snapshots of guests other than its own are not looked at.
    """
    uses = Uses()
    for clone in _clones(volume, others):
        uses.add(f"{clone.volid}, a clone of it", seen=clone in seen)
    await _look_at_owner(cluster, volume, uses)
    if not uses.named and not uses.hidden:
        await _look_at_guests(cluster, volume, want, uses)
    return uses


def _clones(volume: Volume, others: Sequence[Volume]) -> list[Volume]:
    """Linked clones: their names begin with that of their base, or they name it as parent."""
    image = volume.volid.partition(":")[2]
    bases = {image, volume.volid, volume.name}
    return [
        one
        for one in others
        if one.volid != volume.volid
        and (one.volid.startswith(f"{volume.volid}/") or _parent(one) in bases)
    ]


def _parent(volume: Volume) -> str:
    # `base-100-disk-0@__base__` on block storages, `../100/base-100-disk-0.qcow2` in folders
    return (volume.parent or "").partition("@")[0].removeprefix("../")


async def _look_at_owner(cluster: Cluster, volume: Volume, uses: Uses) -> None:
    if volume.vmid is None or volume.content not in _OWNED:
        return
    # whoever asks: a guest that this caller may not see still needs its disks
    owner = (await cluster.inventory.view()).by_vmid.get(volume.vmid)
    if owner is None:
        await _must_see(cluster, volume, volume.vmid)
        return
    seen = owner.vmid in (await cluster.inventory_view()).by_vmid
    for use in await _uses_of(cluster, owner, volume):
        uses.add(use, seen=seen)


async def _uses_of(cluster: Cluster, owner: GuestResource, volume: Volume) -> list[str]:
    """Where its own guest has the volume: now, after a restart, and in its snapshots."""
    calls = _calls(cluster, owner)
    both: Awaitable[BothConfigs[Any]] = calls.configs()
    try:
        configs, snapshots = await asyncio.gather(both, _snapshots(calls))
    except ProxmoxError as error:
        raise Precondition(
            f"Whether {volume.volid} is still in use cannot be found out: "
            f"{await cluster.explain(error)}"
        ) from error
    frozen = [name for name, one in snapshots.items() if _held(one, volume.volid)]
    whose = f"{owner.type} {owner.vmid}"
    return [
        *_held_by(configs, volume.volid, whose),
        *(f"snapshot {name!r} of {whose}" for name in frozen),
    ]


async def _must_see(cluster: Cluster, volume: Volume, vmid: int) -> None:
    """Only an account that may see every guest knows that this one is gone."""
    path = f"/vms/{vmid}"
    held = await cluster.pve.access.permissions(path)
    if "VM.Audit" not in held.get(path, {}):
        advice = await cluster.acl.advice(path, ["VM.Audit"])
        fact = f"{cluster.account} lacks VM.Audit on {path}"
        raise Precondition(
            f"Whether {volume.volid} is still in use cannot be found out: {advice.after(fact)}"
        )


async def _look_at_guests(cluster: Cluster, volume: Volume, want: LoadRequest, uses: Uses) -> None:
    """Look into the configurations of all guests that could have it, as far as time allows."""
    if volume.content not in _HOLDERS:
        return
    could = _could_hold(await cluster.inventory.view(), volume, want)
    found = await _configs(cluster, could, want)
    seen = (await cluster.inventory_view()).by_vmid
    for vmid, configs in found.items():
        for use in _held_by(configs, volume.volid, f"{could[vmid].type} {vmid}"):
            uses.add(use, seen=vmid in seen)
    uses.unread = len(could) - len(found)
    sight = await extents_of(cluster, needs.GUESTS)
    uses.blind = sight.get(needs.GUESTS) is not Extent.EVERYWHERE


async def _configs(
    cluster: Cluster, guests: Mapping[int, GuestResource], want: LoadRequest
) -> dict[int, BothConfigs[Any]]:
    """The running and pending configurations of those guests that can be asked."""
    nodes = (await cluster.inventory.view()).nodes
    online = {one.node for one in nodes if one.status == "online"}
    # notes would name guests that the caller may not know
    quiet = replace(cluster, notes=Notes())
    return await fanout.each(
        quiet,
        [vmid for vmid, guest in guests.items() if guest.node in online],
        lambda vmid: _calls(cluster, guests[vmid]).configs(),
        want,
        "guest",
    )


def _could_hold(
    whole: InventoryView, volume: Volume, want: LoadRequest
) -> dict[int, GuestResource]:
    """Guests of a fitting kind; only those of one node when the storage is that node's own."""
    storage = volume.volid.partition(":")[0]
    shared = any(one.shared for one in whole.storages if one.storage == storage)
    kinds = _HOLDERS[volume.content]
    return {
        one.vmid: one
        for one in sorted(whole.guests, key=attrgetter("vmid"))
        if one.type in kinds and one.vmid != volume.vmid and (shared or want.node(one.node))
    }


def _calls(cluster: Cluster, guest: GuestResource) -> Qemu | Lxc:
    return (cluster.pve.qemu if guest.type == "qemu" else cluster.pve.lxc)(guest.node, guest.vmid)


async def _snapshots(calls: Qemu | Lxc) -> dict[str, GuestConfig]:
    names = [one.name for one in await calls.snapshots()]
    configs = await asyncio.gather(*(calls.config(snapshot=name) for name in names))
    return dict(zip(names, configs, strict=True))


def _held_by(configs: BothConfigs[Any], volid: str, whose: str) -> list[str]:
    """Where a guest has the volume now or will have it after a restart, in words."""
    now, then = _held(configs.current, volid), _held(configs.pending, volid)
    removed = "its removal is pending until the guest restarts"
    added = "pending until the guest restarts"
    return [
        *(f"{name} of {whose}" + ("" if name in then else f" ({removed})") for name in now),
        *(f"{name} of {whose} ({added})" for name in then if name not in now),
    ]


def _held(config: GuestConfig, volid: str) -> list[str]:
    """The options in which the volume or a clone stands: drives, saved RAM, scripts."""
    drives = [one.id for one in config.disks if f"{one.volume}/".startswith(f"{volid}/")]
    plain = [name for name in ("vmstate", "hookscript") if config.raw.get(name) == volid]
    custom = ["cicustom"] if volid in parse(config.raw.get("cicustom")).values() else []
    return [*drives, *plain, *custom]
