"""CreateVmSnapshot, DeleteVmSnapshot and RollbackVmSnapshot."""

import pytest
from tests.server.tools.tool_client import offered

from proxmox_client import Qemu
from proxmox_client.api.access import Access
from proxmox_client.api.guests import Snapshot as ListedSnapshot
from proxmox_client.emulator import FaultKind
from proxmox_client.emulator.state.guest import Snapshot
from pvemcp_server.errors import Frozen
from pvemcp_server.mcp.elicitation import Decision

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}


async def test_a_snapshot_with_ram_is_taken_with_its_description(demo_client):
    answer = await demo_client(
        "CreateVmSnapshot",
        **PROD,
        vmid=200,
        snapshot_name="pre-upgrade",
        description="before kernel update",
        include_vm_state=True,
        wait=True,
    )
    assert (answer.data["success"], answer.data["ok"]) == (True, True)
    assert (answer.data["vmid"], answer.data["snapshot_name"]) == (200, "pre-upgrade")
    taken = demo_client["prod"].emulated.state.guests[200].snapshots["pre-upgrade"]
    assert (taken.description, taken.with_ram) == ("before kernel update", True)


async def test_leaving_out_ram_of_a_stopped_guest_is_noted(demo_client):
    answer = await demo_client(
        "CreateVmSnapshot",
        cluster_name="home-lab",
        vmid=105,
        snapshot_name="later",
        include_vm_state=True,
        wait=True,
    )
    assert answer.data["ok"] is True
    assert "not running, so there is no RAM to save" in answer.notes
    assert not demo_client["home-lab"].emulated.state.guests[105].snapshots["later"].with_ram


async def test_ram_of_a_container_cannot_be_saved(demo_client):
    error = await demo_client.refused(
        "CreateVmSnapshot", **PROD, vmid=300, snapshot_name="x1", include_vm_state=True
    )
    assert error.startswith("include_vm_state: lxc 300 (dns-1) on prod is a container")


@pytest.mark.parametrize("name", ["1st", "a", "with blank", "über", "a" * 41, "x/../y"])
async def test_an_invalid_snapshot_name_is_refused_by_its_argument(demo_client, name):
    error = await demo_client.refused("CreateVmSnapshot", **PROD, vmid=105, snapshot_name=name)
    assert error.startswith("snapshot_name: ")
    assert demo_client.requests("prod") == []


async def test_the_word_current_and_a_name_in_use_are_refused(demo_client):
    error = await demo_client.refused("CreateVmSnapshot", **PROD, vmid=105, snapshot_name="current")
    assert "'current' is Proxmox's name" in error
    error = await demo_client.refused(
        "CreateVmSnapshot", **PROD, vmid=105, snapshot_name="release-4-3"
    )
    assert "already has a snapshot 'release-4-3'" in error


async def test_disks_on_storages_without_snapshots_are_named(demo_client):
    config = demo_client["prod"].emulated.state.guests[105].config
    config["scsi3"] = "local:105/vm-105-disk-3.raw,size=8G"
    config["scsi4"] = "local:105/vm-105-disk-4.qcow2,size=8G"
    error = await demo_client.refused("CreateVmSnapshot", **PROD, vmid=105, snapshot_name="x1")
    assert "scsi3 on local does not support them" in error
    assert "scsi4" not in error


async def test_a_disk_without_snapshots_counts_until_its_removal_is_made(demo_client):
    guest = demo_client["prod"].emulated.state.guests[105]
    guest.config["scsi3"] = "local:105/vm-105-disk-3.raw,size=8G"
    guest.removals["scsi3"] = 1
    error = await demo_client.refused("CreateVmSnapshot", **PROD, vmid=105, snapshot_name="x1")
    assert "scsi3 on local does not support them" in error


async def test_a_snapshot_without_pending_changes_is_noted(demo_client):
    guest = demo_client["prod"].emulated.state.guests[105]
    guest.pending |= {"scsi3": "local:105/vm-105-disk-3.raw,size=8G", "memory": "16384"}
    call = {**PROD, "vmid": 105, "snapshot_name": "x1", "dry_run": True}
    would = (await demo_client("CreateVmSnapshot", **call)).data["would"]
    assert "Changes pending until the guest restarts are not in it: memory, scsi3." in would


