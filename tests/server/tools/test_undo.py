"""Undo: the call that reverses a write is in its answer, and Undo makes it for the same key."""

from dataclasses import replace
from functools import partial

import anyio
import pytest

from proxmox_client.emulator import Clock, FaultKind, demo
from pvemcp_server.access.model import Resources
from pvemcp_server.pipeline.confirmation import Agreed
from pvemcp_server.store.database import DatabaseFailed

from .tool_client import PACE, FakeConversation, FakeUndos, offered

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}
ROLLED_BACK = 105  # a rollback stops it
WRITES = {
    "power": ("ChangeVmState", {"vmids": [101], "action": "Shutdown"}),
    "power of several": ("ChangeVmState", {"vmids": [101, 105], "action": "Suspend"}),
    "snapshots": ("CreateVmSnapshot", {"vmids": [101, 105], "snapshot_name": "patching"}),
    "configuration": ("UpdateVmConfig", {"vmids": [101], "options": ["onboot=0"], "memory": 4096}),
    "migration": ("MigrateVm", {"vmids": [101], "target_node": "pve02", "online": True}),
    "disk": ("MoveVmDisk", {"vmid": 101, "disk": "scsi0", "target_storage": "local-zfs"}),
    "clone": ("CloneVm", {"source": "105", "name": "copy"}),
    "deletion": ("DeleteVm", {"vmid": 140, "name": "search-02"}),
    "deletion elsewhere": ("DeleteVm", {"vmid": 107, "name": "web-08"}),
    "restore": ("RestoreBackup", {"backup": "105", "name": "copy"}),
    "started clone": ("CloneVm", {"source": "105", "name": "copy", "start": True}),
    "started VM without a system": (
        "CreateVm",
        {"node": "pve01", "storage": "ceph-vm", "name": "copy", "start": True},
    ),
    "rollback": ("RollbackVmSnapshot", {"vmid": ROLLED_BACK, "snapshot_name": "release-4-2"}),
}


def state_of(client):
    """Return what the writes change of guests: place, power, configuration, snapshots."""
    return {
        vmid: (
            guest.node,
            (guest.status, guest.paused) if vmid != ROLLED_BACK else None,
            {k: v for k, v in guest.next_config.items() if not k.startswith(("scsi0", "unused"))},
            next(disk.storage for disk in guest.disks() if disk.slot in ("scsi0", "rootfs")),
            {name for name in guest.snapshots if not name.startswith("before-rollback")},
            {
                name
                for name, pool in client["prod"].emulated.state.pools.items()
                if vmid in pool.vmids
            },
        )
        for vmid, guest in client["prod"].emulated.state.guests.items()
        if vmid in (101, 105, 107, 140) or guest.name == "copy"
    }


@pytest.mark.parametrize("write", WRITES)
async def test_undo_brings_back_what_a_write_changed(demo_client, write):
    tool, arguments = WRITES[write]
    demo_client["prod"].emulated.state.guests[ROLLED_BACK].config["cores"] = 12
    before = state_of(demo_client)
    plan = (await demo_client(tool, **PROD, **arguments, dry_run=True)).data["would"]
    answer = await demo_client(tool, **PROD, **arguments, wait=True)
    assert not answer.failed, answer.text
    changed = state_of(demo_client)
    assert changed != before
    preview = await demo_client("Undo", dry_run=True)
    assert (preview.failed, state_of(demo_client)) == (False, changed), preview.text
    for _ in answer.data["undo"].split("; "):
        undone = await demo_client("Undo", wait=True)
        assert not undone.failed, undone.text
    assert state_of(demo_client) == before | (  # what a backup holds is of an earlier time
        {140: state_of(demo_client)[140]} if write == "deletion" else {}
    )
    # the offered call is the one that was made
    made = demo_client.audit.events[-1][1]
    assert made.tool == offered(answer.data["undo"].split("; ")[-1])[0]
    undoes = made.arguments["undoes"]  # the plan without what it loses
    assert undoes.endswith(".")
    assert plan.startswith(undoes)
    assert "No write of this key" in await demo_client.refused("Undo")


