"""Creation of virtual machines and containers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from proxmox_client import ProxmoxError
from proxmox_client.api.resources import GuestType
from proxmox_client.api.storage import StorageContentKind
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.shown_names import shown_volume
from pvemcp_server.toolkit import guest_options, needs, write_target
from pvemcp_server.toolkit.arguments import INTEGER, ItsCluster, NodeName, StorageName
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.guest_options import (
    DEFAULT_BRIDGE,
    Address,
    Bridge,
    CloudInitUser,
    Cores,
    Dns,
    GuestName,
    GuestOptions,
    GuestText,
    Memory,
    NewVmId,
    Parameters,
    Password,
    PoolName,
    SshKeys,
    Start,
    Tags,
    Vlan,
)
from pvemcp_server.toolkit.missing_privileges import require_privileges
from pvemcp_server.toolkit.new_guest import NewGuest
from pvemcp_server.toolkit.own_rights import Marks, checked_vmid
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.room import room_for_new

DiskSize = Annotated[int | None, INTEGER, Field(ge=1, le=131_072, description="GiB")]
Iso = Annotated[str | None, Field(max_length=500, description="ISO volid to boot from")]
Image = Annotated[
    str | None, Field(max_length=500, description="Volid of a disk image (import) to copy")
]
OsType = Annotated[
    Literal["l26", "win11", "win10", "other"],
    Field(description="l26 is Linux"),
]
Uefi = Annotated[bool, Field(description="UEFI; with a TPM for win11")]
Template = Annotated[str, Field(max_length=255, description="Template volid (vztmpl)")]
Unprivileged = Annotated[bool, Field(description="Its root is none of the node")]

_CORES, _MEMORY, _DISK = 2, 2048, {"qemu": 32, "lxc": 8}  # MiB, GiB


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a guest is created, and as what; all of it in the grant and there."""

    cluster: Cluster
    kind: GuestType
    node: str
    storage: str
    pool: str | None
    name: str
    vmid: int
    is_vmid_fixed: bool
    check_vmid: Callable[[int], None]
    has_system: bool


@tool(
    "CreateVm",
    view="plan",
    title="Create VM",
    area=Area.VMS,
    effect=Effect.WRITE,
    toolset=Toolset.CREATE,
    needs=(needs.ALLOCATE, needs.SPACE, needs.BRIDGES),
)
async def create_vm(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    node: NodeName,
    storage: StorageName,
    name: GuestName,
    new_vmid: NewVmId = None,
    iso: Iso = None,
    image: Image = None,
    disk_size: DiskSize = None,
    os_type: OsType = "l26",
    uefi: Uefi = False,
    cores: Cores = None,
    memory: Memory = None,
    bridge: Bridge = None,
    vlan: Vlan = None,
    pool: PoolName = None,
    tags: Tags = None,
    description: GuestText = None,
    ciuser: CloudInitUser = None,
    password: Password = None,
    ssh_keys: SshKeys = None,
    ip: Address = None,
    dns: Dns = None,
    start: Start = False,
) -> Plan:
    """Create a VM with one disk and one network device, from an ISO, a disk image or empty."""
    place = await _place(
        call,
        cluster_name,
        "qemu",
        node,
        storage,
        pool,
        tags,
        name=name,
        new_vmid=new_vmid,
        has_system=image is not None,
    )
    if image is not None and disk_size is not None:
        raise BadArgument("disk_size", "a disk image has its own size; leave it out.")
    options = GuestOptions(
        cores=cores or _CORES,
        memory=memory or _MEMORY,
        tags=tags,
        description=description,
        bridge=bridge or DEFAULT_BRIDGE,
        vlan=vlan,
        ciuser=ciuser,
        password=password,
        ssh_keys=ssh_keys,
        ip=ip,
        dns=dns,
    ).parameters("qemu", {}, new=True)
    if guest_options.needs_cloud_init(options):
        if image is None:
            raise BadArgument("image", "user, password, keys and addresses need a cloud image.")
        if iso is not None:
            raise BadArgument("iso", "with cloud-init, its drive takes the place of the ISO.")
    await _require_bridge(place, bridge or DEFAULT_BRIDGE)
    size = await _size_of(place, image, "import") if image else (disk_size or _DISK["qemu"]) << 30
    if iso is not None:
        await _size_of(place, iso, "iso")
    disk = f"{storage}:0,import-from={image}" if image else f"{storage}:{size >> 30}"
    cd = f"{iso},media=cdrom" if iso else f"{storage}:cloudinit" if image else "none,media=cdrom"
    hardware = {"name": name} | _hardware(os_type, disk, cd, storage if uefi else None)
    source = f" from {shown_volume(iso or image or '')}" if iso or image else ""
    return await _plan(place, hardware | options, size, source, start=start)


