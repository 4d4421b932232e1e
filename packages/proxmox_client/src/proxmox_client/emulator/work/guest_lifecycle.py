"""Making, restoring, copying and destroying guests."""

from collections.abc import Mapping
from typing import Any, Final

from proxmox_client.emulator.errors import TaskFailed
from proxmox_client.emulator.parameters import stored, typed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Agent, Guest, Kind, disks_of
from proxmox_client.emulator.state.load import Load
from proxmox_client.emulator.state.sizes import GIB
from proxmox_client.emulator.state.storage import Volume
from proxmox_client.emulator.work.board import Job, Work
from proxmox_client.emulator.work.disks import allocate, copy_disk
from proxmox_client.emulator.work.locks import locked
from proxmox_client.emulator.work.power import start as start_work
from proxmox_client.schema import Endpoint

NO_SETTINGS: Final = frozenset(
    {"node", "vmid", "start", "pool", "ostemplate", "storage", "force", "password", "archive"}
    | {"restore", "unique", "live-restore", "ssh-public-keys", "bwlimit"}
)
"""What says how a guest is made rather than what it is."""


def create(
    state: ClusterState, kind: Kind, node: str, vmid: int, options: Mapping[str, Any]
) -> Work:
    """Make a guest, with the disks its options ask for."""
    settings = stored({key: value for key, value in options.items() if key not in NO_SETTINGS})
    if kind is Kind.LXC:
        settings.setdefault("rootfs", f"{options.get('storage', 'local')}:4")
        settings.setdefault("arch", "amd64")
    return _make(state, Guest(vmid, kind, node, settings), options)


def restore(
    state: ClusterState,
    kind: Kind,
    node: str,
    vmid: int,
    options: Mapping[str, Any],
    endpoint: Endpoint,
) -> Work:
    """Make a guest from a backup: as it was, but for what the options say."""
    volid = str(options.get("archive") or options["ostemplate"])
    backup = state.storage(volid.partition(":")[0]).volumes(node).get(volid)
    if backup is None:
        return _fail(f"volume '{volid}' does not exist")
    settings = _saved(backup, endpoint, kind, options.get("storage"))
    given = {key: value for key, value in options.items() if key not in NO_SETTINGS}
    return _make(state, Guest(vmid, kind, node, settings | stored(given)), options)


def _fail(reason: str) -> Work:
    async def work(_job: Job) -> None:
        raise TaskFailed(reason)

    return work


def _saved(backup: Volume, endpoint: Endpoint, kind: Kind, storage: str | None) -> dict[str, Any]:
    """The configuration inside a backup, its disks as wishes for new ones."""
    lines = (line.partition(": ") for line in backup.config.splitlines())
    texts = {key: value for key, _, value in lines if key != "lock"}
    settings = stored(typed(endpoint, texts))
    for disk in list(disks_of(settings, kind)):
        settings[disk.slot] = f"{storage or disk.storage}:{max(1, disk.size // GIB)}"
    return settings


def _make(state: ClusterState, guest: Guest, options: Mapping[str, Any]) -> Work:
    async def work(job: Job) -> None:
        guest.created, guest.load = state.now, Load(phase=guest.vmid)
        # Nothing is installed on it that could shut down when asked to
        guest.obeys = guest.kind is Kind.LXC
        guest.agent = Agent() if guest.kind is Kind.LXC else None
        state.guests[guest.vmid] = guest
        for slot in list(guest.config):
            job.log(*allocate(state, guest, slot, guest.config))
        _complete(state, guest)
        if pool := options.get("pool"):
            state.pools[pool].vmids.add(guest.vmid)
        state.changed()
        await job.spend(1)
        if options.get("start"):
            await start_work(state, guest.kind, guest.node, guest.vmid)(job)

    return work


