"""DeleteBackup, DeleteIso and DeleteStorageContent."""

import re

import pytest

from proxmox_client.emulator import FaultKind
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import Resources
from pvemcp_server.mcp.elicitation import Decision
from pvemcp_server.tools.storage import deletions

pytestmark = pytest.mark.anyio

LOCAL = {"cluster_name": "prod", "node": "pve01", "storage": "local"}
CEPH = {"cluster_name": "prod", "node": "pve01", "storage": "ceph-vm"}
PBS = {"cluster_name": "prod", "node": "pve01", "storage": "pbs-main"}


async def volids(demo_client, place, **more):
    listed = await demo_client("ListStorageContent", **place, **more)
    return listed.column("volid")


async def test_an_iso_is_deleted_after_the_user_confirms(demo_client):
    volid = (await volids(demo_client, LOCAL, content_type="iso"))[0]
    answer = await demo_client("DeleteIso", **LOCAL, volid=volid, wait=True)
    assert (answer.data["success"], answer.data["volid"]) == (True, volid)
    assert volid not in await volids(demo_client, LOCAL, content_type="iso")
    (question,) = demo_client.conversation.questions
    assert question.startswith(f"Delete ISO image {volid} from pve01. This ISO image of 20")
    assert "cannot be restored" in question


async def test_the_confirmation_of_a_backup_deletion_names_its_guest(demo_client):
    volid = (await demo_client("ListBackups", **PBS, vmid=101)).data[0]["volid"]
    answer = await demo_client("DeleteBackup", **PBS, volid=volid, wait=True)
    assert answer.data["success"] is True
    assert "of guest 101" in demo_client.conversation.questions[0]
    assert volid not in (await demo_client("ListBackups", **PBS, vmid=101)).column("volid")


async def test_each_deletion_refuses_other_kinds(demo_client):
    iso = (await volids(demo_client, LOCAL, content_type="iso"))[0]
    template = (await volids(demo_client, LOCAL, content_type="vztmpl"))[0]
    error = await demo_client.refused("DeleteBackup", **LOCAL, volid=iso)
    assert error.startswith(f"{iso} is no backup but an ISO image.")
    error = await demo_client.refused("DeleteIso", **LOCAL, volid=template)
    assert "is no ISO image but a container template" in error
    assert not any(request.startswith("DELETE") for request in demo_client.requests("prod"))


async def test_delete_storage_content_deletes_any_kind(demo_client):
    snippet = "local:snippets/cloud-init.yaml"
    answer = await demo_client("DeleteStorageContent", **LOCAL, volid=snippet, wait=True)
    assert answer.data["success"] is True
    assert snippet not in await volids(demo_client, LOCAL)


async def test_a_disk_in_use_is_refused_with_its_users(demo_client):
    error = await demo_client.refused("DeleteStorageContent", **CEPH, volid="ceph-vm:vm-101-disk-0")
    assert error.startswith("ceph-vm:vm-101-disk-0 is still used by scsi0 of qemu 101")
    assert "snapshot 'before-pg16' of qemu 101" in error
    assert demo_client.conversation.questions == []


async def test_an_unused_but_attached_disk_is_refused(demo_client):
    state = demo_client["prod"].emulated.state
    _put(state, "ceph-vm", "vm-105-disk-9", vmid=105)
    state.guests[105].config["unused0"] = "ceph-vm:vm-105-disk-9"
    error = await demo_client.refused("DeleteStorageContent", **CEPH, volid="ceph-vm:vm-105-disk-9")
    assert "unused0 of qemu 105" in error


@pytest.mark.parametrize(("kind", "option"), [("qemu", "scsi9"), ("lxc", "mp9")])
@pytest.mark.parametrize("owned", [True, False], ids=["its own", "of another guest"])
@pytest.mark.parametrize("waits", ["removal", "addition", "other volume"])
async def test_a_volume_of_a_pending_change_is_still_in_use(
    demo_client, kind, option, owned, waits
):
    """Count a pending removal as a use: a running guest has the volume until it stops."""
    guest = _at("pve01", demo_client, kind)
    state, vmid = demo_client["prod"].emulated.state, guest.vmid if owned else 777
    volid = f"ceph-vm:vm-{vmid}-disk-9"
    _put(state, "ceph-vm", f"vm-{vmid}-disk-9", vmid=vmid)
    if waits == "addition":
        guest.pending[option] = f"{volid},size=1G"
    else:
        guest.config[option] = f"{volid},size=1G"
    if waits == "removal":
        guest.removals[option] = 1
    if waits == "other volume":
        guest.pending[option] = "ceph-vm:vm-776-disk-0,size=1G"
    error = await demo_client.refused("DeleteStorageContent", **CEPH, volid=volid)
    when = "" if waits == "addition" else "its removal is "
    assert error == (
        f"{volid} is still used by {option} of {kind} {guest.vmid} "
        f"({when}pending until the guest restarts)."
    )
    assert demo_client.conversation.questions == []
    assert not any(request.startswith("DELETE") for request in demo_client.requests("prod"))


