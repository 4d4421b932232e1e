"""Guests come, change and go."""

from proxmox_client.emulator.errors import ApiError, Refused
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.routes.power import PREFIX, both
from proxmox_client.emulator.state.guest import Kind
from proxmox_client.emulator.state.sizes import parse_size
from proxmox_client.emulator.work import configure, disks, guest_lifecycle
from proxmox_client.emulator.work.board import Job

RUNNING_CLONE = {
    False: "Cannot do full clones on a running container without snapshots",
    True: "Full clone of a running container is only possible from a snapshot",
}
"""What is said to who would copy a running container, before 9.0 and since."""


@route("POST", "/nodes/{node}/qemu", "/nodes/{node}/lxc")
def create(call: Call) -> str:
    """POST /nodes/{node}/qemu and /nodes/{node}/lxc; with archive, from a backup."""
    kind = Kind.LXC if call.path.endswith("/lxc") else Kind.QEMU
    _require_allocate(call, call.vmid, call.get("pool"))
    archive = call.get("archive") or (call.get("restore") and call.get("ostemplate"))
    _require_free(call, kind, "restore" if archive else "create")
    what = (call.state, kind, call.params["node"], call.vmid, call.params)
    if archive:
        work = guest_lifecycle.restore(*what, call.endpoint)
        return call.start(f"{PREFIX[kind]}restore", call.vmid, work)
    return call.start(f"{PREFIX[kind]}create", call.vmid, guest_lifecycle.create(*what))


@route("POST", *both("/clone"))
def clone(call: Call) -> str:
    """POST …/clone."""
    guest, newid = call.guest, call.params["newid"]
    _require_allocate(call, newid, call.get("pool"))
    if newid in call.state.guests:
        raise ApiError(f"unable to create VM {newid}: config file already exists")
    if guest.kind is Kind.LXC and guest.running and not call.get("snapname"):
        raise ApiError(RUNNING_CLONE[call.state.release >= (9, 0)])
    if not call.get("full", not guest.template) and not guest.template:
        raise ApiError("Linked clone feature is not supported for non-template guests")
    target = call.get("target") or call.node.name
    if target not in call.state.nodes:
        raise ApiError(f"no such cluster node '{target}'")
    work = guest_lifecycle.clone(guest, newid, target, call.params)
    return call.start(f"{PREFIX[call.kind]}clone", call.vmid, work)


@route("DELETE", "/nodes/{node}/qemu/{vmid}", "/nodes/{node}/lxc/{vmid}")
def destroy(call: Call) -> str:
    """DELETE /nodes/{node}/qemu/{vmid} and /nodes/{node}/lxc/{vmid}."""
    guest = call.guest
    guest.require_unlocked()
    if guest.config.get("protection"):
        raise ApiError(f"can't remove {guest.kind.word} {guest.vmid} - protection mode enabled")
    if call.state.ha_of(guest) and not call.get("purge"):
        raise ApiError(f"unable to remove {guest.kind.word} {guest.vmid} - used in HA resources")
    if guest.running:
        raise ApiError(f"{guest.kind.word} {guest.vmid} is running - destroy failed")
    work = guest_lifecycle.destroy(guest, purge=bool(call.get("purge")))
    return call.start(f"{PREFIX[call.kind]}destroy", call.vmid, work)


@route("PUT", *both("/config"))
def set_config(call: Call) -> None:
    """PUT …/config."""
    _change(call)


@route("POST", "/nodes/{node}/qemu/{vmid}/config")
def set_config_by_task(call: Call) -> str:
    """POST /nodes/{node}/qemu/{vmid}/config: the same, as a task."""
    _change(call)

    async def work(job: Job) -> None:
        await job.spend(0.2)

    return call.start("qmconfig", call.vmid, work)


@route("PUT", *both("/resize"))
def resize(call: Call) -> str:
    """PUT …/resize."""
    guest, slot, wanted = call.guest, call.params["disk"], call.params["size"]
    guest.require_unlocked()
    disk = next((disk for disk in guest.disks() if disk.slot == slot), None)
    if disk is None:
        raise ApiError(f"disk '{slot}' does not exist")
    grown = disk.size + parse_size(wanted[1:]) if wanted.startswith("+") else parse_size(wanted)
    return call.start("resize", call.vmid, disks.resize(guest, slot, grown))


@route("POST", "/nodes/{node}/qemu/{vmid}/move_disk")
def move_disk(call: Call) -> str:
    """POST /nodes/{node}/qemu/{vmid}/move_disk."""
    if "storage" not in call.params:
        raise call.bad(storage="property is missing: disks are moved to storages, not to guests")
    storage = call.state.storage(call.params["storage"])
    call.rights.require(storage.path, "Datastore.AllocateSpace")
    delete = bool(call.get("delete"))
    work = disks.move_disk(call.guest, call.params["disk"], storage.name, delete=delete)
    return call.start("qmmove", call.vmid, work)


@route("POST", *both("/template"))
def make_template(call: Call) -> str | None:
    """POST …/template."""
    guest = call.guest
    if guest.running:
        raise ApiError(f"unable to create template, because {guest.kind.word} is running")
    work = guest_lifecycle.make_template(guest)
    upid = call.start(f"{PREFIX[call.kind]}template", call.vmid, work)
    return upid if call.kind is Kind.QEMU else None


def _change(call: Call) -> None:
    guest = call.guest
    names = [name for name in call.params if name not in configure.NO_OPTIONS]
    names += [name for name in str(call.get("delete", "")).split(",") if name]
    for name in names:
        call.rights.require(guest.path, configure.privilege_for(name))
    configure.change(call.state, guest, call.endpoint, call.params)


def _require_allocate(call: Call, vmid: int, pool: str | None) -> None:
    """Who makes a guest must own its number, or the pool it comes into."""
    allowed = call.rights.has(f"/vms/{vmid}", "VM.Allocate")
    if not allowed and not (pool and call.rights.has(f"/pool/{pool}", "VM.Allocate")):
        raise Refused
    if pool and pool not in call.state.pools:
        raise ApiError(f"pool '{pool}' does not exist")


def _require_free(call: Call, kind: Kind, verb: str) -> None:
    taken = call.state.guests.get(call.vmid)
    if taken is not None:
        exists = f"{taken.kind.word} {taken.vmid} already exists on node '{taken.node}'"
        raise ApiError(f"unable to {verb} {kind.word} {taken.vmid} - {exists}")
