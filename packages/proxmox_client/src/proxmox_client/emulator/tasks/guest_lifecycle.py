"""Creation, restore, clone and removal of guests."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote

from proxmox_client.emulator.errors import ApiError, TaskFailed
from proxmox_client.emulator.parameters import stored, typed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Agent, Guest, Kind, disks_of
from proxmox_client.emulator.state.load import Load
from proxmox_client.emulator.state.sizes import GIB
from proxmox_client.emulator.state.storage import Volume
from proxmox_client.emulator.tasks.disks import (
    IMPORT,
    allocate,
    copy_cloud_init,
    copy_disk,
    volume_named,
)
from proxmox_client.emulator.tasks.locks import locked
from proxmox_client.emulator.tasks.power import start as start_work
from proxmox_client.emulator.tasks.runner import TaskContext, TaskFunction
from proxmox_client.schema import Endpoint

MAC: Final = re.compile(r"(?:[0-9A-F]{2}:){5}[0-9A-F]{2}", re.IGNORECASE)
BOOT_SECONDS: Final = 8
"""Seconds after the start of a new virtual machine until its agent answers."""
NOT_CONFIG: Final = frozenset(
    {"node", "vmid", "start", "pool", "ostemplate", "storage", "force", "password", "archive"}
    | {"restore", "unique", "live-restore", "ssh-public-keys", "bwlimit"}
)
"""Parameters of the creation that are not options of the guest's configuration."""
UNUSED: Final = "unused"
"""The beginning of options that neither a clone nor a restored guest gets."""


def create(
    state: ClusterState, kind: Kind, node: str, vmid: int, options: Mapping[str, Any]
) -> TaskFunction:
    """Return the task that creates a guest with the disks of its options."""
    config = stored({key: value for key, value in options.items() if key not in NOT_CONFIG})
    if kind is Kind.LXC:
        config.setdefault("rootfs", f"{options.get('storage', 'local')}:4")
        config.setdefault("arch", "amd64")
    return _create(state, Guest(vmid, kind, node, config), options)


def restore(
    state: ClusterState,
    kind: Kind,
    node: str,
    vmid: int,
    options: Mapping[str, Any],
    endpoint: Endpoint,
    backup: Volume,
    replaced: Guest | None,
) -> TaskFunction:
    """Return the task that creates a guest from a backup; options override its configuration.

    Source: `restore_vma_archive` in PVE/QemuServer.pm. It leaves an empty guest when it fails.
    """
    config = _config_in_backup(backup, endpoint, kind, options.get("storage"))
    overrides = {key: value for key, value in options.items() if key not in NOT_CONFIG}
    guest = Guest(vmid, kind, node, config | stored(overrides))
    original = state.guests.get(backup.vmid)

    async def run(context: TaskContext) -> None:
        if replaced is not None:
            _require_replaceable(context, replaced)
            _remove_volumes(context, replaced, _named_volumes(replaced))
        state.guests[vmid] = Guest(vmid, kind, node)
        for name in {disk.storage for disk in disks_of(guest.config, kind)}:
            if name not in state.storages:
                context.log(_not_cleaned_up(guest))
                raise TaskFailed(f"storage '{name}' does not exist")
        if options.get("unique"):
            _renew_identity(guest)
        await _create(state, guest, options)(context)
        if original is not None:  # the same operating system, with its agent
            guest.agent, guest.honors_shutdown = _agent_of_clone(original, guest), True

    return run


def _require_replaceable(context: TaskContext, guest: Guest) -> None:
    """Raise TaskFailed for a guest that no restore may replace."""
    problem = "vm is running" if guest.running else ""
    if guest.config.get("protection"):
        problem = "- protection mode enabled"
    if problem:
        context.log(_not_cleaned_up(guest))
        raise TaskFailed(f"unable to restore {guest.kind.word} {guest.vmid} - {problem}")


def _not_cleaned_up(guest: Guest) -> str:
    return (
        "error before or during data restore, some or all disks were not completely restored. "
        f"{guest.kind.word} {guest.vmid} state is NOT cleaned up."
    )


def _config_in_backup(
    backup: Volume, endpoint: Endpoint, kind: Kind, storage: str | None
) -> dict[str, Any]:
    """Return the configuration in a backup, with each disk as a request for a new one."""
    every = backup.config.splitlines()
    comments = [unquote(line[1:]) for line in every if line.startswith("#")]
    lines = (line.partition(": ") for line in every if not line.startswith("#"))
    texts = {key: value for key, _, value in lines if key != "lock" and not key.startswith(UNUSED)}
    texts |= {"description": "\n".join(comments)} if comments else {}
    config = stored(typed(endpoint, texts))
    for disk in list(disks_of(config, kind)):
        config[disk.slot] = f"{storage or disk.storage}:{max(1, disk.size // GIB)}"
    return config