async def test_a_pending_detached_disk_is_refused_until_the_vm_stops(demo_client):
    """Refuse the open file of a running VM, which Proxmox itself would delete."""
    guest = _at("pve01", demo_client, "qemu")
    emulated = demo_client["prod"].emulated
    emulated.state.storages["local"].content += ("images",)
    _put(emulated.state, "local", f"{guest.vmid}/vm-{guest.vmid}-disk-9.qcow2", vmid=guest.vmid)
    volid = f"local:{guest.vmid}/vm-{guest.vmid}-disk-9.qcow2"
    guest.config |= {"hotplug": "0", "scsi9": f"{volid},size=1G"}
    config = f"/nodes/pve01/qemu/{guest.vmid}/config"
    await demo_client["prod"].pve.transport.request("PUT", config, {"delete": "scsi9"})
    error = await demo_client.refused("DeleteStorageContent", **LOCAL, volid=volid)
    assert "its removal is pending until the guest restarts" in error
    await demo_client(
        "ChangeVmState", cluster_name="prod", vmid=guest.vmid, action="Stop", wait=True
    )
    error = await demo_client.refused("DeleteStorageContent", **LOCAL, volid=volid)
    assert error == f"{volid} is still used by unused0 of qemu {guest.vmid}."


@pytest.mark.parametrize("waits", ["removal", "addition"])
async def test_volumes_of_pending_changes_are_in_use(demo_client, waits):
    guest = _at("pve01", demo_client, "qemu")
    values = {"ide2": f"{ISO},media=cdrom", "hookscript": "local:snippets/cloud-init.yaml"}
    if waits == "removal":
        guest.config |= values
        guest.removals |= dict.fromkeys(values, 1)
    else:
        guest.pending |= values
    assert f"ide2 of qemu {guest.vmid} (" in await demo_client.refused(
        "DeleteIso", **LOCAL, volid=ISO
    )
    snippet = values["hookscript"]
    error = await demo_client.refused("DeleteStorageContent", **LOCAL, volid=snippet)
    assert f"hookscript of qemu {guest.vmid} (" in error


async def test_an_unreferenced_disk_may_be_deleted(demo_client):
    state = demo_client["prod"].emulated.state
    _put(state, "ceph-vm", "vm-105-disk-9", vmid=105)
    _put(state, "ceph-vm", "vm-777-disk-0", vmid=777)
    for volid in ("ceph-vm:vm-105-disk-9", "ceph-vm:vm-777-disk-0"):
        answer = await demo_client("DeleteStorageContent", **CEPH, volid=volid, wait=True)
        assert answer.data["success"] is True, answer.text


@pytest.mark.parametrize(
    ("base", "clone", "parent"),
    [
        ("base-888-disk-0", "vm-889-disk-0", "base-888-disk-0@__base__"),
        ("base-888-disk-0", "base-888-disk-0/vm-889-disk-0", None),
        ("888/base-888-disk-0.qcow2", "889/vm-889-disk-0.qcow2", "../888/base-888-disk-0.qcow2"),
    ],
    ids=["by its parent", "by its name", "in a folder"],
)
async def test_an_image_with_clones_is_refused(demo_client, base, clone, parent):
    state = demo_client["prod"].emulated.state
    _put(state, "ceph-vm", base, vmid=888)
    _put(state, "ceph-vm", clone, vmid=889, parent=parent)
    error = await demo_client.refused("DeleteStorageContent", **CEPH, volid=f"ceph-vm:{base}")
    assert f"ceph-vm:{clone}, a clone of it" in error


