"""A write carries out the plan that its dry run has shown; if that has changed, it is refused."""

import pytest

from pvemcp_server.mcp.elicitation import Decision
from pvemcp_server.toolkit.registry import tools

from .examples import PROD, add_old_volumes, add_running_task, examples

pytestmark = pytest.mark.anyio

CLUSTER = {"cluster_name": "prod"}
VM, CONTAINER = 105, 300
EXAMPLES = examples(PROD)
WRITES = {name for name, tool in tools().items() if not tool.reads}
QUERY = {
    "from": "guests",
    "select": ["vmid"],
    "where": {
        "logic": "and",
        "conditions": [
            {"field": "node", "operator": "=", "value": "pve01"},
            {"field": "vmid", "operator": "IN", "value": [101, 105]},
        ],
    },
}


@pytest.fixture
def client(demo_client):
    add_old_volumes(demo_client["prod"].emulated.state, PROD)
    add_running_task(demo_client["prod"].emulated.state, PROD)
    return demo_client


def sent(client):
    return [r for r in client.requests("prod") if not r.startswith("GET")]


def guest_of(client, vmid):
    return client["prod"].emulated.state.guests[vmid]


def rename(client, vmid):
    """Rename a guest, which each sentence about it shows."""
    guest = guest_of(client, vmid)
    guest.config["name" if guest.kind == "qemu" else "hostname"] = "renamed"
    guest.touch()


def describe(client, vmid):
    """Change what no plan shows, as another administrator would."""
    guest = guest_of(client, vmid)
    guest.config["description"] = "changed after the dry run"
    guest.touch()


def take_the_next_vmid(client, _vmid):
    """Give another guest the VMID that the plan has."""
    guests = client["prod"].emulated.state.guests
    free = next(number for number in range(100, 1_000) if number not in guests)
    guests[free] = type(guests[VM])(free, guests[VM].kind, "pve02", {"name": "quicker"})


def replace_the_file(client, _vmid):
    """Put a larger file in place of the volumes that the examples delete."""
    storage = client["prod"].emulated.state.storages["local"]
    for volume in storage.volumes("pve01").values():
        volume.size += 1 << 30


def list_the_host(client, _vmid):
    """Let the administrator list the host, so that its use discloses nothing."""
    client.change(download_hosts=("93.184.216.34",))


CHANGED = {
    "ChangeVmState": (rename, 101),
    "CreateVmSnapshot": (rename, 101),
    "RollbackVmSnapshot": (rename, 101),
    "DeleteVmSnapshot": (rename, 101),
    "MigrateVm": (rename, 101),
    "UpdateVmConfig": (rename, 101),
    "ResizeVmDisk": (rename, 101),
    "MoveVmDisk": (rename, 101),
    "AttachDisk": (rename, 101),
    "BackupVm": (rename, 101),
    "CloneVm": (rename, 101),
    "ExecInGuest": (rename, 101),
    "EvacuateNode": (rename, 105),
    "CreateVm": (take_the_next_vmid, 0),
    "CreateContainer": (take_the_next_vmid, 0),
    "RestoreBackup": (take_the_next_vmid, 0),
    "DownloadIso": (list_the_host, 0),
    "DeleteBackup": (replace_the_file, 0),
    "DeleteIso": (replace_the_file, 0),
    "DeleteStorageContent": (replace_the_file, 0),
}
# the configuration only, of which the plan shows nothing
CONFIGURED = {
    "DeleteVm": {"vmid": 140},
    "DetachDisk": {"vmid": VM, "disk": "scsi0", "boot_disk": True},
    "ResizeVmDisk": {"vmid": VM, "disk": "scsi0", "size": "+1G"},
    "MoveVmDisk": {"vmid": VM, "disk": "scsi0", "target_storage": "local-zfs"},
    "AttachDisk": {"vmid": VM, "volume": "local-zfs:1", "disk": "scsi9"},
    "UpdateVmConfig": {"vmid": VM, "cores": 3},
    "RollbackVmSnapshot": {"vmid": 101, "snapshot_name": PROD.snapshot},
    "CloneVm": {"source": str(VM), "name": "copy-1"},
    "RestoreBackup": {"backup": "140", "vmid": 140, "overwrite": True},
    "CallApi": {
        "method": "PUT",
        "path": f"/nodes/pve01/qemu/{VM}/config",
        "parameters": ["onboot=0"],
    },
}
OF_CONTAINERS = {
    "DeleteVm": {"vmid": 305},
    "UpdateVmConfig": {"vmid": CONTAINER, "cores": 3},
    "ResizeVmDisk": {"vmid": CONTAINER, "disk": "rootfs", "size": "+1G"},
    "CallApi": {
        "method": "PUT",
        "path": f"/nodes/pve01/lxc/{CONTAINER}/config",
        "parameters": ["onboot=0"],
    },
}
ELSEWHERE = {"UnlockVm", "Undo"}  # guests/test_locks.py; below
UNCHANGING = {"StopTask"}  # nothing that its plan shows of a task can change while it runs