def _create(state: ClusterState, guest: Guest, options: Mapping[str, Any]) -> TaskFunction:
    async def run(context: TaskContext) -> None:
        _require_files(state, guest, options)
        guest.created, guest.load = state.now, Load(phase=guest.vmid)
        # A new VM without an image has no operating system that could react to a shutdown request
        has_system = guest.kind is Kind.LXC or any(IMPORT in str(v) for v in guest.config.values())
        guest.honors_shutdown = has_system
        guest.agent = _new_agent(guest) if has_system else None
        state.guests[guest.vmid] = guest
        for slot in list(guest.config):
            context.log(*allocate(state, guest, slot, guest.config))
        _set_defaults(state, guest)
        if pool := options.get("pool"):
            state.pools[pool].vmids.add(guest.vmid)
        await context.spend(1)
        if options.get("start"):
            await start_work(state, guest.kind, guest.node, guest.vmid)(context)

    return run


def _require_files(state: ClusterState, guest: Guest, options: Mapping[str, Any]) -> None:
    """Raise TaskFailed for an ISO, an image or a template that does not exist."""
    values = [str(value) for value in guest.config.values()]
    files = [value.partition(",")[0] for value in values if ":iso/" in value]
    files += [value.partition(IMPORT)[2].partition(",")[0] for value in values if IMPORT in value]
    if ":" in (template := str(options.get("ostemplate", ""))):
        files.append(template)
    for volid in files:
        try:
            volume_named(state, guest.node, volid)
        except ApiError as error:
            reason = f"unable to create {guest.kind.word} {guest.vmid} - {error}"
            raise TaskFailed(reason) from error


def _new_agent(guest: Guest) -> Agent:
    """Return the agent of a new guest, with an address by DHCP; a container may have no DHCP."""
    if guest.kind is Kind.LXC and "ip=dhcp" not in str(guest.config.get("net0", "")):
        return Agent()
    address = f"10.40.{guest.vmid // 200 % 256}.{guest.vmid % 200 + 20}"
    boot_seconds = BOOT_SECONDS if guest.kind is Kind.QEMU else 0
    return Agent(addresses=(address,), boot_seconds=boot_seconds)


def _set_defaults(state: ClusterState, guest: Guest) -> None:
    """Set the options that Proxmox adds to a new virtual machine."""
    if guest.kind is Kind.LXC:
        return
    prefix, config = f"{guest.vmid:08x}", guest.config
    config.setdefault("smbios1", f"uuid={prefix}-0000-4000-8000-000000000000")
    config.setdefault("vmgenid", f"{prefix}-0000-4000-9000-000000000000")
    config.setdefault("meta", f"creation-qemu=10.0.2,ctime={int(state.now)}")
    networks = [key for key in config if key.startswith("net") and key[3:].isdigit()]
    bootable = [*(disk.slot for disk in guest.disks()), *networks]
    config.setdefault("boot", f"order={';'.join(bootable)}")
    for key in networks:
        config[key] = with_mac_address(str(config[key]), guest.vmid, int(key[3:]))


def with_mac_address(value: str, vmid: int, number: int) -> str:
    """Return a network device with a generated MAC address, unless it has one."""
    model, comma, rest = value.partition(",")
    if "=" in model or "macaddr" in rest:
        return value
    return f"{model}={mac_address(vmid, number)}{comma}{rest}"


def mac_address(vmid: int, number: int) -> str:
    """Return the MAC address that is generated for a guest's network device."""
    return f"BC:24:11:{vmid >> 8 & 255:02X}:{vmid & 255:02X}:{number:02X}"


def clone(source: Guest, newid: int, target: str, options: Mapping[str, Any]) -> TaskFunction:
    """Return the task that clones a guest: a full clone, or linked to a template."""

    async def run(context: TaskContext) -> None:
        kind, state = source.kind, context.state
        if newid in state.guests:
            file = f"/etc/pve/nodes/{source.node}/{kind.folder}/{newid}.conf"
            raise TaskFailed(f"close (rename) atomic file '{file}' failed: File exists")
        word = kind.word if kind is Kind.QEMU else "container"
        context.log(f"creating a clone of {word} {source.vmid} with ID {newid}")
        snapshot = source.snapshots.get(str(options.get("snapname")))
        config = dict(snapshot.config if snapshot else source.config)
        copy = Guest(newid, kind, target, config, state.now, load=Load(phase=newid))
        copy.honors_shutdown, copy.agent = source.honors_shutdown, _agent_of_clone(source, copy)
        left_out = ("template", "lock", "protection", "parent", "snaptime")
        for key in list(copy.config):
            if key in left_out or key.startswith(UNUSED):
                del copy.config[key]
        copy.config["lock"] = "clone"
        state.guests[newid] = copy
        name = options.get("name") or options.get("hostname")
        fallback = f"Copy-of-{'VM' if kind is Kind.QEMU else 'CT'}-{source.name}"
        copy.config["name" if kind is Kind.QEMU else "hostname"] = name or fallback
        if description := options.get("description"):
            copy.config["description"] = description
        _renew_identity(copy)
        full = bool(options.get("full", not source.template))
        for disk in list(disks_of(config, kind)):
            await copy_disk(
                context, copy, disk, str(options.get("storage") or disk.storage), full=full
            )
        copy_cloud_init(context, copy, options.get("storage"))
        copy.config.pop("lock")
        if pool := options.get("pool"):
            state.pools[pool].vmids.add(newid)
        copy.touch()

    return run