async def test_an_image_with_a_clone_in_use_is_refused(demo_client):
    state = demo_client["prod"].emulated.state
    _put(state, "ceph-vm", "base-888-disk-0", vmid=888)
    guest = _at("pve01", demo_client, "qemu")
    guest.config["scsi9"] = "ceph-vm:base-888-disk-0/vm-889-disk-0,size=1G"
    error = await demo_client.refused(
        "DeleteStorageContent", **CEPH, volid="ceph-vm:base-888-disk-0"
    )
    assert f"is still used by scsi9 of qemu {guest.vmid}." in error


ISO = "local:iso/debian-13.1.0-amd64-netinst.iso"


async def test_an_iso_in_a_drive_is_refused_with_the_drive(demo_client):
    guest = _at("pve01", demo_client, "qemu")
    guest.config["ide2"] = f"{ISO},media=cdrom,size=1G"
    error = await demo_client.refused("DeleteIso", **LOCAL, volid=ISO)
    assert error == f"{ISO} is still used by ide2 of qemu {guest.vmid}."
    assert demo_client.conversation.questions == []


async def test_users_of_a_local_iso_are_searched_on_its_node(demo_client):
    elsewhere = _at("pve03", demo_client, "qemu")
    elsewhere.config["ide2"] = f"{ISO},media=cdrom"  # that node's own file of the same name
    demo_client.requests("prod")
    answer = await demo_client("DeleteIso", **LOCAL, volid=ISO, dry_run=True)
    assert answer.data["would"].startswith(f"Delete ISO image {ISO} from pve01.")
    looked = [
        request.split("/")
        for request in demo_client.requests("prod")
        if request.endswith("/pending")
    ]
    state = demo_client["prod"].emulated.state
    machines = [
        guest for guest in state.guests.values() if (guest.node, guest.kind) == ("pve01", "qemu")
    ]
    assert sorted(int(path[4]) for path in looked) == sorted(guest.vmid for guest in machines)


async def test_an_iso_on_a_shared_storage_is_looked_for_everywhere(demo_client):
    shared = {"cluster_name": "prod", "node": "pve01", "storage": "nfs-iso"}
    volid = (await volids(demo_client, shared, content_type="iso"))[0]
    guest = _at("pve03", demo_client, "qemu")
    guest.config["sata0"] = f"{volid},media=cdrom"
    error = await demo_client.refused("DeleteIso", **shared, volid=volid)
    assert error == f"{volid} is still used by sata0 of qemu {guest.vmid}."


async def test_a_hidden_user_of_a_volume_is_not_named(demo_client):
    guest = _at("pve01", demo_client, "qemu")
    guest.config["ide2"] = f"{ISO},media=cdrom"
    scoped = demo_client.scoped(Resources(storages=frozenset({"local", "ceph-vm"})))
    assert await scoped.refused("DeleteIso", **LOCAL, volid=ISO) == f"{ISO} is still in use."
    disk = "ceph-vm:vm-101-disk-0"
    error = await scoped.refused("DeleteStorageContent", **CEPH, volid=disk)
    assert error == f"{disk} is still in use."


async def test_unchecked_guests_are_counted_before_a_deletion(demo_client):
    guest = _at("pve01", demo_client, "qemu")
    path, message = f".*/qemu/{guest.vmid}/pending", f"/vms/{guest.vmid}, VM.Audit"
    demo_client["prod"].emulated.fault(FaultKind.FORBIDDEN, path=path, message=message)
    answer = await demo_client("DeleteIso", **LOCAL, volid=ISO, wait=True)
    warning = f"1 guest could not be checked for using {ISO}."
    assert warning in demo_client.conversation.questions[0]
    assert (answer.data["success"], answer.notes) == (True, warning)


async def test_guests_of_an_offline_node_count_as_unchecked(demo_client):
    shared = {"cluster_name": "prod", "node": "pve01", "storage": "nfs-iso"}
    volid = (await volids(demo_client, shared, content_type="iso"))[0]
    state = demo_client["prod"].emulated.state
    down = [
        guest for guest in state.guests.values() if (guest.node, guest.kind) == ("pve05", "qemu")
    ]
    assert down, "pve05 is the demo's node that is down"
    answer = await demo_client("DeleteIso", **shared, volid=volid, dry_run=True)
    assert f"{len(down)} guest" in answer.data["would"]
    assert "could not be checked for using" in answer.data["would"]


