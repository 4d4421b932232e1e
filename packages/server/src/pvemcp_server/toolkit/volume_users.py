"""Search for guests and clones that still use a volume, before it is deleted."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Final

from proxmox_client import Lxc, ProxmoxError, Qemu
from proxmox_client.api.configs import GuestConfig
from proxmox_client.api.guests import BothConfigs
from proxmox_client.api.storage import Volume
from proxmox_client.properties import parse
from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.errors import Precondition
from pvemcp_server.shown_names import shown_volume
from pvemcp_server.tables import fanout
from pvemcp_server.tables.registry import LoadRequest
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.missing_privileges import rights_of
from pvemcp_server.toolkit.needs import Extent

_OWNED = {"images", "rootdir"}
# Content that guests attach, with the types of those guests; none attaches backups or templates.
_ATTACHED_BY = {
    "images": ("qemu", "lxc"),
    "rootdir": ("qemu", "lxc"),
    "iso": ("qemu",),
    "snippets": ("qemu", "lxc"),
}
_DEEPEST: Final = 3  # slashes in the id of a base: local:100/base-100-disk-0.qcow2 has one
_HIDDEN_OWNER = "the guest that it belongs to cannot be read and is hidden."


@dataclass
class VolumeUsers:
    """The uses of a volume, in words; those that the caller may not see are not named."""

    named: list[str] = field(default_factory=list)
    hidden: bool = False  # whether there are uses that the caller may not see
    unread: int = 0  # guests that might use it and whose configuration could not be read
    blind: bool = False  # whether there may be guests that the account does not see

    def add(self, use: str, *, visible: bool) -> None:
        """Add a use, by name only if the caller may see it."""
        if visible:
            self.named.append(use)
        else:
            self.hidden = True


async def users_of(
    cluster: Cluster,
    volume: Volume,
    visible: Sequence[Volume],
    volumes: Sequence[Volume],
    request: LoadRequest,
) -> VolumeUsers:
    """Find the users of a volume: linked clones, its owner with its snapshots, other guests.

    The search is needed because Proxmox deletes volumes that guests still use. `volumes` are all
    on the storage, `visible` those that the caller may see. Guests the caller may not see count
    too, without being named. Snapshots of guests other than the owner are not read.
    """
    users = VolumeUsers()
    shown = {each.volid for each in visible}
    for clone in clones_of([volume], volumes):
        users.add(f"{shown_volume(clone.volid)}, a clone of it", visible=clone.volid in shown)
    if volume.vmid is not None and volume.content in _OWNED:
        await _add_owner(cluster, volume, volume.vmid, users)
    if volume.content in _ATTACHED_BY and not users.named and not users.hidden:
        await _add_other_guests(cluster, volume, request, users)
    return users


def clones_of(bases: Sequence[Volume], volumes: Iterable[Volume]) -> list[Volume]:
    """Return linked clones: their names begin with the name of a base, or name it as parent.

    Each volume is looked at once, however many bases there are.
    """
    volids = {base.volid for base in bases}
    names = {name for base in bases for name in (base.volid.partition(":")[2], base.name)} | volids

    def is_clone(candidate: Volume) -> bool:
        # a parent is `base-100-disk-0@__base__` on block storages and
        # `../100/base-100-disk-0.qcow2` in folders
        parent = (candidate.parent or "").partition("@")[0].removeprefix("../")
        parts = candidate.volid.split("/", _DEEPEST)
        begins = ("/".join(parts[:number]) for number in range(1, len(parts)))
        return parent in names or not volids.isdisjoint(begins)

    return [other for other in volumes if other.volid not in volids and is_clone(other)]


async def _add_owner(cluster: Cluster, volume: Volume, vmid: int, users: VolumeUsers) -> None:
    """Add the uses by the volume's own guest: now, after its next restart, and in snapshots."""
    # the whole inventory: a guest that this caller may not see still needs its disks
    owner = (await cluster.inventory.view()).by_vmid.get(vmid)
    if owner is None:
        # only an account that may see every guest can say that this one is gone
        path = f"/vms/{vmid}"
        held = await cluster.pve.access.permissions(path)
        if "VM.Audit" not in held.get(path, {}):
            advice = await cluster.acl.advice(path, ["VM.Audit"])
            fact = f"{cluster.account} lacks VM.Audit on {path}"
            raise Precondition(
                f"Whether {volume.volid} is still in use is unknown: {advice.after(fact)}"
            )
        return
    visible = owner.vmid in (await cluster.inventory_view()).by_vmid
    api = cluster.api_of(owner)
    both: Awaitable[BothConfigs[Any]] = api.configs()
    try:
        configs, snapshots = await asyncio.gather(both, _snapshot_configs(api))
    except ProxmoxError as error:
        reason = await cluster.explain(error) if visible else _HIDDEN_OWNER
        raise Precondition(
            f"Whether {volume.volid} is still in use is unknown: {reason}"
        ) from error
    guest = f"{owner.type} {owner.vmid}"
    for use in _uses_in(configs, volume.volid, guest):
        users.add(use, visible=visible)
    for name, config in snapshots.items():
        if _options_with(config, volume.volid):
            users.add(f"snapshot {name!r} of {guest}", visible=visible)


