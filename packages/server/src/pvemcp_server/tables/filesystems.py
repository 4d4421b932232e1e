"""File systems inside guests."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from proxmox_client import Lxc, Qemu
from proxmox_client.api.agent import Filesystem
from proxmox_client.api.configs import GuestDisk, LxcConfig
from proxmox_client.api.resources import GuestResource
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guest_reports import note_problems, reports
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import of_guest
from pvemcp_server.tables.registry import Cost, LoadRequest, made, table
from pvemcp_server.tables.rows import Col, Gap, Row, Unit, percent

_UNREPORTED = Gap(
    "an agent did not report it (the column problem says why), or it is a container's mount point: "
    "Proxmox reports the use of the root file system of running containers only"
)


class GuestFilesystem(Row):
    """A file system in a guest, or the reason why none is known."""

    minimal: ClassVar[tuple[str, ...]] = (
        "vmid",
        "vm_name",
        "mount_point",
        "total",
        "usage_percentage",
        "problem",
    )

    vmid: Annotated[int, Col("Guest", aliases=("guest_id",))]
    vm_name: Annotated[str, Col("Name of the guest", aliases=("guest_name",))]
    node: Annotated[str, Col("Node the guest is on")]
    type: Annotated[Literal["qemu", "lxc"], Col("Kind of guest")]
    mount_point: Annotated[
        str | None, Col("Where it is mounted: /, /boot, C:\\", aliases=("path",))
    ]
    name: Annotated[
        str | None, Col("Device in a VM: sda1; a container's volume: rootfs, mp0", aliases=("id",))
    ]
    filesystem: Annotated[str | None, Col("Kind in a VM: ext4, xfs, NTFS …", aliases=("fstype",))]
    devices: Annotated[list[str], Col("Disks it is on, as the VM names them: /dev/sda1")]
    volume: Annotated[str | None, Col("Volume of a container's mount point")]
    used: Annotated[int | None, Col("In use", Unit.BYTES, gap=_UNREPORTED)]
    total: Annotated[
        int | None,
        Col(
            "Size; of a container's mount point as configured",
            Unit.BYTES,
            ("size",),
            gap=_UNREPORTED,
        ),
    ]
    free: Annotated[int | None, Col("Not in use", Unit.BYTES, gap=_UNREPORTED)]
    usage_percentage: Annotated[
        float | None, Col("In use", Unit.PERCENT, ("disk_usage_percentage",), gap=_UNREPORTED)
    ]
    problem: Annotated[str | None, Col("Why none of a VM is known, in Proxmox's words")]


@table(
    "filesystems",
    tool="GetVmStatus",
    joined=("GetVmConfig",),
    cost=Cost.PER_GUEST,
    covered=of_guest,
    relations=(TO_GUEST, TO_NODE),
    rare=True,
)
async def filesystems(cluster: Cluster, request: LoadRequest) -> list[GuestFilesystem]:
    """File systems in running VMs, as their guest agent reports them, and of containers.

    A VM whose agent reports none has one row with the problem.
    """
    what = "file system of guest"
    vms, containers = await asyncio.gather(
        reports(cluster, request, "qemu", _report, what), _containers(cluster, request)
    )
    rows = await made(cluster, vms, lambda pair: _of_vm(*pair))
    note_problems(cluster, rows, "file systems")
    rows += await made(cluster, containers, lambda pair: _of_container(*pair))
    return sorted(rows, key=lambda row: (row.vmid, row.mount_point or ""))


async def _report(api: Qemu | Lxc) -> Sequence[Filesystem]:
    return await api.agent_filesystems() if isinstance(api, Qemu) else []


async def _containers(
    cluster: Cluster, request: LoadRequest
) -> list[tuple[GuestResource, LxcConfig]]:
    """Return the containers with their configurations, which have the mount points."""
    guests = {guest.vmid: guest for guest in await fanout.guests(cluster, request, "lxc")}

    async def config(vmid: int) -> LxcConfig:
        return await cluster.pve.lxc(guests[vmid].node, vmid).config()

    answers = await fanout.each(cluster, guests, config, request, "mount point of guest")
    return [(guests[vmid], config) for vmid, config in answers.items()]


def _of_vm(guest: GuestResource, report: Sequence[Filesystem] | str) -> list[GuestFilesystem]:
    if isinstance(report, str):
        return [_row(guest, problem=report)]
    return [
        _row(
            guest,
            mount_point=each.mount_point,
            name=each.name,
            filesystem=each.type,
            devices=[disk["dev"] for disk in each.disk if disk.get("dev")],
            used=each.used,
            total=each.total,
        )
        for each in report
    ] or [_row(guest, problem="the guest agent reports no file system")]


def _of_container(guest: GuestResource, config: LxcConfig) -> list[GuestFilesystem]:
    return [_mounted(guest, disk) for disk in config.disks if disk.mount_point]


def _mounted(guest: GuestResource, disk: GuestDisk) -> GuestFilesystem:
    """Return a mount point; the inventory has the use of a running container's root disk."""
    measured = disk.id == "rootfs" and guest.status == "running"
    return _row(
        guest,
        mount_point=disk.mount_point,
        name=disk.id,
        volume=disk.volume,
        used=guest.disk if measured else None,
        total=guest.disk_max if measured and guest.disk_max else disk.size,
    )


def _row(
    guest: GuestResource,
    *,
    mount_point: str | None = None,
    name: str | None = None,
    filesystem: str | None = None,
    devices: Sequence[str] = (),
    volume: str | None = None,
    used: int | None = None,
    total: int | None = None,
    problem: str | None = None,
) -> GuestFilesystem:
    return GuestFilesystem(
        vmid=guest.vmid,
        vm_name=guest.name,
        node=guest.node,
        type=guest.type,
        mount_point=mount_point,
        name=name,
        filesystem=filesystem,
        devices=list(devices),
        volume=volume,
        used=used,
        total=total,
        free=None if used is None or total is None else max(0, total - used),
        usage_percentage=percent(used, total),
        problem=problem,
    )