async def test_the_last_write_is_undone_first_then_the_one_before(demo_client):
    guests = demo_client["prod"].emulated.state.guests
    await demo_client("ChangeVmState", **PROD, vmid=101, action="Suspend", wait=True)
    await demo_client("ChangeVmState", **PROD, vmid=105, action="Suspend", wait=True)
    await demo_client("Undo", wait=True)
    assert (guests[101].paused, guests[105].paused) == (True, False)
    await demo_client("Undo", wait=True)
    assert (guests[101].paused, guests[105].paused) == (False, False)
    assert "No write of this key" in await demo_client.refused("Undo")


async def test_undo_can_name_the_cluster_or_the_guest(demo_client):
    guests = demo_client["prod"].emulated.state.guests
    for vmid in (101, 105):
        await demo_client("ChangeVmState", **PROD, vmid=vmid, action="Suspend", wait=True)
    assert "No write of this key" in await demo_client.refused("Undo", cluster_name="home-lab")
    assert "No write of this key" in await demo_client.refused("Undo", vmid=102)
    answer = await demo_client("Undo", **PROD, vmid=101, wait=True)
    assert answer.data["vmid"] == 101
    assert (guests[101].paused, guests[105].paused) == (False, True)


def attributes(**values):
    return lambda _state, guest: [setattr(guest, *each) for each in values.items()]


def options(**values):
    return lambda _state, guest: (guest.config.update(values), guest.pending.clear())


def snapshot(name, **values):
    def change(_state, guest):
        taken = guest.snapshots.pop(name)
        if values:
            guest.snapshots[name] = replace(taken, **values)

    return change


def volume(part, **values):
    """Delete the volumes with this in their names, or give them other values."""

    def change(state, _guest):
        for storage in state.storages.values():
            for node in state.nodes:
                for volid in [each for each in storage.volumes(node) if part in each]:
                    found = storage.volumes(node)[volid]
                    storage.remove(node, volid)
                    if values:
                        storage.put(node, replace(found, **values))

    return change


def vmid_is_taken(state, _guest):
    state.guests[140] = replace(state.guests[100], vmid=140, config={"name": "usurper"})