async def _snapshot_configs(api: Qemu | Lxc) -> dict[str, GuestConfig]:
    names = [snapshot.name for snapshot in await api.snapshots()]
    configs = await asyncio.gather(*(api.config(snapshot=name) for name in names))
    return dict(zip(names, configs, strict=True))


async def _add_other_guests(
    cluster: Cluster, volume: Volume, request: LoadRequest, users: VolumeUsers
) -> None:
    """Add the uses by guests that could attach the volume, as far as the budget allows.

    Only guests of a fitting type count and, if the storage belongs to one node, only its guests.
    """
    inventory = await cluster.inventory.view()
    name = volume.volid.partition(":")[0]
    shared = any(storage.shared for storage in inventory.storages if storage.storage == name)
    candidates = {
        guest.vmid: guest
        for guest in sorted(inventory.guests, key=attrgetter("vmid"))
        if guest.type in _ATTACHED_BY[volume.content]
        and guest.vmid != volume.vmid
        and (shared or request.wants_node(guest.node))
    }

    def read(vmid: int) -> Awaitable[BothConfigs[Any]]:
        return cluster.api_of(candidates[vmid]).configs()

    configs = await fanout.each(
        replace(cluster, notes=Notes()),  # its notes would name guests hidden from the caller
        [vmid for vmid, guest in candidates.items() if guest.node not in inventory.offline_nodes],
        read,
        request,
        "guest",
    )
    visible = (await cluster.inventory_view()).by_vmid
    for vmid, config in configs.items():
        for use in _uses_in(config, volume.volid, f"{candidates[vmid].type} {vmid}"):
            users.add(use, visible=vmid in visible)
    users.unread = len(candidates) - len(configs)
    rights = await rights_of(cluster, needs.GUESTS)
    right = rights.get(needs.GUESTS)
    users.blind = right is None or right.extent is not Extent.EVERYWHERE


def _uses_in(configs: BothConfigs[Any], volid: str, guest: str) -> list[str]:
    """Return the guest's options with the volume, now or after its next restart, in words."""
    current = _options_with(configs.current, volid)
    pending = _options_with(configs.pending, volid)
    removed = "its removal is pending until the guest restarts"
    added = "pending until the guest restarts"
    return [
        *(f"{n} of {guest}" + ("" if n in pending else f" ({removed})") for n in current),
        *(f"{n} of {guest} ({added})" for n in pending if n not in current),
    ]


def _options_with(config: GuestConfig, volid: str) -> list[str]:
    """Return the options that name the volume or a clone of it: drives, saved RAM, scripts."""
    drives = [disk.id for disk in config.disks if f"{disk.volume}/".startswith(f"{volid}/")]
    plain = [name for name in ("vmstate", "hookscript") if config.raw.get(name) == volid]
    custom = ["cicustom"] if volid in parse(config.raw.get("cicustom")).values() else []
    return [*drives, *plain, *custom]
