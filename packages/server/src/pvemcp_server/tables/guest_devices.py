"""Disks and network devices of guests, as configured."""

from typing import Annotated, ClassVar, Literal

from proxmox_client.api.configs import GuestDisk, GuestNetwork
from proxmox_client.api.resources import GuestResource
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.guest_configs import config_table, configs
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.registry import Col, LoadRequest, Relation, Row, Unit


class Disk(Row):
    """A disk, drive or mount point of a guest."""

    minimal: ClassVar[tuple[str, ...]] = ("vmid", "id", "storage", "volume", "size")

    vmid: Annotated[int, Col("Guest it belongs to", also=("guest_id",))]
    vm_name: Annotated[str, Col("Name of the guest", also=("guest_name",))]
    node: Annotated[str, Col("Node the guest is on")]
    type: Annotated[Literal["qemu", "lxc"], Col("Kind of guest")]
    id: Annotated[str, Col("Name in the configuration: scsi0, rootfs, mp0, unused0 …")]
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


class Network(Row):
    """A network device of a guest."""

    minimal: ClassVar[tuple[str, ...]] = ("vmid", "id", "model", "mac", "bridge", "vlan", "ip")

    vmid: Annotated[int, Col("Guest it belongs to", also=("guest_id",))]
    vm_name: Annotated[str, Col("Name of the guest", also=("guest_name",))]
    node: Annotated[str, Col("Node the guest is on")]
    type: Annotated[Literal["qemu", "lxc"], Col("Kind of guest")]
    id: Annotated[str, Col("Name in the configuration: net0 …")]
    model: Annotated[str, Col("virtio, e1000 …; veth in a container")]
    mac: Annotated[str | None, Col("MAC address")]
    bridge: Annotated[str | None, Col("Bridge it is connected to")]
    vlan: Annotated[int | None, Col("VLAN tag")]
    firewall: Annotated[bool, Col("Whether the firewall watches it")]
    rate: Annotated[float | None, Col("Limit in MB/s")]
    ip: Annotated[str | None, Col("Address as configured: CIDR, dhcp or manual")]
    ip6: Annotated[str | None, Col("IPv6 address as configured")]
    link_down: Annotated[bool, Col("Whether it is unplugged")]
    options: Annotated[str | None, Col("Further options, as configured: mtu=9000,trunks=2;3 …")]


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
async def disks(cluster: Cluster, want: LoadRequest) -> list[Disk]:
    """Disks, drives and mount points of guests."""
    found = await configs(cluster, want)
    return [_disk(guest, one) for guest, config in found for one in config.disks]


@config_table("networks")
async def networks(cluster: Cluster, want: LoadRequest) -> list[Network]:
    """Network devices of guests."""
    found = await configs(cluster, want)
    return [_network(guest, one) for guest, config in found for one in config.networks]


def _disk(guest: GuestResource, one: GuestDisk) -> Disk:
    return Disk(
        vmid=guest.vmid,
        vm_name=guest.name,
        node=guest.node,
        type=guest.type,
        id=one.id,
        storage=one.storage,
        volume=one.volume,
        size=one.size,
        bus=one.bus,
        media=one.media,
        cache=one.cache,
        discard=one.discard,
        backup=one.backup,
        mount_point=one.mount_point,
        options=one.further,
    )


def _network(guest: GuestResource, one: GuestNetwork) -> Network:
    return Network(
        vmid=guest.vmid,
        vm_name=guest.name,
        node=guest.node,
        type=guest.type,
        id=one.id,
        model=one.model,
        mac=one.mac,
        bridge=one.bridge,
        vlan=one.vlan,
        firewall=one.firewall,
        rate=one.rate,
        ip=one.ip,
        ip6=one.ip6,
        link_down=one.link_down,
        options=one.further,
    )