ISO = {"node": "pve01", "storage": "local", "source": "https://93.184.216.34/new.iso"}
# A write, its guest, and changes after it; each change is named rather than those before it
CHANGED = {
    "start": (
        *("ChangeVmState", {"vmid": 107, "action": "Start"}, 107),
        (attributes(pid=4711), "was changed, it was started again"),
        (attributes(paused=True), "was changed, it is paused, not running"),
        (attributes(status="stopped", paused=False), "was changed, it is stopped, not running"),
        (attributes(node="pve02"), "was changed, it is on pve02, not on pve03"),
    ),
    "shutdown": (
        *("ChangeVmState", {"vmid": 115, "action": "Shutdown"}, 115),
        (attributes(status="running"), "was changed, it is running, not stopped"),
    ),
    "suspension": (
        *("ChangeVmState", {"vmid": 101, "action": "Suspend"}, 101),
        (attributes(pid=4711), "was changed, it was started again"),
        (attributes(paused=False), "was changed, it is running, not paused"),
    ),
    "snapshot": (
        *("CreateVmSnapshot", {"vmid": 110, "snapshot_name": "patching"}, 110),
        (snapshot("patching", time=1), "was changed, its snapshot 'patching' is another one"),
        (snapshot("patching"), "was changed, its snapshot 'patching' is gone"),
    ),
    "configuration": (
        *("UpdateVmConfig", {"vmid": 102, "memory": 2048}, 102),
        (options(memory="16384"), "was changed, its option memory has another value"),
    ),
    "migration": (
        *("MigrateVm", {"vmid": 125, "target_node": "pve02", "online": True}, 125),
        (attributes(node="pve03"), "was changed, it is on pve03, not on pve02"),
    ),
    "disk": (
        *("MoveVmDisk", {"vmid": 130, "disk": "scsi0", "target_storage": "local-zfs"}, 130),
        (options(scsi0="ceph-vm:vm-130-disk-9,size=10G"), "its disk scsi0 is no longer on local"),
    ),
    "attachment": (
        *("AttachDisk", {"vmid": 135, "volume": "ceph-vm:1", "disk": "scsi9"}, 135),
        (options(scsi9="ceph-vm:vm-135-disk-7"), "its option scsi9 has another value"),
    ),
    "detachment": (
        *("DetachDisk", {"vmid": 121, "disk": "scsi1"}, 121),
        (options(scsi1="ceph-vm:vm-121-disk-7"), "its option scsi1 has another value"),
    ),
    "clone": (
        *("CloneVm", {"source": "105", "name": "copy", "new_vmid": 777}, 777),
        (options(description="in use"), "was changed, its configuration is another one"),
    ),
    "rollback": (
        *("RollbackVmSnapshot", {"vmid": 105, "snapshot_name": "release-4-2"}, 105),
        (options(cores="3"), "was changed, its configuration is another one"),
        (
            lambda _state, guest: [
                guest.snapshots.pop(name) for name in [*guest.snapshots] if "before-" in name
            ],
            "is gone",
        ),
    ),
    "download": (
        *("DownloadIso", {**ISO, "filename": "new.iso"}, None),
        (volume("new.iso", size=7), "since then local:iso/new.iso was replaced"),
        (volume("new.iso"), "since then local:iso/new.iso was deleted"),
    ),
    "deletion": (
        *("DeleteVm", {"vmid": 140, "name": "search-02"}, None),
        (vmid_is_taken, "VMID 140 "),
        (volume("/vm/140/"), "No backup"),
    ),
}


@pytest.fixture(scope="module")
async def fast_client(anyio_backend, open_client):
    async with open_client(demo(), Clock(PACE)) as opened:
        yield opened


@pytest.mark.parametrize("kind", CHANGED)
async def test_no_write_is_undone_when_what_it_left_has_changed(fast_client, kind):
    tool, arguments, vmid, *changes = CHANGED[kind]
    client = replace(fast_client, undos=FakeUndos())
    answer = await client(tool, **PROD, **arguments, wait=True)
    assert not answer.failed, answer.text
    state = client["prod"].emulated.state
    for change, fact in changes:
        change(state, state.guests.get(vmid))
        if vmid:
            state.guests[vmid].touch()
        client.refresh()
        client.requests("prod")
        error = await client.refused("Undo", wait=True)
        assert fact in error, error
        assert not [each for each in client.requests("prod") if not each.startswith("GET")]
        if "since then" in error:
            offers = answer.data["undo"].split("; ")
            assert any(error.endswith(f"If it is still right, call {offer}") for offer in offers)


async def test_what_changed_while_the_user_was_asked_is_seen(fast_client):
    client = replace(fast_client, undos=FakeUndos(), conversation=FakeConversation())
    guest = client["prod"].emulated.state.guests[131]
    call = {**PROD, "vmid": 131, "snapshot_name": "patching"}
    assert not (await client("CreateVmSnapshot", **call, wait=True)).failed

    async def ask(_question, _beside="", _digest=""):
        snapshot("patching", time=1)(None, guest)
        raise Agreed

    client.conversation.ask = ask
    assert "its snapshot 'patching' is another one" in await client.refused("Undo", wait=True)


async def test_an_undo_that_cannot_be_removed_afterwards_is_still_done(
    fast_client, monkeypatch, caplog
):
    async def refused(_number):
        raise DatabaseFailed("away")

    client = replace(fast_client, undos=FakeUndos())
    call = {**PROD, "vmid": 131, "snapshot_name": "once"}
    assert not (await client("CreateVmSnapshot", **call, wait=True)).failed
    monkeypatch.setattr(client.undos, "remove", refused)
    assert not (await client("Undo", wait=True)).failed
    assert "so Undo finds it again" in caplog.text
    assert "its snapshot 'once'" in await client.refused("Undo", wait=True)