def test_every_write_is_covered():
    covered = CHANGED.keys() | CONFIGURED.keys() | ELSEWHERE | UNCHANGING
    assert covered == WRITES


async def refused_once(client, name, arguments, says):
    """Check that the call is refused after its dry run, sends nothing, and then is done."""
    refused = await client.refused(name, **arguments)
    assert refused.startswith(f"{says} has changed since the dry run of 20"), refused
    assert "; nothing was sent. It would now: " in refused
    assert refused.endswith(" Repeat the identical call to carry that out.")
    assert (sent(client), client.conversation.questions) == ([], [])
    done = await client(name, **arguments)
    assert not done.failed, done.text
    assert sent(client)
    return refused


@pytest.mark.parametrize("name", CHANGED)
async def test_no_other_plan_than_the_one_shown_is_carried_out(client, name):
    change, vmid = CHANGED[name]
    arguments = EXAMPLES[name]
    preview = await client(name, **arguments, dry_run=True)
    change(client, vmid)
    client.refresh()
    refused = await refused_once(client, name, arguments, "The plan")
    assert preview.data["would"] not in refused


@pytest.mark.parametrize(
    ("name", "arguments"), [*CONFIGURED.items(), *OF_CONTAINERS.items()], ids=str
)
async def test_a_guest_whose_configuration_changed_after_the_plan_is_refused(
    client, name, arguments
):
    of_path = arguments.get("path", f"////{VM}").split("/")[4]
    vmid = arguments.get("vmid", int(of_path))
    named = {"name": guest_of(client, vmid).name} if name == "DeleteVm" else {}
    arguments = {**CLUSTER, **arguments, **named}
    preview = await client(name, **arguments, dry_run=True)
    describe(client, vmid)
    refused = await refused_once(client, name, arguments, "The configuration")
    assert preview.data["would"][:200] in refused


@pytest.mark.parametrize("selection", [{"vmids": [101, 105]}, {"query": QUERY}])
async def test_one_guest_of_many_that_changed_is_enough(client, selection):
    call = {**CLUSTER, **selection, "cores": 3}
    await client("UpdateVmConfig", **call, dry_run=True)
    describe(client, VM)
    await refused_once(client, "UpdateVmConfig", call, "The configuration")


async def test_a_query_that_selects_other_guests_by_now_is_refused(client):
    call = {**CLUSTER, "query": QUERY, "snapshot_name": "patching"}
    preview = await client("CreateVmSnapshot", **call, dry_run=True)
    assert "105" in preview.data["would"]
    guest_of(client, VM).node = "pve02"
    guest_of(client, VM).touch()
    client.refresh()
    refused = await refused_once(client, "CreateVmSnapshot", call, "The plan")
    assert "105" not in refused


async def test_an_undo_is_held_to_its_dry_run_too(client):
    stopped = {**CLUSTER, "vmid": VM, "cores": 3}
    assert not (await client("UpdateVmConfig", **stopped)).failed
    sent(client)
    await client("Undo", dry_run=True)
    rename(client, VM)
    client.refresh()
    await refused_once(client, "Undo", {}, "The plan")


async def test_a_declined_question_or_another_call_leaves_nothing_bound(client):
    name, arguments = "DeleteVmSnapshot", EXAMPLES["DeleteVmSnapshot"]
    await client(name, **arguments, dry_run=True)
    client.conversation.decision = Decision.NO
    assert "declined" in await client.refused(name, **arguments)
    rename(client, 101)
    client.refresh()
    client.conversation.decision = Decision.YES
    assert not (await client(name, **arguments)).failed
    first, second = client.conversation.questions
    assert first != second