async def test_a_template_has_no_snapshots(demo_client):
    error = await demo_client.refused("CreateVmSnapshot", **PROD, vmid=9000, snapshot_name="x1")
    assert "is a template" in error


async def test_a_snapshot_is_deleted_after_the_user_confirms(demo_client):
    answer = await demo_client(
        "DeleteVmSnapshot", **PROD, vmid=105, snapshot_name="release-4-2", wait=True
    )
    assert answer.data["ok"] is True
    assert "release-4-2" not in demo_client["prod"].emulated.state.guests[105].snapshots
    (question,) = demo_client.conversation.questions
    assert question.startswith("Delete snapshot 'release-4-2' of qemu 105 (web-frontend) on prod.")
    assert "can never be restored" in question


@pytest.mark.parametrize("tool", ["DeleteVmSnapshot", "RollbackVmSnapshot"])
async def test_nothing_is_changed_when_the_user_declines(demo_client, tool):
    demo_client.conversation.decision = Decision.NO
    error = await demo_client.refused(tool, **PROD, vmid=105, snapshot_name="release-4-2")
    assert error == "The user declined; nothing was changed."
    assert not any(one.startswith(("POST", "DELETE")) for one in demo_client.requests("prod"))
    assert "release-4-2" in demo_client["prod"].emulated.state.guests[105].snapshots


@pytest.mark.parametrize("tool", ["DeleteVmSnapshot", "RollbackVmSnapshot"])
async def test_a_setting_decides_where_confirmation_is_impossible(demo_client, tool):
    demo_client.conversation.decision = Decision.CANNOT_ASK
    demo_client.change(unconfirmed_destructive="deny")
    call = {**PROD, "vmid": 105, "snapshot_name": "release-4-3"}
    error = await demo_client.refused(tool, **call)
    assert "Destructive calls without confirmation" in error
    assert (await demo_client(tool, **call, dry_run=True)).data["dry_run"] is True
    demo_client.change(unconfirmed_destructive="allow")
    assert (await demo_client(tool, **call, wait=True)).data["ok"] is True


@pytest.mark.parametrize("tool", ["DeleteVmSnapshot", "RollbackVmSnapshot"])
async def test_an_unknown_snapshot_is_answered_with_the_nearest(demo_client, tool):
    error = await demo_client.refused(tool, **PROD, vmid=105, snapshot_name="release-4-4")
    assert error.startswith(
        "No snapshot 'release-4-4' of qemu 105 (web-frontend) on prod. Did you mean release-4-"
    )
    assert demo_client.conversation.questions == []


async def test_a_rollback_restores_the_guest_and_names_the_loss(demo_client):
    guest = demo_client["prod"].emulated.state.guests[200]
    guest.config["cores"] = 32
    answer = await demo_client(
        "RollbackVmSnapshot", **PROD, vmid=200, snapshot_name="after-cert-renewal", wait=True
    )
    assert answer.data["ok"] is True
    assert guest.config["cores"] == 4
    (question,) = demo_client.conversation.questions
    assert "All that was written to its disks since" in question
    assert "It is running and is stopped by this" in question
    assert "A snapshot that is taken first keeps the present state, but not its RAM." in question
    kept = offered(answer.data["undo"])[1]["snapshot_name"]
    assert guest.snapshots[kept].config["cores"] == 32
    _, outcome = demo_client.audit.events[-1]
    assert ("qmsnapshot" in outcome.upid, "qmrollback" in outcome.upid) == (True, True)


async def test_without_the_present_state_a_rollback_is_one_request(demo_client):
    call = {"vmid": 105, "snapshot_name": "release-4-2", "keep_present": False}
    answer = await demo_client("RollbackVmSnapshot", **PROD, **call, wait=True)
    (question,) = demo_client.conversation.questions
    assert "No snapshot of the present state is taken first: keep_present is false." in question
    assert "undo" not in answer.data
    posts = [each for each in demo_client.requests("prod") if each.startswith("POST")]
    assert len(posts) == 1