async def test_a_write_that_failed_or_was_tried_dry_is_not_undone(demo_client):
    await demo_client("ChangeVmState", **PROD, vmid=101, action="Suspend", dry_run=True)
    await demo_client.refused("ChangeVmState", **PROD, vmid=101, action="Resume")
    demo_client["prod"].emulated.fault(FaultKind.DROP, path=".*/qemu/101/status/suspend")
    await demo_client.refused("ChangeVmState", **PROD, vmid=101, action="Suspend")
    assert "No write of this key" in await demo_client.refused("Undo")


GONE = "https://93.184.216.34/gone.iso"
LOCAL = {"node": "pve01", "storage": "local"}
LASTING = {
    "no way back": ("ResizeVmDisk", {"vmid": 101, "disk": "scsi0", "size": "+1G"}, None),
    "nothing to bring back": ("BackupVm", {"vmids": [101], "storage": "nfs-archive"}, None),
    "a task that failed": ("DownloadIso", {**LOCAL, "source": GONE, "checksum": "0" * 64}, "task"),
    "no answer": ("ChangeVmState", {"vmids": [101], "action": "Reset"}, FaultKind.DROP),
}


@pytest.mark.parametrize("write", LASTING)
async def test_a_write_before_one_that_no_call_undoes_is_not_undone_in_its_place(
    demo_client, write
):
    await demo_client("ChangeVmState", **PROD, vmid=105, action="Suspend", wait=True)
    before = await demo_client("UpdateVmConfig", **PROD, vmids=[101], options=["onboot=0"])
    tool, arguments, fault = LASTING[write]
    demo_client["prod"].emulated.state.downloads[GONE] = None
    if isinstance(fault, FaultKind):
        demo_client["prod"].emulated.fault(fault, path=".*/qemu/101/status/reset")
    call = demo_client.refused if fault else demo_client
    await call(tool, **PROD, **arguments, wait=True)
    changed = state_of(demo_client)
    error = await demo_client.refused("Undo")
    assert error.startswith("No call undoes the last write (")
    assert error.endswith(f"is undone by {before.data['undo']}")
    assert state_of(demo_client) == changed
    assert (await demo_client("Undo", vmid=105, wait=True)).data["success"] is True


async def test_a_write_that_failed_half_way_is_undone_by_the_call_that_its_error_names(demo_client):
    prod = demo_client["prod"].emulated
    start = prod.fault(FaultKind.ERROR, path=".*/status/start", message="no memory")
    template = "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst"
    place = {"node": "pve01", "storage": "local-zfs"}
    for tool, arguments in (
        ("CloneVm", {"source": "105", "name": "half"}),
        ("CreateVm", {**place, "name": "half"}),
        ("CreateContainer", {**place, "name": "half", "template": template}),
        ("RestoreBackup", {"backup": "105"}),
    ):
        guests = {*prod.state.guests}
        error = await demo_client.refused(tool, **PROD, **arguments, start=True, wait=True)
        [made] = {*prod.state.guests} - guests
        assert f'DeleteVm {{"cluster_name":"prod","vmid":{made}' in error, tool
        assert (await demo_client("Undo", wait=True)).data["vmid"] == made
        assert {*prod.state.guests} == guests
    prod.faults.remove(start)
    prod.fault(FaultKind.ERROR, path=".*/rollback", message="no such dataset")
    back = {"vmid": ROLLED_BACK, "snapshot_name": "release-4-2"}
    error = await demo_client.refused("RollbackVmSnapshot", **PROD, **back, wait=True)
    assert "undo it: DeleteVmSnapshot" in error
    assert (await demo_client("Undo", wait=True)).data["ok"] is True
    assert not any(each.startswith("before") for each in prod.state.guests[105].snapshots)


# the others have no task, or lose a snapshot
WITH_TASK = [name for name in WRITES if name not in ("configuration", "deletion")]


