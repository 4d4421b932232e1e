"""RestoreBackup."""

import pytest
from tests.server.tools.tool_client import offered

from proxmox_client.emulator.state.guest import Guest
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import Resources
from pvemcp_server.mcp.elicitation import Decision

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}
VMID = 140  # stopped, on pve01
OVER = {**PROD, "backup": VMID, "vmid": VMID, "overwrite": True}
DISK = "scsi0: local-zfs:vm-140-disk-0,size=1G\n"


def of(client):
    return client["prod"].emulated.state


def put(client, config, vmid=VMID, node="pve01", storage="local"):
    """Add a backup with this configuration to a storage of a node; return its volid."""
    kind = "lxc" if "rootfs" in config else "qemu"
    volid = f"{storage}:backup/vzdump-{kind}-{vmid}-2026_01_01-00_00_00.zst"
    volume = Volume(volid, "backup", "vma.zst", 1 << 20, 1, vmid, subtype=kind, config=config)
    of(client).storages[storage].put(node, volume)
    return volid


async def would(client, **arguments):
    answer = await client("RestoreBackup", **{**PROD, **arguments}, dry_run=True)
    assert not answer.failed, answer.text
    return answer.data["would"]


@pytest.mark.parametrize("vmid", [101, 300], ids=["machine", "container"])
async def test_a_backup_becomes_a_new_guest_with_other_mac_addresses(demo_client, vmid):
    answer = await demo_client("RestoreBackup", **PROD, backup=vmid, wait=True)
    assert not answer.failed, answer.text
    assert demo_client.conversation.questions == []
    new, old = of(demo_client).guests[answer.data["vmid"]], of(demo_client).guests[vmid]
    assert new.vmid != vmid
    assert (new.name, new.kind, new.status) == (old.name, old.kind, "stopped")
    assert new.config["net0"] != old.config["net0"]
    assert offered(answer.data["undo"]) == (
        "DeleteVm",
        {**PROD, "vmid": new.vmid, "name": new.name},
    )


async def test_name_pool_storage_and_start_are_taken(demo_client):
    answer = await demo_client(
        "RestoreBackup",
        **PROD,
        backup=VMID,
        name="copy",
        pool="staging",
        storage="ceph-vm",
        start=True,
        wait=True,
    )
    assert (answer.data["guest_status"], answer.data["name"]) == ("running", "copy")
    guest = of(demo_client).guests[answer.data["vmid"]]
    assert (guest.name, guest.status) == ("copy", "running")
    assert of(demo_client).pool_of(guest.vmid) == "staging"
    assert {disk.storage for disk in guest.disks()} == {"ceph-vm"}


async def test_a_deleted_guest_comes_back_under_its_number(demo_client):
    net0 = of(demo_client).guests[VMID].config["net0"]
    deleted = await demo_client("DeleteVm", **PROD, vmid=VMID, name="search-02", wait=True)
    assert deleted.data["ok"] is True
    answer = await demo_client("RestoreBackup", **PROD, backup=VMID, vmid=VMID, wait=True)
    assert answer.data["vmid"] == VMID
    assert of(demo_client).guests[VMID].config["net0"] == net0


async def test_mac_addresses_are_decided_and_said(tool_client):
    assert "with new MAC addresses" in await would(tool_client, backup=101)
    kept = await would(tool_client, backup=101, unique=False)
    assert "with the MAC addresses of the backup" in kept
    assert "Guest 101 has the same MAC addresses: do not run both." in kept


async def test_the_next_vmid_is_taken_if_another_client_was_first(demo_client):
    state, pve = of(demo_client), demo_client["prod"].pve
    planned = (await demo_client("RestoreBackup", **PROD, backup=101, dry_run=True)).data["vmid"]
    send = pve.transport.request

    async def after_another(method, path, parameters):
        if method == "POST" and planned not in state.guests:
            state.guests[planned] = Guest(planned, state.guests[101].kind, "pve01", {"name": "x"})
        return await send(method, path, parameters)

    pve.transport.request = after_another
    answer = await demo_client("RestoreBackup", **PROD, backup=101, wait=True)
    assert answer.data["ok"] is True
    assert answer.data["vmid"] > planned
    assert state.guests[planned].name == "x"


