"""Disks and network devices of guests, as configured."""

from typing import Annotated, Any, ClassVar, Literal

from proxmox_client.api.configs import GuestDisk, GuestNetwork
from proxmox_client.api.guests import BothConfigs
from proxmox_client.api.resources import GuestResource
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.config_options import with_pending
from pvemcp_server.tables.guest_configs import config_table, configs
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.registry import LoadRequest, Relation, made
from pvemcp_server.tables.rows import GUEST_TYPES, Col, Gap, Row, Unit

_CONFIGURED = Gap(
    "the configuration has no address that DHCP or the guest itself sets; GetVmStatus reads it",
    ("dhcp", "manual", "auto"),
)

_ROWS = "rows where it is added are not in use yet, removed and changed ones still are"
_PENDING = "What the next start of the guest does to it: removed, added, or changed to …"


class Disk(Row):
    """A disk, drive or mount point of a guest."""

    minimal: ClassVar[tuple[str, ...]] = ("vmid", "id", "storage", "volume", "size", "pending")

    vmid: Annotated[int, Col("Guest it belongs to", aliases=("guest_id",))]
    vm_name: Annotated[str, Col("Name of the guest", aliases=("guest_name",))]
    node: Annotated[str, Col("Node the guest is on")]
    type: Annotated[Literal["qemu", "lxc"], Col("Kind of guest", meanings=GUEST_TYPES)]
    id: Annotated[
        str,
        Col(
            "Name in the configuration: scsi0, rootfs, mp0, unused0 …",
            aliases=("disk", "device", "slot"),
        ),
    ]
    storage: Annotated[str | None, Col("Storage it is on")]
    volume: Annotated[str, Col("Volume id, a path, or none for an empty drive")]
    size: Annotated[int | None, Col("Size", Unit.BYTES)]
    bus: Annotated[str, Col("scsi, virtio, sata, ide, efidisk, rootfs, mp, unused …")]
    media: Annotated[str, Col("Kind of medium", values=("disk", "cdrom"))]
    cache: Annotated[str | None, Col("Cache mode")]
    discard: Annotated[bool, Col("Whether freed space is given back")]
    backup: Annotated[bool, Col("Whether backups include it")]
    mount_point: Annotated[str | None, Col("Path in the container")]
    options: Annotated[str | None, Col("Further options, as configured: iothread=1,ssd=1 …")]
    pending: Annotated[str | None, Col(_PENDING)]


class Network(Row):
    """A network device of a guest."""

    minimal: ClassVar[tuple[str, ...]] = (
        *("vmid", "id", "model", "mac", "bridge", "vlan", "ip", "pending"),
    )

    vmid: Annotated[int, Col("Guest it belongs to", aliases=("guest_id",))]
    vm_name: Annotated[str, Col("Name of the guest", aliases=("guest_name",))]
    node: Annotated[str, Col("Node the guest is on")]
    type: Annotated[Literal["qemu", "lxc"], Col("Kind of guest", meanings=GUEST_TYPES)]
    id: Annotated[
        str, Col("Name in the configuration: net0 …", aliases=("nic", "interface", "device"))
    ]
    model: Annotated[str, Col("virtio, e1000 …; veth in a container")]
    mac: Annotated[str | None, Col("MAC address")]
    bridge: Annotated[str | None, Col("Bridge it is connected to")]
    vlan: Annotated[int | None, Col("VLAN tag")]
    firewall: Annotated[bool, Col("Whether the firewall filters it")]
    rate: Annotated[float | None, Col("Limit in MB/s")]
    ip: Annotated[str | None, Col("Address as configured: CIDR, dhcp or manual", gap=_CONFIGURED)]
    ip6: Annotated[str | None, Col("IPv6 address as configured", gap=_CONFIGURED)]
    link_down: Annotated[bool, Col("Whether it is unplugged")]
    options: Annotated[str | None, Col("Further options, as configured: mtu=9000,trunks=2;3 …")]
    pending: Annotated[str | None, Col(_PENDING)]


@config_table(
    "disks",
    relations=(
        TO_GUEST,
        TO_NODE,
        Relation(
            "storage", "storages", {"storage": "storage", "node": "node"}, "The storage it is on"
        ),
    ),
)
async def disks(cluster: Cluster, request: LoadRequest) -> list[Disk]:
    """Disks, drives and mount points of guests."""
    pairs = await configs(cluster, request, rows=_ROWS)
    return await made(cluster, pairs, lambda pair: _disks(*pair))


def _disks(guest: GuestResource, both: BothConfigs[Any]) -> list[Disk]:
    disks = with_pending(both, both.current.disks, both.pending.disks)
    return [_disk(guest, disk, pending) for disk, pending in disks]


@config_table("networks")
async def networks(cluster: Cluster, request: LoadRequest) -> list[Network]:
    """Network devices of guests; addresses has live IPs."""
    pairs = await configs(cluster, request, rows=_ROWS)
    return await made(cluster, pairs, lambda pair: _networks(*pair))


def _networks(guest: GuestResource, both: BothConfigs[Any]) -> list[Network]:
    devices = with_pending(both, both.current.networks, both.pending.networks)
    return [_network(guest, device, pending) for device, pending in devices]


def _disk(guest: GuestResource, disk: GuestDisk, pending: str | None) -> Disk:
    return Disk(
        vmid=guest.vmid,
        vm_name=guest.name,
        node=guest.node,
        type=guest.type,
        id=disk.id,
        storage=disk.storage,
        volume=disk.volume,
        size=disk.size,
        bus=disk.bus,
        media=disk.media,
        cache=disk.cache,
        discard=disk.discard,
        backup=disk.backup,
        mount_point=disk.mount_point,
        options=disk.further,
        pending=pending,
    )


def _network(guest: GuestResource, device: GuestNetwork, pending: str | None) -> Network:
    return Network(
        vmid=guest.vmid,
        vm_name=guest.name,
        node=guest.node,
        type=guest.type,
        id=device.id,
        model=device.model,
        mac=device.mac,
        bridge=device.bridge,
        vlan=device.vlan,
        firewall=device.firewall,
        rate=device.rate,
        ip=device.ip,
        ip6=device.ip6,
        link_down=device.link_down,
        options=device.further,
        pending=pending,
    )
