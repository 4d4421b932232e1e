"""Creation, clone, configuration, disks and removal of guests."""

from proxmox_client.emulator.errors import ApiError, Forbidden
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.routes.power import PREFIX, both
from proxmox_client.emulator.state.guest import Kind
from proxmox_client.emulator.state.sizes import parse_size
from proxmox_client.emulator.tasks import config_update, disks, guest_lifecycle
from proxmox_client.emulator.tasks.runner import TaskContext

RUNNING_CLONE = {
    False: "Cannot do full clones on a running container without snapshots",
    True: "Full clone of a running container is only possible from a snapshot",
}
"""The error for a full clone of a running container, by whether the version is 9.0 or later."""


@route("POST", "/nodes/{node}/qemu", "/nodes/{node}/lxc")
def create(request: ApiRequest) -> str:
    """POST /nodes/{node}/qemu and /nodes/{node}/lxc; with archive, from a backup."""
    kind = Kind.LXC if request.path.endswith("/lxc") else Kind.QEMU
    _require_allocate(request, request.vmid, request.get("pool"))
    archive = request.get("archive") or (request.get("restore") and request.get("ostemplate"))
    _require_free_vmid(request, kind, "restore" if archive else "create")
    arguments = (request.state, kind, request.params["node"], request.vmid, request.params)
    if archive:
        work = guest_lifecycle.restore(*arguments, request.endpoint)
        return request.start(f"{PREFIX[kind]}restore", request.vmid, work)
    return request.start(f"{PREFIX[kind]}create", request.vmid, guest_lifecycle.create(*arguments))


@route("POST", *both("/clone"))
def clone(request: ApiRequest) -> str:
    """POST …/clone."""
    guest, newid = request.guest, request.params["newid"]
    _require_allocate(request, newid, request.get("pool"))
    if newid in request.state.guests:
        raise ApiError(f"unable to create VM {newid}: config file already exists")
    if guest.kind is Kind.LXC and guest.running and not request.get("snapname"):
        raise ApiError(RUNNING_CLONE[request.state.release >= (9, 0)])
    if not request.get("full", not guest.template) and not guest.template:
        raise ApiError("Linked clone feature is not supported for non-template guests")
    target = request.get("target") or request.node.name
    if target not in request.state.nodes:
        raise ApiError(f"no such cluster node '{target}'")
    work = guest_lifecycle.clone(guest, newid, target, request.params)
    return request.start(f"{PREFIX[request.kind]}clone", request.vmid, work)


@route("DELETE", "/nodes/{node}/qemu/{vmid}", "/nodes/{node}/lxc/{vmid}")
def destroy(request: ApiRequest) -> str:
    """DELETE /nodes/{node}/qemu/{vmid} and /nodes/{node}/lxc/{vmid}."""
    guest = request.guest
    guest.require_unlocked()
    if guest.config.get("protection"):
        raise ApiError(f"can't remove {guest.kind.word} {guest.vmid} - protection mode enabled")
    if request.state.ha_of(guest) and not request.get("purge"):
        raise ApiError(f"unable to remove {guest.kind.word} {guest.vmid} - used in HA resources")
    if guest.running:
        raise ApiError(f"{guest.kind.word} {guest.vmid} is running - destroy failed")
    work = guest_lifecycle.destroy(guest, purge=bool(request.get("purge")))
    return request.start(f"{PREFIX[request.kind]}destroy", request.vmid, work)


@route("PUT", *both("/config"))
def set_config(request: ApiRequest) -> None:
    """PUT …/config."""
    _update_config(request)


@route("POST", "/nodes/{node}/qemu/{vmid}/config")
def set_config_by_task(request: ApiRequest) -> str:
    """POST /nodes/{node}/qemu/{vmid}/config: like PUT, but as a task."""
    _update_config(request)

    async def run(context: TaskContext) -> None:
        await context.spend(0.2)

    return request.start("qmconfig", request.vmid, run)


@route("PUT", *both("/resize"))
def resize(request: ApiRequest) -> str:
    """PUT …/resize."""
    guest, slot, size = request.guest, request.params["disk"], request.params["size"]
    guest.require_unlocked()
    disk = next((disk for disk in guest.disks() if disk.slot == slot), None)
    if disk is None:
        raise ApiError(f"disk '{slot}' does not exist")
    new_size = disk.size + parse_size(size[1:]) if size.startswith("+") else parse_size(size)
    return request.start("resize", request.vmid, disks.resize(guest, slot, new_size))


@route("POST", "/nodes/{node}/qemu/{vmid}/move_disk")
def move_disk(request: ApiRequest) -> str:
    """POST /nodes/{node}/qemu/{vmid}/move_disk."""
    if "storage" not in request.params:
        raise request.invalid(
            storage="property is missing: disks are moved to storages, not to guests"
        )
    storage = request.state.storage(request.params["storage"])
    request.rights.require(storage.path, "Datastore.AllocateSpace")
    delete = bool(request.get("delete"))
    work = disks.move_disk(request.guest, request.params["disk"], storage.name, delete=delete)
    return request.start("qmmove", request.vmid, work)


@route("POST", *both("/template"))
def make_template(request: ApiRequest) -> str | None:
    """POST …/template."""
    guest = request.guest
    if guest.running:
        raise ApiError(f"unable to create template, because {guest.kind.word} is running")
    work = guest_lifecycle.make_template(guest)
    upid = request.start(f"{PREFIX[request.kind]}template", request.vmid, work)
    return upid if request.kind is Kind.QEMU else None


def _update_config(request: ApiRequest) -> None:
    guest = request.guest
    names = [name for name in request.params if name not in config_update.NOT_OPTIONS]
    names += [name for name in str(request.get("delete", "")).split(",") if name]
    for name in names:
        request.rights.require(guest.path, config_update.privilege_for(name))
    config_update.update_config(request.state, guest, request.endpoint, request.params)


def _require_allocate(request: ApiRequest, vmid: int, pool: str | None) -> None:
    """Raise Forbidden without VM.Allocate on the VMID or the pool; ApiError for an unknown pool."""
    allowed = request.rights.has(f"/vms/{vmid}", "VM.Allocate")
    if not allowed and not (pool and request.rights.has(f"/pool/{pool}", "VM.Allocate")):
        raise Forbidden
    if pool and pool not in request.state.pools:
        raise ApiError(f"pool '{pool}' does not exist")


def _require_free_vmid(request: ApiRequest, kind: Kind, verb: str) -> None:
    taken = request.state.guests.get(request.vmid)
    if taken is not None:
        exists = f"{taken.kind.word} {taken.vmid} already exists on node '{taken.node}'"
        raise ApiError(f"unable to {verb} {kind.word} {taken.vmid} - {exists}")
