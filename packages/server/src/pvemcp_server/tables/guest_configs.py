"""Configurations of virtual machines and of containers."""

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial
from math import ceil
from time import monotonic
from typing import Annotated, Any, ClassVar, Final

from proxmox_client import Lxc, Qemu
from proxmox_client.api.configs import LxcConfig, QemuConfig
from proxmox_client.api.guests import BothConfigs
from proxmox_client.api.resources import GuestResource
from pvemcp_server.clusters import Cluster
from pvemcp_server.clusters.kept_configs import Kept
from pvemcp_server.tables import fanout
from pvemcp_server.tables.config_options import pending_changes
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import of_guest
from pvemcp_server.tables.registry import Cost, LoadRequest, made, table
from pvemcp_server.tables.rows import Col, Gap, Row, Unit, moment

MANY_GUESTS: Final = 200  # fewer are read each time
_NAMED = 10  # guests with pending changes that a note names
_CTIME: Final = re.compile(r"\bctime=(\d{1,10})\b", re.ASCII)  # of the option meta
_IN_FORCE = "the other columns show what is in force"


class QemuSettings(Row):
    """The configuration of a virtual machine."""

    minimal: ClassVar[tuple[str, ...]] = (
        "vmid",
        "name",
        "node",
        "os_type",
        "cores",
        "sockets",
        "memory_mb",
        "on_boot",
        "pending",
    )

    vmid: Annotated[int, Col("Guest", aliases=("guest_id", "id"))]
    name: Annotated[str, Col("Display name")]
    node: Annotated[str, Col("Node it is on")]
    os_type: Annotated[str | None, Col("Operating system: l26, win11, other …")]
    cores: Annotated[int, Col("Cores per socket", Unit.COUNT)]
    sockets: Annotated[int, Col("Sockets", Unit.COUNT)]
    cpu_type: Annotated[str | None, Col("CPU model and flags", aliases=("cpu",))]
    cpu_limit: Annotated[float | None, Col("Limit of CPU time, in cores", Unit.COUNT)]
    memory_mb: Annotated[int, Col("Memory", Unit.MIB)]
    balloon_mb: Annotated[
        int | None, Col("Least memory; 0 switches ballooning off", Unit.MIB, ("balloon",))
    ]
    shares: Annotated[int | None, Col("Weight when memory is ballooned")]
    on_boot: Annotated[bool, Col("Whether it starts with the node")]
    startup: Annotated[str | None, Col("Order and delays of start", aliases=("startup_order",))]
    created: Annotated[
        datetime | None,
        Col("When it was created", Unit.TIME, gap=Gap("its configuration does not have it")),
    ]
    arch: Annotated[str | None, Col("Processor architecture, if not the host's")]
    acpi: Annotated[bool, Col("Whether ACPI is on")]
    agent_enabled: Annotated[bool, Col("Whether the guest agent is switched on")]
    agent: Annotated[str | None, Col("Options of the guest agent", aliases=("agent_config",))]
    bios: Annotated[str, Col("seabios or ovmf")]
    machine: Annotated[str | None, Col("Machine type")]
    kvm: Annotated[bool, Col("Whether hardware virtualisation is used")]
    protection: Annotated[bool, Col("Whether it is protected from removal")]
    boot: Annotated[str | None, Col("Boot order")]
    scsi_controller: Annotated[str | None, Col("SCSI controller", aliases=("scsihw",))]
    vga: Annotated[str | None, Col("Display")]
    devices: Annotated[
        str | None,
        Col(
            "Devices of the node: hostpci0=0000:65:00.0;usb0=…", aliases=("hostpci", "passthrough")
        ),
    ]
    snapshot_parent: Annotated[
        str | None, Col("Snapshot that the present state descends from", aliases=("parent",))
    ]
    description: Annotated[str | None, Col("Notes")]
    tags: Annotated[list[str], Col("Tags")]
    lock: Annotated[str | None, Col("What it is locked for")]
    hookscript: Annotated[str | None, Col("Script run around start and stop")]
    pending: Annotated[
        list[str],
        Col("Changes that wait for a restart: memory: 2048 → 4096"),
    ]