async def test_a_deletion_warns_if_the_account_sees_not_all_guests(
    demo_client, new_token, with_token
):
    token = new_token(demo_client["prod"].emulated, ("/storage/local", "PVEDatastoreAdmin"))
    narrow = await with_token(demo_client, "prod", token)
    would = (await narrow("DeleteIso", **LOCAL, volid=ISO, dry_run=True)).data["would"]
    assert would.endswith(
        f"{token[0]} does not see all guests: one that it does not see may still use {ISO}."
    )


async def test_a_disk_of_a_hidden_guest_is_no_orphan(demo_client, new_token, with_token):
    grant = ("/storage/ceph-vm", "PVEDatastoreAdmin")
    narrow = await with_token(demo_client, "prod", new_token(demo_client["prod"].emulated, grant))
    error = await narrow.refused("DeleteStorageContent", **CEPH, volid="ceph-vm:vm-101-disk-0")
    assert "is still in use is unknown" in error
    assert "lacks VM.Audit on /vms/101. Ask an administrator which roles" in error


async def test_a_limited_search_for_users_is_counted_in_the_warning(demo_client, monkeypatch):
    monkeypatch.setattr(deletions, "_CONFIGS", 1)
    state = demo_client["prod"].emulated.state
    machines = [
        guest for guest in state.guests.values() if (guest.node, guest.kind) == ("pve01", "qemu")
    ]
    answer = await demo_client("DeleteIso", **LOCAL, volid=ISO, dry_run=True)
    assert f"{len(machines) - 1} guests could not be checked" in answer.data["would"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("hookscript", "{}"), ("cicustom", "meta=local:snippets/m.yaml,user={}")],
)
async def test_a_snippet_used_by_a_guest_is_refused(demo_client, option, value):
    snippet = "local:snippets/cloud-init.yaml"
    guest = _at("pve01", demo_client, "qemu")
    guest.config[option] = value.format(snippet)
    error = await demo_client.refused("DeleteStorageContent", **LOCAL, volid=snippet)
    assert error == f"{snippet} is still used by {option} of qemu {guest.vmid}."


async def test_a_disk_used_by_another_guest_is_refused(demo_client):
    state = demo_client["prod"].emulated.state
    _put(state, "ceph-vm", "vm-777-disk-0", vmid=777)
    guest = _at("pve01", demo_client, "qemu")
    guest.config["scsi9"] = "ceph-vm:vm-777-disk-0,size=1G"
    error = await demo_client.refused("DeleteStorageContent", **CEPH, volid="ceph-vm:vm-777-disk-0")
    assert error == f"ceph-vm:vm-777-disk-0 is still used by scsi9 of qemu {guest.vmid}."


async def test_deleting_the_last_backup_of_a_guest_warns(demo_client):
    *others, last = (await demo_client("ListBackups", **PBS, vmid=101)).column("volid")
    assert others, "the demo has several backups of this guest"
    assert "last backup" not in (await _would(demo_client, last))
    storage = demo_client["prod"].emulated.state.storages["pbs-main"]
    for volid in others:
        storage.remove("pve01", volid)
    assert "It is the guest's last backup there." in await _would(demo_client, last)


async def _would(demo_client, volid):
    return (await demo_client("DeleteBackup", **PBS, volid=volid, dry_run=True)).data["would"]


async def test_a_volume_with_unknown_users_is_refused(demo_client):
    demo_client["prod"].emulated.fault(
        FaultKind.FORBIDDEN, path=".*/qemu/101/pending", message="/vms/101, VM.Audit"
    )
    error = await demo_client.refused("DeleteStorageContent", **CEPH, volid="ceph-vm:vm-101-disk-0")
    assert "still in use is unknown" in error
    assert "lacks VM.Audit on /vms/101" in error


async def test_a_protected_backup_is_refused(demo_client):
    volid = (await demo_client("ListBackups", **PBS, vmid=101)).data[0]["volid"]
    storage = demo_client["prod"].emulated.state.storages["pbs-main"]
    next(volume for volume in storage.everything() if volume.volid == volid).protected = True
    error = await demo_client.refused("DeleteBackup", **PBS, volid=volid)
    assert error.startswith(f"{volid} is protected.")


async def test_backups_of_a_guest_with_a_protecting_tag_are_refused(demo_client):
    guest = demo_client["prod"].emulated.state.guests[101]
    guest.config["tags"] = "protected"
    guest.touch()
    volid = (await demo_client("ListBackups", **PBS, vmid=101)).data[0]["volid"]
    error = await demo_client.refused("DeleteBackup", **PBS, volid=volid)
    assert "Guest 101, which it belongs to, is protected by its tag" in error


