"""Creation, clone, configuration, disks and removal of guests."""

from collections.abc import Mapping
from typing import Any

from proxmox_client.emulator.errors import ApiError, Forbidden, MethodNotImplemented
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.routes.power import PREFIX, both
from proxmox_client.emulator.routes.storage import enabled, require_volume_access, usable
from proxmox_client.emulator.state.guest import Guest, Kind, disks_of
from proxmox_client.emulator.state.sizes import parse_size
from proxmox_client.emulator.state.storage import Storage, Volume
from proxmox_client.emulator.tasks import config_update, disks, guest_lifecycle
from proxmox_client.emulator.tasks.runner import TaskContext, TaskFunction

RUNNING_CLONE = {
    False: "Cannot do full clones on a running container without snapshots",
    True: "Full clone of a running container is only possible from a snapshot",
}
"""The error for a full clone of a running container, by whether the version is 9.0 or later."""


WORDS = {"images": "vm images", "rootdir": "container directories"}


@route("POST", "/nodes/{node}/qemu", "/nodes/{node}/lxc")
def create(request: ApiRequest) -> str:
    """POST /nodes/{node}/qemu and /nodes/{node}/lxc; with archive, from a backup."""
    kind = Kind.LXC if request.path.endswith("/lxc") else Kind.QEMU
    archive = request.get("archive") or (request.get("restore") and request.get("ostemplate"))
    if archive:
        return _restore(request, kind, str(archive))
    _require_allocate(request, request.vmid, request.get("pool"))
    _require_disk_storages(request, kind)
    _require_bridges(request, request.params)
    _require_free_vmid(request, kind, "create")
    arguments = (request.state, kind, request.params["node"], request.vmid, request.params)
    work = guest_lifecycle.create(*arguments)
    work = _reserving(request, Guest(request.vmid, kind, request.params["node"]), work)
    return request.start(f"{PREFIX[kind]}create", request.vmid, work)


def _reserving(request: ApiRequest, guest: Guest, work: TaskFunction) -> TaskFunction:
    """Return the task that makes a guest, whose VMID is in use from now on.

    Source: `create_and_lock_config` in PVE/AbstractConfig.pm, before the task.
    """
    state = request.state
    if not state.quorate or state.with_vmid(guest.vmid):
        return work
    state.reserved[guest.vmid] = guest

    async def run(context: TaskContext) -> None:
        try:
            await work(context)
        finally:
            state.reserved.pop(guest.vmid, None)

    return run


def _restore(request: ApiRequest, kind: Kind, archive: str) -> str:
    """Start a restore; with force, over a guest of the same kind on the same node."""
    vmid, node = request.vmid, request.params["node"]
    replaced = request.state.guests.get(vmid) if request.get("force") else None
    if replaced is None or not request.rights.has(replaced.path, "VM.Backup"):
        _require_allocate(request, vmid, request.get("pool"))
    _require_disk_storages(request, kind)
    if replaced is None:
        _require_free_vmid(request, kind, "restore")
    elif (replaced.kind, replaced.node) != (kind, node):
        file = f"/etc/pve/nodes/{node}/{kind.folder}/{vmid}.conf"
        exists = f"close (rename) atomic file '{file}' failed: File exists"
        raise ApiError(f"unable to restore {kind.word} {vmid} - {exists}")
    backup = _backup(request, archive)
    arguments = (request.state, kind, node, vmid, request.params)
    work = guest_lifecycle.restore(*arguments, request.endpoint, backup, replaced)
    work = _reserving(request, Guest(vmid, kind, node), work)
    return request.start(f"{PREFIX[kind]}restore", vmid, work)


def _backup(request: ApiRequest, volid: str) -> Volume:
    """Return the backup that is restored; raise ApiError if it does not exist."""
    if ":" not in volid:
        raise ApiError(f"can't find file '{volid}'")
    storage = usable(request.state.storage(volid.partition(":")[0]), request.node.name)
    backup = storage.volumes(request.node.name).get(volid)
    if backup is None:
        raise ApiError(f"volume '{volid}' does not exist")
    require_volume_access(request, storage, backup.content, backup.vmid)
    return backup