class LxcSettings(Row):
    """The configuration of a container."""

    minimal: ClassVar[tuple[str, ...]] = (
        "vmid",
        "name",
        "node",
        "os_type",
        "cores",
        "memory_mb",
        "on_boot",
        "unprivileged",
        "pending",
    )

    vmid: Annotated[int, Col("Guest", aliases=("guest_id", "id"))]
    name: Annotated[str, Col("Host name", aliases=("hostname",))]
    node: Annotated[str, Col("Node it is on")]
    os_type: Annotated[str | None, Col("Distribution: debian, alpine …")]
    cores: Annotated[int | None, Col("Cores; without a number all of the node", Unit.COUNT)]
    cpu_limit: Annotated[float | None, Col("Limit of CPU time, in cores", Unit.COUNT)]
    memory_mb: Annotated[int, Col("Memory", Unit.MIB)]
    swap_mb: Annotated[int, Col("Swap", Unit.MIB)]
    on_boot: Annotated[bool, Col("Whether it starts with the node")]
    startup: Annotated[str | None, Col("Order and delays of start", aliases=("startup_order",))]
    arch: Annotated[str | None, Col("Processor architecture")]
    unprivileged: Annotated[bool, Col("Whether its root has no rights on the node")]
    features: Annotated[str | None, Col("Features: nesting, keyctl, fuse …")]
    protection: Annotated[bool, Col("Whether it is protected from removal")]
    nameserver: Annotated[str | None, Col("Name server")]
    searchdomain: Annotated[str | None, Col("Search domain")]
    snapshot_parent: Annotated[
        str | None, Col("Snapshot that the present state descends from", aliases=("parent",))
    ]
    description: Annotated[str | None, Col("Notes")]
    tags: Annotated[list[str], Col("Tags")]
    lock: Annotated[str | None, Col("What it is locked for")]
    hookscript: Annotated[str | None, Col("Script run around start and stop")]
    pending: Annotated[
        list[str],
        Col("Changes that wait for a restart: memory: 2048 → 4096"),
    ]


config_table = partial(
    table,
    tool="GetVmConfig",
    cost=Cost.PER_GUEST,
    covered=of_guest,
    relations=(TO_GUEST, TO_NODE),
)
"""Declares a table that is read from the configurations of guests."""


@config_table("qemu_configs")
async def qemu_configs(cluster: Cluster, request: LoadRequest) -> list[QemuSettings]:
    """Configurations of virtual machines that are in force, and changes that wait."""
    pairs = await configs(cluster, request, "qemu")
    return await made(cluster, pairs, lambda pair: [_qemu(pair[0], pair[1], pair[1].current)])


@config_table("lxc_configs")
async def lxc_configs(cluster: Cluster, request: LoadRequest) -> list[LxcSettings]:
    """Configurations of containers that are in force, and changes that wait."""
    pairs = await configs(cluster, request, "lxc")
    return await made(cluster, pairs, lambda pair: [_lxc(pair[0], pair[1], pair[1].current)])


async def configs(
    cluster: Cluster, request: LoadRequest, kind: str = "", *, rows: str = _IN_FORCE
) -> list[tuple[GuestResource, BothConfigs[Any]]]:
    """Return the requested guests, all or of one kind, each with its configurations.

    Guests with changes that wait for a restart are noted; `rows` says what the rows are then.
    """
    pairs = await both_configs(cluster, request, kind)
    _note_pending(cluster, [guest.vmid for guest, configs in pairs if configs.changes], rows)
    return pairs


