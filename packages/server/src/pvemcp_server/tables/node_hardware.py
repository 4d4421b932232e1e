"""ZFS pools, bridges and PCI devices of nodes."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final

from proxmox_client import Node
from proxmox_client.api.hardware import NetworkInterface, PciDevice
from proxmox_client.api.hardware import ZfsPool as ZfsAnswer
from proxmox_client.json_decoder import split_list
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.per_node import node_table, rows_of_nodes
from pvemcp_server.tables.registry import LoadRequest
from pvemcp_server.tables.rows import Col, Row, Unit, percent

_BRIDGES: Final = frozenset({"bridge", "OVSBridge"})
_KINDS: Final = {
    "0x01": "storage",
    "0x02": "network",
    "0x03": "display",
    "0x04": "multimedia",
    "0x07": "communication",
    "0x08": "system",
    "0x0c": "serial bus",
    "0x12": "accelerator",
}
"""Kinds of PCI devices by the first byte of their class."""


class ZfsPool(Row):
    """A ZFS pool of a node."""

    minimal: ClassVar[tuple[str, ...]] = ("node", "name", "health", "size", "usage_percentage")

    node: Annotated[str, Col("Node")]
    name: Annotated[str, Col("Pool", aliases=("pool",))]
    health: Annotated[str, Col("State: ONLINE, DEGRADED, FAULTED, SUSPENDED …", aliases=("state",))]
    size: Annotated[int | None, Col("Size", Unit.BYTES, ("total",))]
    used: Annotated[int | None, Col("In use", Unit.BYTES, ("allocated",))]
    free: Annotated[int | None, Col("Not in use", Unit.BYTES)]
    usage_percentage: Annotated[
        float | None, Col("In use", Unit.PERCENT, ("disk_usage_percentage",))
    ]
    fragmentation: Annotated[float | None, Col("Fragmentation of the free space", Unit.PERCENT)]
    deduplication: Annotated[float | None, Col("Ratio of deduplication; 1 for none")]


class Bridge(Row):
    """A network bridge of a node."""

    minimal: ClassVar[tuple[str, ...]] = ("node", "name", "active", "ports", "address")

    node: Annotated[str, Col("Node")]
    name: Annotated[str, Col("Bridge: vmbr0", aliases=("bridge", "iface"))]
    type: Annotated[str, Col("Linux bridge or Open vSwitch", values=("bridge", "OVSBridge"))]
    active: Annotated[bool, Col("Whether it is up")]
    autostart: Annotated[bool, Col("Whether it comes up with the node")]
    ports: Annotated[list[str], Col("Interfaces of the node in it")]
    vlan_aware: Annotated[bool, Col("Whether it passes VLAN tags of guests on")]
    address: Annotated[str | None, Col("The node's address on it, in CIDR", aliases=("cidr", "ip"))]
    address6: Annotated[str | None, Col("The node's IPv6 address on it, in CIDR")]
    gateway: Annotated[str | None, Col("Gateway")]
    mtu: Annotated[int | None, Col("Largest packet, if configured")]
    comment: Annotated[str | None, Col("Comment")]


class PciDeviceRow(Row):
    """A PCI device of a node."""

    minimal: ClassVar[tuple[str, ...]] = ("node", "id", "kind", "vendor", "device", "iommu_group")

    node: Annotated[str, Col("Node")]
    id: Annotated[
        str, Col("Address: 0000:65:00.0, as hostpci options have it", aliases=("address", "slot"))
    ]
    kind: Annotated[str | None, Col("Kind by its class", values=tuple(_KINDS.values()))]
    vendor: Annotated[str, Col("Vendor by name, else by number", aliases=("vendor_name",))]
    device: Annotated[str, Col("Device by name, else by number", aliases=("device_name", "name"))]
    pci_class: Annotated[str | None, Col("Class: 0x030000", aliases=("class",))]
    vendor_id: Annotated[str | None, Col("Number of the vendor: 0x10de")]
    device_id: Annotated[str | None, Col("Number of the device")]
    iommu_group: Annotated[
        int | None, Col("Devices of one group are passed through together; null without IOMMU")
    ]
    mediated: Annotated[bool, Col("Whether it can be shared as virtual devices (mdev)")]


@node_table("zfs_pools", tool="GetNodeStatus")
async def zfs_pools(cluster: Cluster, request: LoadRequest) -> list[ZfsPool]:
    """ZFS pools of nodes with their health; the account needs Sys.Audit on /."""
    return await rows_of_nodes(cluster, request, Node.zfs_pools, _pool, "ZFS pools of node")


@node_table("bridges", tool="GetNodeStatus")
async def bridges(cluster: Cluster, request: LoadRequest) -> list[Bridge]:
    """Network bridges of nodes; the networks of guests name them."""

    async def ask(node: Node) -> Sequence[NetworkInterface]:
        return [each for each in await node.network() if each.type in _BRIDGES]

    return await rows_of_nodes(cluster, request, ask, _bridge, "networks of node")


@node_table("pci_devices", tool="GetNodeStatus")
async def pci_devices(cluster: Cluster, request: LoadRequest) -> list[PciDeviceRow]:
    """PCI devices of nodes, without bridges, memory and processors; needs Sys.Audit on /."""
    return await rows_of_nodes(cluster, request, Node.pci_devices, _device, "PCI devices of node")


def _pool(node: str, pool: ZfsAnswer) -> ZfsPool:
    return ZfsPool(
        node=node,
        name=pool.name,
        health=pool.health,
        size=pool.size,
        used=pool.allocated,
        free=pool.free,
        usage_percentage=percent(pool.allocated, pool.size),
        fragmentation=pool.fragmentation,
        deduplication=pool.deduplication,
    )


def _bridge(node: str, bridge: NetworkInterface) -> Bridge:
    return Bridge(
        node=node,
        name=bridge.iface,
        type=bridge.type,
        active=bridge.active,
        autostart=bridge.autostart,
        ports=split_list(bridge.bridge_ports or bridge.ovs_ports),
        vlan_aware=bool(bridge.bridge_vlan_aware),
        address=bridge.cidr or bridge.address,
        address6=bridge.cidr6 or bridge.address6,
        gateway=bridge.gateway,
        mtu=bridge.mtu,
        comment=(bridge.comments or "").strip() or None,
    )


def _device(node: str, device: PciDevice) -> PciDeviceRow:
    has_group = device.iommu_group is not None and device.iommu_group >= 0
    return PciDeviceRow(
        node=node,
        id=device.id,
        kind=_KINDS.get((device.pci_class or "")[:4]),
        vendor=device.vendor_name or device.vendor,
        device=device.device_name or device.device,
        pci_class=device.pci_class,
        vendor_id=device.vendor or None,
        device_id=device.device or None,
        iommu_group=device.iommu_group if has_group else None,
        mediated=device.mediated,
    )