@route("POST", *both("/clone"))
def clone(request: ApiRequest) -> str:
    """POST …/clone."""
    newid = request.params["newid"]
    _require_allocate(request, newid, request.get("pool"))
    target = request.get("target") or request.node.name
    if target not in request.state.nodes:
        raise ApiError(f"no such cluster node '{target}'")
    if name := request.get("storage"):
        _require_content(request, request.state.storage(name))
    if request.vmid not in request.state.guests:
        place = f"VM {request.vmid} on node '{request.node.name}'"
        raise ApiError(f"unable to find configuration file for {place}")
    guest = request.guest
    guest.require_unlocked()
    _require_free_newid(request, guest, newid)
    _require_possible_clone(request, guest, target)
    _require_bridges(request, guest.config)
    for name in {request.get("storage") or disk.storage for disk in guest.disks()}:
        request.rights.require(request.state.storage(name).path, "Datastore.AllocateSpace")
    work = guest_lifecycle.clone(guest, newid, target, request.params)
    work = _reserving(request, Guest(newid, guest.kind, target), work)
    return request.start(f"{PREFIX[request.kind]}clone", request.vmid, work)


def _require_free_newid(request: ApiRequest, guest: Guest, newid: int) -> None:
    """Raise ApiError for a VMID in use; a VM's clone finds one of another node in its task."""
    taken = request.state.with_vmid(newid)
    if taken is not None and guest.kind is Kind.LXC:
        raise ApiError(f"{taken.kind.word} {newid} already exists on node '{taken.node}'")
    if taken is not None and taken.node == guest.node:
        raise ApiError(f"unable to create VM {newid}: config file already exists")


def _require_possible_clone(request: ApiRequest, guest: Guest, target: str) -> None:
    """Raise ApiError for a clone that the guest's state or its disks don't allow."""
    if (name := request.get("snapname")) and name not in guest.snapshots:
        raise ApiError(f"snapshot '{name}' does not exist")
    if guest.kind is Kind.LXC and guest.running and not name:
        raise ApiError(RUNNING_CLONE[request.state.release >= (9, 0)])
    full = bool(request.get("full", not guest.template))
    if not full and request.get("storage"):
        raise ApiError("parameter 'storage' not allowed for linked clones")
    if not full and not guest.template:
        disk = next(guest.disks(), None)
        place = f"'{disk.volid}' ({disk.slot})" if disk else "non-template guests"
        raise ApiError(f"Linked clone feature is not supported for {place}")
    is_local = any(not request.state.storage(disk.storage).shared for disk in guest.disks())
    if target != guest.node and is_local:
        raise ApiError(f"can't clone VM to node '{target}' (VM uses local storage)")


@route("DELETE", "/nodes/{node}/qemu/{vmid}", "/nodes/{node}/lxc/{vmid}")
def destroy(request: ApiRequest) -> str:
    """DELETE /nodes/{node}/qemu/{vmid} and /nodes/{node}/lxc/{vmid}."""
    guest, purge = request.guest, bool(request.get("purge"))
    word, vmid = guest.kind.word, guest.vmid
    if guest.config.get("protection"):
        raise ApiError(f"can't remove {word} {vmid} - protection mode enabled")
    if guest.kind is Kind.LXC:
        guest.require_unlocked()
    if request.state.ha_of(guest) and not purge:
        used = "used in HA resources and purge parameter not set."
        raise ApiError(f"unable to remove {word} {vmid} - {used}")
    jobs = [job.id for job in request.state.replications.values() if job.guest == vmid]
    if jobs and not purge:
        job = f"There is a replication job '{jobs[0]}' for guest '{vmid}'"
        raise ApiError(f"{job} - Please remove that first.")
    if guest.running:
        raise ApiError(f"{word} {vmid} is running - destroy failed")
    unreferenced = bool(request.get("destroy-unreferenced-disks"))
    work = guest_lifecycle.destroy(guest, purge=purge, unreferenced=unreferenced)
    return request.start(f"{PREFIX[request.kind]}destroy", request.vmid, work)