@pytest.mark.parametrize("write", WITH_TASK)
async def test_a_write_whose_client_left_is_undone_when_its_task_has_ended(demo_client, write):
    prod, before = demo_client["prod"].emulated, state_of(demo_client)
    followed = prod.fault(FaultKind.HANG, path=r".*/tasks/.*/(status|log)")
    tool, arguments = WRITES[write]
    async with anyio.create_task_group() as group:
        group.start_soon(partial(demo_client, tool, **PROD, **arguments, wait=True))
        with anyio.fail_after(10):
            while not followed.hits:  # noqa: ASYNC110 - there is no event for it
                await anyio.sleep(0.005)
        group.cancel_scope.cancel()
    prod.faults.remove(followed)
    with anyio.fail_after(10):
        while any(task.running for task in prod.state.tasks.values()):  # noqa: ASYNC110
            await anyio.sleep(0.005)
    assert (await demo_client("Undo", wait=True)).data["success"] is True
    assert state_of(demo_client) == before


async def test_undo_has_the_rights_of_the_call_that_it_makes(demo_client):
    await demo_client("ChangeVmState", **PROD, vmid=101, action="Suspend", wait=True)
    only_undo = replace(demo_client, tools=frozenset({"Undo"}))
    with pytest.raises(Exception, match="Unknown tool: ChangeVmState"):
        await only_undo("Undo")
    elsewhere = demo_client.scoped(Resources(vmids=frozenset({105})))
    assert "No guest 101" in await elsewhere.refused("Undo")
    assert demo_client["prod"].emulated.state.guests[101].paused


async def test_undo_asks_where_the_call_asks(demo_client):
    await demo_client("CreateVmSnapshot", **PROD, vmid=105, snapshot_name="patching", wait=True)
    assert demo_client.conversation.questions == []
    await demo_client("Undo", wait=True)
    [question] = demo_client.conversation.questions
    assert question.startswith("Delete snapshot 'patching' of qemu 105")


async def test_the_undo_of_many_guests_is_one_call(demo_client):
    vmids = [101, 105]
    call = {**PROD, "vmids": vmids, "snapshot_name": "patching"}
    answer = await demo_client("CreateVmSnapshot", **call, wait=True)
    assert offered(answer.data["undo"]) == ("DeleteVmSnapshot", call)
    preview = await demo_client("ChangeVmState", **PROD, vmids=vmids, action="Stop", dry_run=True)
    assert offered(preview.data["undo"]) == (
        "ChangeVmState",
        {**PROD, "vmids": vmids, "action": "Start"},
    )


API = {**PROD, "method": "PUT", "path": "/cluster/options"}
# Requests that another one reverses: method, path, parameters, and where the state is shown
REVERSIBLE = {
    "options with old values": ("PUT", "/cluster/options", ["console=html5", "description=new"]),
    "an option that had none": ("PUT", "/cluster/options", ["bwlimit=default=10240"]),
    "options that it unsets": ("PUT", "/cluster/backup/backup-nightly", ["delete=mode"]),
    "guests and a comment of a pool": (
        "PUT",
        "/pools?poolid=production",
        ["vms=101", "delete=1", "comment=fewer"],
    ),
    "members without a pool": ("PUT", "/pools?poolid=office", ["vms=9000", "storage=local"]),
    "guests of one other pool": (
        "PUT",
        "/pools?poolid=office",
        ["vms=101,102", "allow-move=1"],
    ),
    "a comment of a pool that had none": ("PUT", "/pools?poolid=plain/nested", ["comment=new"]),
    "members by the path of the pool": ("PUT", "/pools/production", ["vms=101", "delete=1"]),
    "a pool": ("POST", "/pools", ["poolid=sandbox", "comment=tests"]),
    "a backup job": ("POST", "/cluster/backup", ["id=extra", "vmid=101", "schedule=daily"]),
    "a storage": ("POST", "/storage", ["storage=more", "type=dir", "path=/srv/more"]),
    "an HA resource": ("POST", "/cluster/ha/resources", ["sid=vm:101", "state=started"]),
}
ONE_WAY = {
    "a DELETE": ("DELETE", "/cluster/backup/backup-nightly", []),
    "guests of two pools": ("PUT", "/pools/sandbox", ["vms=101,144", "allow-move=1"]),
    "guests of a pool and of none": ("PUT", "/pools/sandbox", ["vms=101,9000", "allow-move=1"]),
    "guests of another pool and a comment": (
        "PUT",
        "/pools/sandbox",
        ["vms=101", "allow-move=1", "comment=both"],
    ),
    "a disk": ("PUT", "/nodes/pve01/qemu/101/config", ["scsi5=local-zfs:1"]),
    "a name that Proxmox makes up": ("POST", "/cluster/backup", ["vmid=101", "schedule=daily"]),
    "a rule at a position": (
        "POST",
        "/cluster/firewall/rules",
        ["type=in", "action=DROP", "pos=0"],
    ),
}