def _hardware(os_type: str, disk: str, cd: str, uefi_storage: str | None) -> Parameters:
    """Return the options of a VM's hardware; with UEFI, Windows 11 wants a TPM too."""
    options: Parameters = {
        "ostype": os_type,
        "scsihw": "virtio-scsi-single",
        "scsi0": disk,
        "ide2": cd,
        "boot": "order=scsi0;ide2;net0",
        "agent": "1",
    }
    if uefi_storage is not None:
        options |= {"bios": "ovmf", "machine": "q35"}
        options["efidisk0"] = f"{uefi_storage}:1,efitype=4m,pre-enrolled-keys=1"
        if os_type == "win11":
            options["tpmstate0"] = f"{uefi_storage}:1,version=v2.0"
    return options


@tool(
    "CreateContainer",
    area=Area.VMS,
    effect=Effect.WRITE,
    toolset=Toolset.CREATE,
    needs=(needs.ALLOCATE, needs.SPACE, needs.BRIDGES),
)
async def create_container(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    node: NodeName,
    storage: StorageName,
    name: GuestName,
    template: Template,
    new_vmid: NewVmId = None,
    disk_size: DiskSize = None,
    unprivileged: Unprivileged = True,
    cores: Cores = None,
    memory: Memory = None,
    bridge: Bridge = None,
    vlan: Vlan = None,
    ip: Address = None,
    dns: Dns = None,
    password: Password = None,
    ssh_keys: SshKeys = None,
    pool: PoolName = None,
    tags: Tags = None,
    description: GuestText = None,
    start: Start = False,
) -> Plan:
    """Create a container from a template; its network is DHCP unless ip is given."""
    place = await _place(
        call, cluster_name, "lxc", node, storage, pool, tags, name=name, new_vmid=new_vmid
    )
    options = GuestOptions(
        cores=cores or _CORES,
        memory=memory or _MEMORY,
        tags=tags,
        description=description,
        bridge=bridge or DEFAULT_BRIDGE,
        vlan=vlan,
        password=password,
        ssh_keys=ssh_keys,
        ip=ip or "dhcp",
        dns=dns,
    ).parameters("lxc", {}, new=True)
    await _require_bridge(place, bridge or DEFAULT_BRIDGE)
    await _size_of(place, template, "vztmpl")
    size = disk_size or _DISK["lxc"]
    hardware: Parameters = {
        "hostname": name,
        "ostemplate": template,
        "rootfs": f"{storage}:{size}",
        "unprivileged": int(unprivileged),
    }
    if unprivileged:
        hardware["features"] = "nesting=1"  # systemd in it needs that
    warnings = []
    if password is None and ssh_keys is None:
        warnings.append("Without password and ssh_keys, only its node can enter it.")
    if not unprivileged:
        warnings.append("It is privileged: its root is the root of the node.")
    return await _plan(
        place,
        hardware | options,
        size << 30,
        f" from {shown_volume(template)}",
        *warnings,
        start=start,
    )