def _complete(state: ClusterState, guest: Guest) -> None:
    """Add what a machine gets when nobody says."""
    if guest.kind is Kind.LXC:
        return
    mark, config = f"{guest.vmid:08x}", guest.config
    config.setdefault("smbios1", f"uuid={mark}-0000-4000-8000-000000000000")
    config.setdefault("vmgenid", f"{mark}-0000-4000-9000-000000000000")
    config.setdefault("meta", f"creation-qemu=10.0.2,ctime={int(state.now)}")
    networks = [key for key in config if key.startswith("net") and key[3:].isdigit()]
    bootable = [*(disk.slot for disk in guest.disks()), *networks]
    config.setdefault("boot", f"order={';'.join(bootable)}")
    for key in networks:
        config[key] = with_address(str(config[key]), guest.vmid, int(key[3:]))


def with_address(value: str, vmid: int, number: int) -> str:
    """A network device with the hardware address it gets when nobody gives one."""
    model, comma, rest = value.partition(",")
    if "=" in model or "macaddr" in rest:
        return value
    tail = f"{vmid >> 8 & 255:02X}:{vmid & 255:02X}:{number:02X}"
    return f"{model}=BC:24:11:{tail}{comma}{rest}"


def clone(source: Guest, newid: int, target: str, options: Mapping[str, Any]) -> Work:
    """Copy a guest: in full, or linked to a template."""

    async def work(job: Job) -> None:
        kind, state = source.kind, job.state
        job.log(f"creating a clone of {kind.word} {source.vmid} with ID {newid}")
        copy = Guest(newid, kind, target, dict(source.config), state.now, load=Load(phase=newid))
        copy.obeys, copy.agent = source.obeys, source.agent
        for key in ("template", "lock", "protection"):
            copy.config.pop(key, None)
        copy.config["lock"] = "clone"
        state.guests[newid] = copy
        name = options.get("name") or options.get("hostname")
        fallback = f"Copy-of-{'VM' if kind is Kind.QEMU else 'CT'}-{source.name}"
        copy.config["name" if kind is Kind.QEMU else "hostname"] = name or fallback
        if description := options.get("description"):
            copy.config["description"] = description
        full = bool(options.get("full", not source.template))
        for disk in list(disks_of(source.config, kind)):
            await copy_disk(job, copy, disk, str(options.get("storage") or disk.storage), full=full)
        copy.config.pop("lock")
        if pool := options.get("pool"):
            state.pools[pool].vmids.add(newid)
        state.changed()

    return work


def destroy(guest: Guest, *, purge: bool) -> Work:
    """Remove a guest and its disks."""

    async def work(job: Job) -> None:
        state = job.state
        if guest.running:
            raise TaskFailed(f"{guest.kind.word} {guest.vmid} is running - destroy failed")
        async with locked(guest, "destroyed"):
            await job.spend(1)
        for storage in state.storages.values():
            mine = storage.volumes(guest.node).values()
            for volume in [each for each in mine if each.vmid == guest.vmid]:
                if volume.content != "backup":
                    storage.remove(guest.node, volume.volid)
                    job.log(f"Removed volume '{volume.volid}'")
        if purge:
            job.log(f"purging {guest.kind.word} {guest.vmid} from related configurations..")
            forget(state, guest)
        state.guests.pop(guest.vmid, None)
        for pool in state.pools.values():
            pool.vmids.discard(guest.vmid)
        state.changed()

    return work


def forget(state: ClusterState, guest: Guest) -> None:
    """Take a guest out of every job and grant that names it."""
    if resource := state.ha_of(guest):
        del state.ha_resources[resource.sid]
    for job in list(state.replications.values()):
        if job.guest == guest.vmid:
            del state.replications[job.id]
    people = state.people
    people.grants = [grant for grant in people.grants if grant.path != guest.path]


def make_template(guest: Guest) -> Work:
    """Turn a guest into a template: its disks become bases."""

    async def work(job: Job) -> None:
        await job.spend(1)
        guest.config["template"] = 1
        for disk in list(guest.disks()):
            storage = job.state.storage(disk.storage)
            volume = storage.remove(guest.node, disk.volid)
            based = disk.volid.replace(f"vm-{guest.vmid}-", f"base-{guest.vmid}-")
            if volume is not None:
                volume.volid = based
                storage.put(guest.node, volume)
            guest.config[disk.slot] = str(guest.config[disk.slot]).replace(disk.volid, based)
        guest.touch()

    return work
