"""The configuration of one guest."""

import asyncio
from typing import Annotated, Any, Literal

from proxmox_client import Lxc, Qemu
from proxmox_client.api.configs import (
    GuestConfig,
    GuestDisk,
    GuestNetwork,
    LxcConfig,
    QemuConfig,
)
from proxmox_client.api.guests import BothConfigs
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.clusters.explain import quoted
from pvemcp_server.tables.config_options import pending_changes, shown, with_pending
from pvemcp_server.tables.rows import Col, Row, Unit
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ItsCluster, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.cluster_lookup import cluster_with
from pvemcp_server.toolkit.registry import Document, document, tool


class VmConfig(Row):
    """A guest's configuration; fields of the other guest type are null."""

    cluster: Annotated[str, Col("Cluster")]
    vmid: Annotated[int, Col("Number")]
    name: Annotated[str, Col("Display name")]
    node: Annotated[str, Col("Node it is on")]
    type: Annotated[Literal["qemu", "lxc"], Col("Virtual machine (qemu) or container (lxc)")]
    description: Annotated[str | None, Col("Notes")]
    tags: Annotated[list[str], Col("Tags")]
    is_template: Annotated[bool, Col("Whether it is a template")]
    protection: Annotated[bool, Col("Whether Proxmox refuses to remove it or its disks")]
    on_boot: Annotated[bool, Col("Started with its node")]
    startup: Annotated[str | None, Col("Order and delays of starting")]
    cores: Annotated[int | None, Col("Cores, per socket (qemu); null: no limit (lxc)", Unit.COUNT)]
    sockets: Annotated[int | None, Col("Sockets (qemu)", Unit.COUNT)]
    cpu: Annotated[str | None, Col("Emulated processor (qemu)")]
    arch: Annotated[str | None, Col("Architecture")]
    memory_mb: Annotated[int, Col("Memory", Unit.MIB)]
    balloon_mb: Annotated[int | None, Col("Least memory under ballooning (qemu)", Unit.MIB)]
    swap_mb: Annotated[int | None, Col("Swap (lxc)", Unit.MIB)]
    bios: Annotated[str | None, Col("seabios or ovmf (qemu)")]
    machine: Annotated[str | None, Col("Emulated board (qemu)")]
    os_type: Annotated[str | None, Col("Kind of operating system")]
    agent: Annotated[str | None, Col("Guest agent as given (qemu)")]
    agent_enabled: Annotated[bool | None, Col("Whether the guest agent is on (qemu)")]
    boot_order: Annotated[list[str], Col("Devices to boot from, in order (qemu)")]
    snapshot_parent: Annotated[str | None, Col("Snapshot the present state descends from")]
    disks: Annotated[list[dict[str, Any]], Col("Disks, drives and mount points; sizes in bytes")]
    networks: Annotated[list[dict[str, Any]], Col("Network devices; rate in MB/s")]
    other: Annotated[
        dict[str, Any], Col("Everything else, as given; values of environment variables are hidden")
    ]
    pending: Annotated[list[str], Col("Changes that wait for a restart: memory: 2048 → 4096")]


# Options with a field of their own, and options of no use outside Proxmox.
_IN_FIELDS = {
    "name",
    "hostname",
    "description",
    "tags",
    "template",
    "protection",
    "onboot",
    "startup",
    "cores",
    "sockets",
    "cpu",
    "arch",
    "memory",
    "balloon",
    "swap",
    "bios",
    "machine",
    "ostype",
    "agent",
    "boot",
    "bootdisk",
    "parent",
    "digest",
}
_NOT_SHOWN = {"cipassword"}