@route("PUT", *both("/config"))
def set_config(request: ApiRequest) -> None:
    """PUT …/config."""
    _update_config(request)


@route("POST", "/nodes/{node}/qemu/{vmid}/config")
def set_config_by_task(request: ApiRequest) -> str:
    """POST /nodes/{node}/qemu/{vmid}/config: like PUT, but the changes are made by a task."""
    config_update.require_allowed(request.guest, request.endpoint, request.params)
    _require_privileges(request)

    async def run(context: TaskContext) -> None:
        await context.spend(0.2)
        _update_config(request)

    return request.start("qmconfig", request.vmid, run)


@route("PUT", "/nodes/{node}/qemu/{vmid}/unlink")
def unlink(request: ApiRequest) -> None:
    """PUT /nodes/{node}/qemu/{vmid}/unlink."""
    config_update.unlink(
        request.state, request.guest, request.params["idlist"], force=bool(request.get("force"))
    )


@route("PUT", *both("/resize"))
def resize(request: ApiRequest) -> str:
    """PUT …/resize."""
    guest, slot, size = request.guest, request.params["disk"], request.params["size"]
    if request.get("digest", guest.digest) != guest.digest:
        raise ApiError(config_update.MISMATCH[guest.kind])
    disk = next((disk for disk in guest.disks() if disk.slot == slot), None)
    old_size = disk.size if disk else 0
    new_size = old_size + parse_size(size[1:]) if size.startswith("+") else parse_size(size)
    if guest.kind is Kind.LXC and new_size < old_size:
        raise ApiError("unable to shrink disk size")
    return request.start("resize", request.vmid, disks.resize(guest, slot, new_size))


@route("POST", "/nodes/{node}/qemu/{vmid}/move_disk", "/nodes/{node}/lxc/{vmid}/move_volume")
def move_disk(request: ApiRequest) -> str:
    """POST …/move_disk and …/move_volume."""
    guest, slot = request.guest, request.get("disk") or request.params["volume"]
    given = {"storage", "target-vmid"} & request.params.keys()
    if len(given) != 1:
        problem = "either set 'storage' or 'target-vmid', but not both"
        if not given:
            problem = "both 'storage' and 'target-vmid' missing, either needs to be set"
        raise request.invalid(storage=problem, target_vmid=problem)
    if "storage" not in given:
        raise MethodNotImplemented("POST", request.path)
    storage = request.state.storage(request.params["storage"])
    request.rights.require(storage.path, "Datastore.AllocateSpace")
    _require_content(request, enabled(storage, request))
    if request.get("digest", guest.digest) != guest.digest:
        raise ApiError(config_update.MISMATCH[guest.kind])
    guest.require_unlocked()
    if guest.kind is Kind.LXC and guest.running:
        raise ApiError("cannot move volumes of a running container")
    disk = next((disk for disk in guest.disks() if disk.slot == slot), None)
    if disk is None:
        raise ApiError(f"disk '{slot}' does not exist")
    if disk.storage == storage.name and not request.get("format"):
        raise ApiError("you can't move to the same storage with same format")
    if request.get("delete") and disk.volid in _volumes_of_snapshots(guest):
        word = "disk" if guest.kind is Kind.QEMU else "volume"
        raise ApiError(f"you can't move a {word} with snapshots and delete the source")
    delete = bool(request.get("delete"))
    work = disks.move_disk(guest, slot, storage.name, delete=delete)
    task = "qmmove" if guest.kind is Kind.QEMU else "move_volume"
    return request.start(task, request.vmid, work)