async def both_configs(
    cluster: Cluster, request: LoadRequest, kind: str = ""
) -> list[tuple[GuestResource, BothConfigs[Any]]]:
    """Return the requested guests, all or of one kind, each with its configurations.

    A read of more than MANY_GUESTS that names none takes what the last ones have read, so that the
    budget is for the others, and says so.
    """
    guests = {guest.vmid: guest for guest in await fanout.guests(cluster, request, kind)}
    inventory, kept = cluster.inventory, {}
    if len(guests) > MANY_GUESTS and not request.vmids:
        kept = inventory.configs.of(guests.values(), inventory.written)

    async def both(vmid: int) -> BothConfigs[Any]:
        api: Qemu | Lxc = await cluster.handle(vmid)
        read = monotonic()
        configs: BothConfigs[Any] = await api.configs()
        if len(guests) > MANY_GUESTS:
            inventory.configs.put(guests[vmid], configs, read)
        return configs

    unread = [vmid for vmid in guests if vmid not in kept]
    total = len(guests)
    answers = await fanout.each(cluster, unread, both, request, "configuration of guest", total)
    _note_kept(cluster, kept.values(), total)
    known = {vmid: each.configs for vmid, each in kept.items()} | answers
    return [(guest, known[vmid]) for vmid, guest in guests.items() if vmid in known]


def _note_kept(cluster: Cluster, kept: Collection[Kept], total: int) -> None:
    if kept:
        age = monotonic() - min(each.read for each in kept)
        cluster.notes.add(
            f"{cluster.name}: {len(kept)} of {total} configurations were read by earlier calls, up "
            f"to {ceil(age)} s ago; a change since then may be missing. With vmids they are read "
            "now."
        )


def _note_pending(cluster: Cluster, vmids: Sequence[int], rows: str) -> None:
    if vmids:
        named = ", ".join(map(str, vmids[:_NAMED]))
        more = f" and {len(vmids) - _NAMED} more" if len(vmids) > _NAMED else ""
        cluster.notes.add(
            f"Configuration changes wait for a restart on {cluster.name}: guests {named}{more}. "
            f"The field pending has them; {rows}."
        )


def _created(config: QemuConfig) -> datetime | None:
    match = _CTIME.search(str(config.raw.get("meta", "")))
    return moment(int(match[1])) if match else None


def _qemu(guest: GuestResource, configs: BothConfigs[Any], config: QemuConfig) -> QemuSettings:
    return QemuSettings(
        vmid=guest.vmid,
        name=guest.name,
        node=guest.node,
        os_type=config.os_type,
        cores=config.cores or 1,
        sockets=config.sockets,
        cpu_type=config.cpu,
        cpu_limit=config.cpu_limit,
        memory_mb=config.memory_mb,
        balloon_mb=config.balloon,
        shares=config.shares,
        on_boot=config.on_boot,
        startup=config.startup,
        created=_created(config),
        arch=config.arch,
        acpi=config.acpi,
        agent_enabled=config.agent_enabled,
        agent=config.agent,
        bios=config.bios or "seabios",
        machine=config.machine,
        kvm=config.kvm,
        protection=config.protection,
        boot=config.boot,
        scsi_controller=config.scsihw,
        vga=config.vga,
        devices=";".join(f"{name}={value}" for name, value in config.devices.items()) or None,
        snapshot_parent=config.parent,
        description=(config.description or "").strip() or None,
        tags=config.tag_list,
        lock=config.lock or None,
        hookscript=config.hookscript,
        pending=pending_changes(configs),
    )


def _lxc(guest: GuestResource, configs: BothConfigs[Any], config: LxcConfig) -> LxcSettings:
    return LxcSettings(
        vmid=guest.vmid,
        name=guest.name,
        node=guest.node,
        os_type=config.os_type,
        cores=config.cores,
        cpu_limit=config.cpu_limit,
        memory_mb=config.memory_mb,
        swap_mb=config.swap,
        on_boot=config.on_boot,
        startup=config.startup,
        arch=config.arch,
        unprivileged=config.unprivileged,
        features=config.features,
        protection=config.protection,
        nameserver=config.nameserver,
        searchdomain=config.searchdomain,
        snapshot_parent=config.parent,
        description=(config.description or "").strip() or None,
        tags=config.tag_list,
        lock=config.lock or None,
        hookscript=config.hookscript,
        pending=pending_changes(configs),
    )