async def _place(
    call: Call,
    cluster_name: str | None,
    kind: GuestType,
    node: str,
    storage: str,
    pool: str | None,
    tags: list[str] | None,
    *,
    name: str,
    new_vmid: int | None,
    has_system: bool = True,
) -> _Place:
    """Return the place of a new guest; raise an error for one that is not there or not granted."""
    cluster = await write_target.writable_cluster(call, cluster_name, nodes=[node])
    await write_target.granted_node(cluster, node)
    content = "images" if kind == "qemu" else "rootdir"
    await write_target.target_storage(cluster, storage, node, content)
    if pool is not None:
        await write_target.granted_pool(cluster, pool)
    await write_target.require_inside_grant(
        cluster, vmid=new_vmid, node=node, pool=pool, tags=tags or ()
    )
    vmid = await write_target.free_vmid(cluster, new_vmid)
    marks = Marks(vmid, node, pool or "", frozenset(tags or ()))
    check_vmid = checked_vmid(call, cluster, marks)
    check_vmid(vmid)
    is_fixed = new_vmid is not None
    return _Place(cluster, kind, node, storage, pool, name, vmid, is_fixed, check_vmid, has_system)


async def _size_of(place: _Place, volid: str, content: StorageContentKind) -> int:
    """Return the size of a file that the guest is made from; raise UnknownName without it.

    Only files count: a disk of a guest could be one that the caller may not see.
    """
    cluster, name = place.cluster, volid.partition(":")[0]
    await cluster.storage(name, place.node)
    files = {v.volid: v for v in await cluster.pve.storage(place.node, name).content(content)}
    if volid not in files:
        raise UnknownName(f"{content} file", volid, files, where=f"on {place.node}")
    return files[volid].size


async def _require_bridge(place: _Place, bridge: str) -> None:
    """Raise UnknownName for a bridge that the node lacks: Proxmox notices only at the start.

    A role for a part of the cluster gets no names of others.
    """
    try:
        interfaces = await place.cluster.pve.node(place.node).network("any_bridge")
    except ProxmoxError:
        return  # its account may not look; Proxmox says so at the start
    names = [interface.iface for interface in interfaces]
    if bridge not in names:
        known = names if place.cluster.scope.everything else ()
        raise UnknownName("bridge", bridge, known, where=f"on {place.node}")


async def _plan(
    place: _Place,
    parameters: Parameters,
    size: int,
    source: str,
    *warnings: str,
    start: bool,
) -> Plan:
    """Return the plan that creates the guest with these parameters."""
    cluster = place.cluster
    await require_privileges(
        cluster,
        *guest_options.privileges(place.kind, _config_options(parameters)),
        *((needs.POWER,) if start else ()),
        why="this",
    )
    node = cluster.pve.node(place.node)
    create = node.create_qemu if place.kind == "qemu" else node.create_lxc
    pool: Parameters = {} if place.pool is None else {"pool": place.pool}
    guest = NewGuest(
        cluster=cluster,
        kind=place.kind,
        name=place.name,
        node=place.node,
        vmid=place.vmid,
        is_vmid_fixed=place.is_vmid_fixed,
        send=partial(create, options=parameters | pool),
        made="created",
        check_vmid=place.check_vmid,
        start=start,
        has_system=place.has_system,
    )
    shown = guest_options.in_words(guest_options.changes({}, parameters))
    memory, cores = int(parameters["memory"]) << 20, int(parameters["cores"])
    would = (
        f"Create {guest.label}{'' if guest.is_vmid_fixed else ', the next free VMID,'} on "
        f"{place.node}{f' in pool {place.pool}' if place.pool else ''}{source}: {shown}."
        f"{' Then start it.' if start else ''}"
    )
    return Plan(
        cluster=cluster,
        would=would,
        ids={"vmid": guest.vmid, "name": guest.name, "node": guest.node},
        act=guest.act,
        warnings=warnings,
        room=await room_for_new(guest, [(place.storage, size)], memory, cores),
        finish=guest.finish,
    )


def _config_options(parameters: Mapping[str, object]) -> list[str]:
    """Return the parameters that are options of the configuration, whose privileges count."""
    return [n for n in parameters if n not in ("ostemplate", "password", "ssh-public-keys")]