def _volumes_of_snapshots(guest: Guest) -> set[str]:
    """Return the volumes that a snapshot of the guest has."""
    configs = (snapshot.config for snapshot in guest.snapshots.values())
    return {disk.volid for config in configs for disk in disks_of(config, guest.kind)}


@route("POST", *both("/template"))
def make_template(request: ApiRequest) -> str | None:
    """POST …/template."""
    guest = request.guest
    if guest.snapshots:
        word = guest.kind.word
        raise ApiError(f"unable to create template, because {word} contains snapshots")
    if guest.template:
        raise ApiError("you can't convert a template to a template")
    if guest.running:
        raise ApiError(f"unable to create template, because {guest.kind.word} is running")
    work = guest_lifecycle.make_template(guest)
    upid = request.start(f"{PREFIX[request.kind]}template", request.vmid, work)
    return upid if request.kind is Kind.QEMU else None


def _require_privileges(request: ApiRequest) -> None:
    """Raise Forbidden without the privilege of each option that the request changes."""
    names = [name for name in request.params if name not in config_update.NOT_OPTIONS]
    names += [name for name in str(request.get("delete", "")).split(",") if name]
    for name in names:
        request.rights.require(request.guest.path, config_update.privilege_for(name))


def _update_config(request: ApiRequest) -> None:
    guest = request.guest
    _require_privileges(request)
    config_update.update_config(request.state, guest, request.endpoint, request.params)
    if guest.kind is Kind.QEMU:  # Proxmox logs no options of containers
        line = f"update VM {guest.vmid}: {config_update.logged_options(request.params)}"
        request.state.write_log(guest.node, request.principal.name, line)


def _require_allocate(request: ApiRequest, vmid: int, pool: str | None) -> None:
    """Raise Forbidden without VM.Allocate on the VMID or the pool; ApiError for an unknown pool."""
    allowed = request.rights.has(f"/vms/{vmid}", "VM.Allocate")
    if not allowed and not (pool and request.rights.has(f"/pool/{pool}", "VM.Allocate")):
        raise Forbidden
    if pool and pool not in request.state.pools:
        raise Forbidden(f"pool '{pool}' does not exist")


def _require_bridges(request: ApiRequest, options: Mapping[str, Any]) -> None:
    """Raise Forbidden without SDN.Use on the bridge, or the VLAN, of a network device."""
    for name, value in options.items():
        if name.startswith("net") and name[3:].isdigit():
            parts = dict(part.partition("=")[::2] for part in str(value).split(","))
            if bridge := parts.get("bridge"):
                vlan = f"/{parts['tag']}" if parts.get("tag") else ""
                request.rights.require(f"/sdn/zones/localnetwork/{bridge}{vlan}", "SDN.Use")


def _require_content(request: ApiRequest, storage: Storage) -> None:
    content = "rootdir" if request.kind is Kind.LXC else "images"
    if content not in storage.content:
        problem = f"storage '{storage.name}' does not support {WORDS[content]}"
        raise request.invalid(storage=problem)


def _require_disk_storages(request: ApiRequest, kind: Kind) -> None:
    """Raise an error for a new disk on a storage that is missing or not for disks."""
    content = "rootdir" if kind is Kind.LXC else "images"
    for name, value in request.params.items():
        storage, colon, size = str(value).partition(",")[0].partition(":")
        is_new = colon and size.replace(".", "").isdigit()
        if name.rstrip("0123456789") not in disks.SLOTS or not is_new:
            continue
        if content not in request.state.storage(storage).content:
            problem = f"storage '{storage}' does not support {WORDS[content]}"
            raise request.invalid(**{name: problem})


def _require_free_vmid(request: ApiRequest, kind: Kind, verb: str) -> None:
    taken = request.state.with_vmid(request.vmid)
    if taken is not None:
        exists = f"{taken.kind.word} {taken.vmid} already exists on node '{taken.node}'"
        if kind is Kind.LXC:
            raise ApiError(exists)
        raise ApiError(f"unable to {verb} {kind.word} {taken.vmid} - {exists}")