@tool(
    "GetVmConfig",
    title="Guest configuration",
    area=Area.VMS,
    effect=Effect.READ,
    answer=VmConfig,
    needs=(needs.GUESTS,),
)
async def get_vm_config(call: Call, *, cluster_name: ItsCluster = None, vmid: VmId) -> Document:
    """Get a guest's configuration in force (CPU, memory, disks, networks), and pending changes."""
    cluster = await cluster_with(call, cluster_name, vmids=[vmid])
    api = await cluster.readable(vmid)
    both, raw_lines = await asyncio.gather(_configs(api), _raw_lines(api))
    config, pending = both.current, pending_changes(both)
    if pending:
        cluster.notes.add(
            f"Changes wait for the next start of guest {vmid}: {'; '.join(map(quoted, pending))}. "
            "The fields show what is in force now."
        )
    devices = {disk.id for disk in config.disks} | {network.id for network in config.networks}
    left_out = _IN_FIELDS | _NOT_SHOWN | devices
    return document(
        VmConfig(
            cluster=cluster.name,
            vmid=vmid,
            name=config.name,
            node=api.node,
            type=api.type,
            description=(config.description or "").strip() or None,
            tags=config.tag_list,
            is_template=config.template,
            protection=config.protection,
            on_boot=config.on_boot,
            startup=config.startup,
            arch=config.arch,
            memory_mb=config.memory_mb,
            os_type=config.os_type,
            snapshot_parent=config.parent,
            disks=[
                disk_fields(disk, waits)
                for disk, waits in with_pending(both, config.disks, both.pending.disks)
            ],
            networks=[
                network_fields(network, waits)
                for network, waits in with_pending(both, config.networks, both.pending.networks)
            ],
            other={
                key: shown(key, value)
                for key, value in sorted((config.raw | raw_lines).items())
                if key not in left_out
            },
            pending=pending,
            **_fields_of_type(config),
        )
    )


async def _configs(api: Qemu | Lxc) -> BothConfigs[Any]:
    configs: BothConfigs[Any] = await api.configs()
    return configs


async def _raw_lines(api: Qemu | Lxc) -> dict[str, Any]:
    """Return the raw `lxc.*` lines of a container, which the pending configuration lacks."""
    if isinstance(api, Qemu):
        return {}
    raw = (await api.config(current=True)).raw
    return {"lxc": raw["lxc"]} if "lxc" in raw else {}


def _fields_of_type(config: GuestConfig) -> dict[str, Any]:
    """Return the fields that only VMs or only containers have; the others' are None."""
    qemu = config if isinstance(config, QemuConfig) else None
    return {
        "cores": config.cores or (1 if qemu else None),
        "sockets": qemu.sockets if qemu else None,
        "cpu": qemu.cpu if qemu else None,
        "balloon_mb": qemu.balloon if qemu else None,
        "swap_mb": config.swap if isinstance(config, LxcConfig) else None,
        "bios": (qemu.bios or "seabios") if qemu else None,
        "machine": qemu.machine if qemu else None,
        "agent": qemu.agent if qemu else None,
        "agent_enabled": qemu.agent_enabled if qemu else None,
        "boot_order": qemu.boot_order if qemu else [],
    }


def disk_fields(disk: GuestDisk, pending: str | None = None) -> dict[str, Any]:
    """Return a disk as an answer shows it; `pending` is what the next start does to it."""
    return {
        "id": disk.id,
        "storage": disk.storage,
        "volume": disk.volume,
        "size": disk.size,
        "bus": disk.bus,
        "media": disk.media,
        "cache": disk.cache,
        "discard": disk.discard,
        "backup": disk.backup,
        "mount_point": disk.mount_point,
        "options": disk.further,
        **_waiting(pending),
    }


def network_fields(network: GuestNetwork, pending: str | None = None) -> dict[str, Any]:
    """Return a network device as an answer shows it; `pending` as for disks."""
    return {
        "id": network.id,
        "name": network.name,
        "model": network.model,
        "mac": network.mac,
        "bridge": network.bridge,
        "vlan": network.vlan,
        "firewall": network.firewall,
        "link_down": network.link_down,
        "rate": network.rate,
        "ip": network.ip,
        "ip6": network.ip6,
        "options": network.further,
        **_waiting(pending),
    }


def _waiting(pending: str | None) -> dict[str, str]:
    """Return what the next start does to a device; nothing for the most, which stay."""
    return {"pending": pending} if pending else {}