OBSTACLES = {
    "ZFS": "scsi0 could then no longer roll back to an older one",
    "chain": "scsi0 could then no longer roll back to an older one",
    "unknown": "scsi0 might then no longer roll back to an older one",
    "new disk": "cannot have snapshots: scsi5 on local-raw does not support them",
    "privilege": "lacks VM.Snapshot on /vms/105",
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
async def test_why_the_present_state_cannot_be_kept_is_said(demo_client, obstacle, monkeypatch):
    state = demo_client["prod"].emulated.state
    guest = state.guests[105]
    snapshot = guest.snapshots["release-4-3"]
    if obstacle == "ZFS":
        snapshot.config["scsi0"] = "local-zfs:vm-105-disk-0,size=10G"
    if obstacle in ("chain", "unknown"):
        snapshot.config["scsi0"] = "nfs-archive:105/vm-105-disk-0.qcow2,size=10G"
        options = state.storages["nfs-archive"].options
        options["snapshot-as-volume-chain"] = 1
    if obstacle == "unknown":
        demo_client["prod"].emulated.fault(FaultKind.FORBIDDEN, path="/storage$", message="no")
    if obstacle == "new disk":
        guest.config["scsi5"] = "local:105/vm-105-disk-5.raw,size=10G"
    if obstacle == "privilege":
        monkeypatch.setattr(Access, "permissions", no_snapshots)
    call = {"vmid": 105, "snapshot_name": "release-4-3", "dry_run": True}
    answer = await demo_client("RollbackVmSnapshot", **PROD, **call)
    text = OBSTACLES[obstacle].replace("local-raw", "local")
    assert "No snapshot of the present state is taken first: " in answer.data["would"]
    assert text in answer.data["would"]


async def no_snapshots(self, path=None, userid=None):
    return {"/vms/105": {"VM.Audit": True, "VM.Snapshot.Rollback": True}}


FAILURES = {
    "the snapshot": (FaultKind.ERROR, "/snapshot$", "was not rolled back", None),
    "the rollback": (FaultKind.ERROR, "/rollback$", "rollback of", "DeleteVmSnapshot"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_rollback_that_fails_half_way_says_what_is_left(demo_client, failure):
    kind, path, text, tool = FAILURES[failure]
    guest = demo_client["prod"].emulated.state.guests[105]
    before = {*guest.snapshots}
    emulated = demo_client["prod"].emulated
    emulated.fault(kind, method="POST", path=f".*{path}", message="no room")
    call = {"vmid": 105, "snapshot_name": "release-4-2", "wait": True}
    error = await demo_client.refused("RollbackVmSnapshot", **PROD, **call)
    assert text in error
    left = {*guest.snapshots} - before
    assert all(name in error for name in left)
    assert len(left) == (1 if tool else 0)
    if tool:
        assert f'undo it: {tool} {{"cluster_name":"prod","vmid":105,"snapshot_name":' in error


async def test_a_freeze_before_the_rollback_itself_names_the_snapshot_that_was_taken(
    demo_client, monkeypatch
):
    async def frozen(*_arguments, **_options):
        raise Frozen("Writes are frozen.")

    monkeypatch.setattr(Qemu, "rollback", frozen)
    call = {"vmid": 105, "snapshot_name": "release-4-2", "wait": True}
    error = await demo_client.refused("RollbackVmSnapshot", **PROD, **call)
    snapshots = demo_client["prod"].emulated.state.guests[105].snapshots
    [kept] = [name for name in snapshots if name.startswith("before-rollback")]
    assert "Writes are frozen. Its state before is snapshot" in error
    undo = f'DeleteVmSnapshot {{"cluster_name":"prod","vmid":105,"snapshot_name":"{kept}"}}'
    assert f"undo it: {undo}." in error


async def test_a_rollback_whose_task_fails_names_the_snapshot_to_go_back_to(
    demo_client, monkeypatch
):
    guest = demo_client["prod"].emulated.state.guests[105]
    send = Qemu.rollback

    async def roll_back(self, name, **options):
        guest.snapshots[name].state = "delete"  # another client begins to delete it
        return await send(self, name, **options)

    monkeypatch.setattr(Qemu, "rollback", roll_back)
    call = {"vmid": 105, "snapshot_name": "release-4-2", "wait": True}
    error = await demo_client.refused("RollbackVmSnapshot", **PROD, **call)
    [kept] = [name for name in guest.snapshots if name.startswith("before-rollback")]
    assert f"Its state before is snapshot {kept!r}." in error
    assert "undo it: RollbackVmSnapshot" in error


@pytest.mark.parametrize("tool", ["DeleteVmSnapshot", "RollbackVmSnapshot"])
async def test_protection_of_a_guest_is_not_one_of_its_snapshots(demo_client, tool):
    # As in Proxmox, where the flag protects the guest and its disks from removal
    guest = demo_client["prod"].emulated.state.guests[105]
    guest.config["protection"], guest.pending["protection"] = 1, 1
    answer = await demo_client(tool, **PROD, vmid=105, snapshot_name="release-4-3", wait=True)
    assert answer.data["ok"] is True


async def test_an_incomplete_snapshot_is_marked_and_cannot_be_restored(demo_client, monkeypatch):
    async def snapshots(self):
        return [ListedSnapshot(name="half", created=1_790_000_000, state="prepare")]

    monkeypatch.setattr(Qemu, "snapshots", snapshots)
    call = {**PROD, "vmid": 105, "snapshot_name": "half", "dry_run": True}
    error = await demo_client.refused("RollbackVmSnapshot", **call)
    assert "Snapshot 'half' of qemu 105 (web-frontend) on prod is incomplete (prepare)." in error
    assert not (await demo_client("DeleteVmSnapshot", **call)).failed
    listed = await demo_client("ListSnapshots", **PROD, vmids=[105], detail_level="Full")
    assert listed.column("state") == ["prepare"]
    assert "no rollback is possible: half of guest 105 (prepare)." in listed.notes


async def test_on_zfs_only_the_newest_snapshot_can_be_restored(demo_client):
    state = demo_client["prod"].emulated.state
    guest = next(
        one
        for one in state.guests.values()
        if one.snapshots
        and state.nodes[one.node].online
        and any(disk.storage == "local-zfs" for disk in one.disks())
    )
    (first,) = guest.snapshots
    newest = Snapshot("newer", int(state.now), parent=first)
    guest.snapshots["newer"] = newest
    call = {**PROD, "vmid": guest.vmid, "snapshot_name": first, "dry_run": True}
    error = await demo_client.refused("RollbackVmSnapshot", **call)
    assert "only rolls back to the newest snapshot" in error
    assert "newer ones are newer" in error
    assert (await demo_client("RollbackVmSnapshot", **{**call, "snapshot_name": "newer"})).data[
        "dry_run"
    ]


async def test_a_rollback_goes_by_the_disks_of_its_snapshot(demo_client):
    """Check the disks of the snapshot, not those attached or detached since."""
    state = demo_client["prod"].emulated.state
    guest = state.guests[105]
    guest.snapshots["newest"] = Snapshot("newest", int(state.now), parent="release-4-2")
    guest.config["scsi7"] = guest.pending["scsi8"] = "local-zfs:vm-105-disk-7,size=1G"
    call = {**PROD, "vmid": 105, "snapshot_name": "release-4-2", "dry_run": True}
    assert (await demo_client("RollbackVmSnapshot", **call)).data["dry_run"] is True
    held = guest.config.pop("scsi7")
    guest.snapshots["release-4-2"].config["scsi7"] = held
    assert "scsi7 of qemu 105" in await demo_client.refused("RollbackVmSnapshot", **call)


async def test_the_nearest_name_is_suggested(tool_client):
    error = await tool_client.refused(
        "DeleteVmSnapshot", cluster_name="prod", vmid=101, snapshot_name="before-vacum"
    )
    assert error.endswith("Did you mean before-vacuum?")