async def stored(client, path):
    """Return the values at a path; of pools, the comments and members of all."""
    if path.startswith("/pools"):
        state = client["prod"].emulated.state
        return {p.poolid: (p.comment, {*p.vmids}, {*p.storages}) for p in state.pools.values()}
    values = await client["prod"].pve.raw("GET", path)
    return (
        {k: v for k, v in values.items() if k != "digest"}
        if isinstance(values, dict)
        else [{k: v for k, v in row.items() if k != "digest"} for row in values]
    )


@pytest.mark.parametrize("write", REVERSIBLE)
async def test_a_request_is_reversed_where_that_is_certain(demo_client, write):
    method, path, parameters = REVERSIBLE[write]
    await demo_client["prod"].pve.raw("POST", "/pools", poolid="plain/nested")
    path, _, pool = path.partition("?")
    parameters = [pool, *parameters] if pool else parameters
    call = {**PROD, "method": method, "path": path, "parameters": parameters}
    before = await stored(demo_client, path)
    preview = await demo_client("CallApi", **call, dry_run=True)
    answer = await demo_client("CallApi", **call)
    assert not answer.failed, answer.text
    assert preview.data["undo"] == answer.data["undo"]
    assert await stored(demo_client, path) != before
    undone = await demo_client("Undo")
    assert not undone.failed, undone.text
    assert await stored(demo_client, path) == before


async def test_a_request_whose_values_have_changed_since_is_not_reversed(demo_client):
    await demo_client("CallApi", **API, parameters=["console=html5"])
    await demo_client["prod"].pve.raw("PUT", "/cluster/options", console="vv")
    error = await demo_client.refused("Undo")
    assert "since then console of /cluster/options has another value" in error


async def test_a_pool_whose_members_have_changed_since_is_not_put_back(demo_client):
    call = {**PROD, "method": "PUT", "path": "/pools"}
    taken_out = ["poolid=production", "vms=101", "delete=1"]
    assert not (await demo_client("CallApi", **call, parameters=taken_out)).failed
    await demo_client["prod"].pve.raw("PUT", "/pools", poolid="office", vms="101")
    await demo_client["prod"].pve.raw("PUT", "/pools", poolid="production", vms="102", delete=1)
    error = await demo_client.refused("Undo")
    assert "since then vms of /pools has another value" in error


@pytest.mark.parametrize("write", ONE_WAY)
async def test_a_request_without_a_certain_way_back_has_none(demo_client, write):
    await demo_client["prod"].pve.raw("POST", "/pools", poolid="sandbox")
    await demo_client("CallApi", **API, parameters=["console=html5"])
    method, path, parameters = ONE_WAY[write]
    call = {**PROD, "method": method, "path": path, "parameters": parameters}
    answer = await demo_client("CallApi", **call)
    assert not answer.failed, answer.text
    assert "undo" not in answer.data
    assert (await demo_client.refused("Undo")).startswith("No call undoes the last write (")