@pytest.mark.parametrize(
    "volid",
    ["local:iso/../../../etc/shadow", "nfs-iso:iso/x.iso", "/etc/passwd", "local:", "local"],
)
async def test_a_volume_id_cannot_become_a_path(demo_client, volid):
    error = await demo_client.refused("DeleteIso", **LOCAL, volid=volid)
    assert "is not on storage local" in error or error.startswith("No volume")
    assert not any(request.startswith("DELETE") for request in demo_client.requests("prod"))


async def test_an_unknown_volume_is_answered_with_the_nearest(demo_client):
    error = await demo_client.refused(
        "DeleteIso", **LOCAL, volid="local:iso/debian-13.1.0-amd64-netinst.isoo"
    )
    assert "Did you mean " in error
    assert "local:iso/debian-13.1.0-amd64-netinst.iso," in error


async def test_a_dry_run_deletes_nothing_and_asks_no_confirmation(demo_client):
    volid = (await volids(demo_client, LOCAL, content_type="iso"))[0]
    answer = await demo_client("DeleteIso", **LOCAL, volid=volid, dry_run=True)
    assert answer.data["would"].startswith(f"Delete ISO image {volid} from pve01.")
    assert demo_client.conversation.questions == []
    assert volid in await volids(demo_client, LOCAL, content_type="iso")


async def test_nothing_is_deleted_when_the_user_declines(demo_client):
    volid = (await volids(demo_client, LOCAL, content_type="iso"))[0]
    demo_client.conversation.decision = Decision.NO
    await demo_client.refused("DeleteIso", **LOCAL, volid=volid)
    assert volid in await volids(demo_client, LOCAL, content_type="iso")


async def test_a_role_for_one_guest_deletes_only_its_backups(demo_client):
    scoped = demo_client.scoped(Resources(vmids=frozenset({101})))
    volid = (await demo_client("ListBackups", **PBS, vmid=102)).data[0]["volid"]
    error = await scoped.refused("DeleteBackup", **PBS, volid=volid)
    assert error.startswith("No volume")
    own = (await demo_client("ListBackups", **PBS, vmid=101)).data[0]["volid"]
    assert (await scoped("DeleteBackup", **PBS, volid=own, wait=True)).data["success"]


def _at(node, demo_client, kind):
    """Return a guest of this type on the node."""
    guests = demo_client["prod"].emulated.state.guests.values()
    return next(guest for guest in guests if (guest.node, guest.kind) == (node, kind))


def _put(state, storage, name, *, vmid, parent=None):
    volume = Volume(f"{storage}:{name}", "images", "raw", 2**30, int(state.now), vmid)
    volume.parent = parent
    state.storages[storage].put("pve01", volume)


ODD = "a.iso from pve09. Nothing is lost"  # a host chooses the names of its volumes
NEW = {"cluster_name": "prod", "node": "pve01", "storage": "ceph-vm", "name": "new"}
WITH_VOLUME = {
    "iso": [("DeleteIso", LOCAL, "volid"), ("CreateVm", NEW, "iso")],
    "vztmpl": [("DeleteStorageContent", LOCAL, "volid"), ("CreateContainer", NEW, "template")],
    "images": [("DeleteStorageContent", LOCAL, "volid")],
}


@pytest.mark.parametrize("content", WITH_VOLUME)
async def test_the_name_of_a_volume_never_passes_for_words_of_a_plan(demo_client, content):
    volid = f"local:{content}/{ODD}"
    volume = Volume(volid, content, "raw", 1 << 30, 1, None)
    demo_client["prod"].emulated.state.storages["local"].put("pve01", volume)
    for tool, where, argument in WITH_VOLUME[content]:
        answer = await demo_client(tool, **where, **{argument: volid}, dry_run=True)
        assert repr(volid) in answer.data["would"], (tool, answer.text)
        assert ODD not in re.sub("'[^']*'", "", answer.data["would"]), tool


async def test_the_name_of_an_unused_volume_never_passes_for_words_of_a_plan(demo_client):
    guest = demo_client["prod"].emulated.state.guests[101]
    guest.config["unused0"] = f"local:{ODD}"
    guest.touch()
    attached = {"cluster_name": "prod", "vmid": 101, "volume": "unused0"}
    answer = await demo_client("AttachDisk", **attached, dry_run=True)
    assert f"unused0 ('local:{ODD}')" in answer.data["would"], answer.text