async def test_a_vmid_in_use_is_refused(tool_client):
    error = await tool_client.refused("RestoreBackup", **PROD, backup=101, vmid=105)
    assert error.startswith("VMID 105 is that of qemu web-frontend. Leave vmid out")
    scoped = tool_client.scoped(Resources(vmids=frozenset({101, 105}), nodes=frozenset({"pve04"})))
    hidden = await scoped.refused("RestoreBackup", **PROD, backup=101, vmid=105)
    assert hidden.startswith("VMID 105")


async def test_a_guest_is_overwritten_only_with_consent(demo_client):
    guest = of(demo_client).guests[VMID]
    before = dict(guest.config)
    guest.config["cores"] = 99
    guest.touch()
    demo_client.conversation.decision = Decision.NO
    assert "declined" in await demo_client.refused("RestoreBackup", **OVER)
    assert of(demo_client).guests[VMID] is guest
    [question] = demo_client.conversation.questions
    assert "over qemu 140 (search-02) on prod" in question
    assert "Lost: 1 disk (scsi0 on local-zfs" in question
    assert "1 snapshot (pre-patch-09)" in question
    assert "BackupVm first would keep its present state." in question
    demo_client.conversation.decision = Decision.YES
    answer = await demo_client("RestoreBackup", **OVER, wait=True)
    assert answer.data["ok"] is True
    assert "undo" not in answer.data
    assert of(demo_client).guests[VMID].config["cores"] == before["cores"]


async def test_a_backup_of_another_guest_is_named_before_it_replaces_one(demo_client):
    other = "The backup is of guest 101, another one than it replaces."
    for vmid, is_named in ((101, True), (VMID, False)):
        volid = put(demo_client, f"name: a\n{DISK}", vmid=vmid)
        assert (other in await would(demo_client, **{**OVER, "backup": volid})) == is_named


def running(client):
    of(client).guests[VMID].status = "running"


def protect(client):
    of(client).guests[VMID].config["protection"] = 1


def tag(client):
    of(client).guests[VMID].config["tags"] = "protected"


def make_template(client):
    of(client).guests[VMID].config["template"] = 1


def lock(client):
    of(client).guests[VMID].config["lock"] = "backup"


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (running, "is running. ChangeVmState with action Shutdown stops it."),
        (protect, "is protected in Proxmox."),
        (tag, "is protected by its tag protected."),
        (make_template, "is a template, and a template cannot be overwritten by a restore."),
        (lock, "is locked (backup)"),
    ],
)
async def test_a_guest_that_cannot_be_overwritten_is_refused(demo_client, prepare, says):
    prepare(demo_client)
    of(demo_client).guests[VMID].touch()
    demo_client.refresh()
    assert says in await demo_client.refused("RestoreBackup", **OVER)
    assert not any(one.startswith("POST") for one in demo_client.requests("prod"))


WRONG = [
    ({"backup": VMID, "overwrite": True}, "vmid: say which guest is overwritten."),
    ({"backup": VMID, "overwrite": True, "vmid": 777}, "No guest 777 on prod."),
    ({**OVER, "pool": "staging"}, "pool: a guest that is overwritten keeps its pool."),
    ({**OVER, "node": "pve02"}, "node: qemu 140 (search-02) on prod is on pve01"),
    ({**OVER, "backup": 300}, "qemu 140 (search-02) on prod cannot be overwritten: the backup"),
    ({"backup": VMID, "node": "pve77"}, "No node 'pve77' on prod."),
    ({"backup": VMID, "storage": "nothing"}, "No storage 'nothing' on pve01"),
    ({"backup": VMID, "storage": "nfs-iso"}, "Storage nfs-iso does not take images"),
    ({"backup": VMID, "pool": "nothing"}, "No pool 'nothing' on prod."),
    ({"backup": 777}, "No backup of guest 777 on prod."),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG)
