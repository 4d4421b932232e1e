"""Whether anything still needs a disk image."""

import asyncio

from proxmox_client import Lxc, Qemu
from proxmox_client.api.configs import GuestConfig
from proxmox_client.api.storage import Volume
from pvemcp_server.clusters import Cluster


async def users_of(cluster: Cluster, volume: Volume, others: list[Volume]) -> list[str]:
    """What still needs the image: its guest, that guest's snapshots, or clones made of it.

    Proxmox lets images be deleted under a guest's feet. A guest that cannot be read raises: what
    is not known to be free is not.
    """
    return [*_clones(volume, others), *await _uses_of_owner(cluster, volume)]


def _clones(volume: Volume, others: list[Volume]) -> list[str]:
    image = volume.volid.partition(":")[2]
    return [
        f"{one.volid}, a clone of it"
        for one in others
        if one.parent
        and one.volid != volume.volid
        and one.parent.partition("@")[0] in (image, volume.volid, volume.name)
    ]


async def _uses_of_owner(cluster: Cluster, volume: Volume) -> list[str]:
    # whoever asks: a guest that this caller may not see still needs its disks
    known = (await cluster.inventory.snapshot()).by_vmid
    owner = known.get(volume.vmid or 0)
    if owner is None:
        return []
    calls = (cluster.pve.qemu if owner.type == "qemu" else cluster.pve.lxc)(owner.node, owner.vmid)
    config, snapshots = await asyncio.gather(calls.config(), _snapshots(calls))
    found = [f"{disk} of {owner.type} {owner.vmid}" for disk in _uses(config, volume.volid)]
    for name, frozen in snapshots.items():
        if any(_uses(frozen, volume.volid)):
            found.append(f"snapshot {name!r} of {owner.type} {owner.vmid}")
    return found


async def _snapshots(calls: Qemu | Lxc) -> dict[str, GuestConfig]:
    names = [one.name for one in await calls.snapshots()]
    configs = await asyncio.gather(*(calls.config(snapshot=name) for name in names))
    return dict(zip(names, configs, strict=True))


def _uses(config: GuestConfig, volid: str) -> list[str]:
    """The options in which the volume stands: disks, unused ones, and saved RAM."""
    held = [disk.id for disk in config.disks if disk.volume == volid]
    return held + (["vmstate"] if config.raw.get("vmstate") == volid else [])