def _agent_of_clone(source: Guest, copy: Guest) -> Agent | None:
    """Return the agent of a clone, which boots with an address by DHCP of its own."""
    if source.agent is None:
        return None
    new = _new_agent(copy)
    return replace(
        source.agent,
        addresses=new.addresses,
        boot_seconds=new.boot_seconds,
        processes={},
        files={},
    )


def _renew_identity(guest: Guest) -> None:
    """Give a clone MAC addresses and identifiers of its own."""
    for key in [key for key in guest.config if key.startswith("net") and key[3:].isdigit()]:
        mac = mac_address(guest.vmid, int(key[3:]))
        guest.config[key] = MAC.sub(mac, str(guest.config[key]), count=1)
    prefix = f"{guest.vmid:08x}"
    if "smbios1" in guest.config:
        guest.config["smbios1"] = f"uuid={prefix}-0000-4000-8000-000000000000"
    if "vmgenid" in guest.config:
        guest.config["vmgenid"] = f"{prefix}-0000-4000-9000-000000000000"


def destroy(guest: Guest, *, purge: bool, unreferenced: bool = False) -> TaskFunction:
    """Return the task that removes a guest, the disks it names, its firewall and ACL entries.

    `unreferenced` removes all disks that it owns; `purge` removes it from jobs and HA.
    """

    async def run(context: TaskContext) -> None:
        state = context.state
        if guest.running:
            raise TaskFailed(f"{guest.kind.word} {guest.vmid} is running - destroy failed")
        _require_no_linked_clones(state, guest)
        named = None if unreferenced else _named_volumes(guest)
        async with locked(guest, "destroyed"):
            await context.spend(1)
        _remove_volumes(context, guest, named)
        state.user_config.acl = [e for e in state.user_config.acl if e.path != guest.path]
        state.firewalls.pop(guest.path, None)
        if purge:
            context.log(f"purging {guest.kind.word} {guest.vmid} from related configurations..")
            _purge(context, guest)
        state.guests.pop(guest.vmid, None)
        for pool in state.pools.values():
            pool.vmids.discard(guest.vmid)

    return run


def _named_volumes(guest: Guest) -> set[str]:
    """Return the volumes in the guest's configuration, pending changes and snapshots."""
    snapshots = (snapshot.config for snapshot in guest.snapshots.values())
    configs = (guest.config, guest.pending, *snapshots)
    values = (str(value) for config in configs for value in config.values())
    return {part for value in values for part in re.split("[,=]", value)}


def _remove_volumes(context: TaskContext, guest: Guest, named: set[str] | None) -> None:
    """Remove the volumes that the guest owns; those that are `named`, or all of them."""
    for storage in context.state.storages.values():
        if named is None and (failure := storage.failure_on(guest.node)):
            raise TaskFailed(failure)
        for volume in list(storage.volumes(guest.node).values()):
            is_own = volume.vmid == guest.vmid and volume.content != "backup"
            if is_own and (named is None or volume.volid in named):
                storage.remove(guest.node, volume.volid)
                context.log(f"Removed volume '{volume.volid}'")


def _require_no_linked_clones(state: ClusterState, guest: Guest) -> None:
    """Raise TaskFailed for a template whose disk is the base of another guest's disk."""
    for disk in guest.disks() if guest.template else ():
        name = disk.volid.rpartition("/")[2].rpartition(":")[2]
        volumes = state.storage(disk.storage).everything()
        if any((volume.parent or "").endswith(name) for volume in volumes):
            raise TaskFailed(f"base volume '{disk.volid}' is still in use by linked cloned")


def _purge(context: TaskContext, guest: Guest) -> None:
    """Remove a guest from HA, replication and backup jobs."""
    state = context.state
    for replication in list(state.replications.values()):
        if replication.guest == guest.vmid:
            del state.replications[replication.id]
    for job in state.backup_jobs.values():
        if guest.vmid in job.vmids:
            job.options["vmid"] = ",".join(str(v) for v in job.vmids if v != guest.vmid)
    if resource := state.ha_of(guest):
        del state.ha_resources[resource.sid]
        context.log(f"NOTE: removed {guest.kind.word} {guest.vmid} from HA resource configuration.")


def make_template(guest: Guest) -> TaskFunction:
    """Return the task that converts a guest to a template; its disks become base disks."""

    async def run(context: TaskContext) -> None:
        await context.spend(1)
        guest.config["template"] = 1
        for disk in list(guest.disks()):
            storage = context.state.storage(disk.storage)
            volume = storage.remove(guest.node, disk.volid)
            base_volid = disk.volid.replace(f"vm-{guest.vmid}-", f"base-{guest.vmid}-")
            if volume is not None:
                volume.volid = base_volid
                storage.put(guest.node, volume)
            guest.config[disk.slot] = str(guest.config[disk.slot]).replace(disk.volid, base_volid)
        guest.touch()

    return run