async def test_wrong_arguments_are_refused(tool_client, arguments, says):
    error = await tool_client.refused("RestoreBackup", **{**PROD, **arguments})
    assert error.startswith(says), error
    assert not any(one.startswith("POST") for one in tool_client.requests("prod"))


async def test_a_local_backup_is_restored_on_its_node(demo_client):
    volid = put(demo_client, f"name: a\n{DISK}", node="pve03")
    assert "as qemu a on pve03" in await would(demo_client, backup=volid)
    error = await demo_client.refused("RestoreBackup", **PROD, backup=volid, node="pve01")
    assert error.startswith("pve01 cannot read the backup on local. It is on pve03:")


async def test_a_storage_that_is_gone_has_to_be_replaced(demo_client):
    volid = put(demo_client, "name: a\nscsi0: gone:vm-140-disk-0,size=1G\n")
    error = await demo_client.refused("RestoreBackup", **PROD, backup=volid)
    assert error.startswith("The disks in the backup were on gone, which cannot be used on pve01:")
    assert "disks on ceph-vm" in await would(demo_client, backup=volid, storage="ceph-vm")


async def test_disks_that_the_backup_lacks_are_named(demo_client):
    volid = put(demo_client, f"name: a\n{DISK}scsi1: gone:vm-140-disk-1,backup=0,size=9G\n")
    assert "Not in the backup: scsi1." in await would(demo_client, backup=volid)


async def test_a_failed_restore_names_the_guest_that_it_leaves(demo_client):
    state, pve = of(demo_client), demo_client["prod"].pve
    volid = put(demo_client, f"name: a\n{DISK}")
    send = pve.transport.request

    async def without_storage(method, path, parameters):
        answer = await send(method, path, parameters)
        if method == "POST":
            del state.storages["local-zfs"]
        return answer

    pve.transport.request = without_storage
    error = await demo_client.refused("RestoreBackup", **PROD, backup=volid, wait=True)
    left = max(vmid for vmid, guest in state.guests.items() if not guest.config)
    assert "storage 'local-zfs' does not exist" in error
    assert f"qemu {left} (a) on prod is incomplete, and its VMID is taken." in error
    assert f'DeleteVm {{"cluster_name":"prod","vmid":{left},"name":"VM {left}"}}' in error


READER = {"storages": frozenset({"pbs-main", "ceph-vm"}), "nodes": frozenset({"pve01"})}


async def test_a_key_restores_what_it_may_read_to_where_it_may_write(tool_client):
    storage = Resources(storages=frozenset({"pbs-main", "ceph-vm"}))
    answers = {}
    for name, resources in (
        ("nothing", Resources(vmids=frozenset({105}))),
        ("no node", storage),
        ("node", Resources(**READER)),
    ):
        answers[name] = await tool_client.scoped(resources)(
            "RestoreBackup", **PROD, backup=101, dry_run=True
        )
    assert answers["nothing"].text.startswith("No backup of guest 101 on prod.")
    assert answers["no node"].text.startswith("No node 'pve01' on prod.")
    assert not answers["node"].failed, answers["node"].text


async def test_a_copy_outside_of_the_grant_is_refused(tool_client):
    guest = Resources(
        vmids=frozenset({101}),
        target_nodes=frozenset({"*"}),
        target_storages=frozenset({"ceph-vm"}),
    )
    error = await tool_client.scoped(guest).refused("RestoreBackup", **PROD, backup=101)
    assert error.startswith("The new guest would be outside of what the role of this key covers.")


async def test_nothing_may_be_restored_on_a_protected_cluster(demo_client):
    demo_client["prod"].protected = True
    error = await demo_client.refused("RestoreBackup", **PROD, backup=101)
    assert error.startswith("Cluster prod is protected")
