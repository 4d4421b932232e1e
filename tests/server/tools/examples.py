"""One example call of every tool, for the tests and the benchmark that walk over all tools.

The arguments name things of a place: a node of an emulated cluster with a guest and storages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.storage import Volume
from proxmox_client.emulator.state.task import Task

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """What the examples are about: `storage` takes ISO images, `backups` backups, `disks` disks."""

    cluster: str
    node: str
    vmid: int
    other_vmid: int
    snapshot: str  # one of `vmid`
    storage: str
    backups: str
    moved_vmid: int
    target_node: str
    disks: str  # another storage for disks of `vmid`
    stopped: tuple[int, str]  # a stopped guest on `node`: VMID and name


HOME_LAB: Final = Place(
    *("home-lab", "pve", 101, 102, "pre-zigbee", "local", "nas-backup", 101, "pve", "local-lvm"),
    stopped=(110, "fedora-test"),
)
PROD: Final = Place(
    *("prod", "pve01", 101, 102, "before-pg16", "local", "pbs-main", 101, "pve02", "local-zfs"),
    stopped=(9001, "tpl-win2025"),
)
GENERATED: Final = Place(
    *("lab", "pve1", 100, 101, "before", "local", "shared", 100, "pve2", "local"),
    stopped=(103, "cache-103"),
)


def examples(place: Place) -> dict[str, Arguments]:
    """Return the arguments of a call of every tool; a sequence of writes in an order that works.

    Deletions are about the volumes of `add_old_volumes`, StopTask about the task of
    `running_task`, where it was added. The task of GetTask does not exist; no guest is locked.
    Undo needs the write before it.
    """
    cluster = {"cluster_name": place.cluster}
    guest = {**cluster, "vmid": place.vmid}
    guests = {**cluster, "vmids": [place.vmid]}
    node = {**cluster, "node": place.node}
    storage = {**node, "storage": place.storage}
    vmid, name = place.stopped
    upid = f"UPID:{place.node}:00001000:00001000:6B02AC99:qmstart:{place.vmid}:root@pam:"
    return {
        "ListClusters": {},
        "GetClusterStatus": cluster,
        "GetClusterOptions": cluster,
        "ListVms": cluster,
        "ListSnapshots": cluster,
        "GetVmConfig": guest,
        "GetVmStatus": guest,
        "ExplainGuest": guest,
        "ListVmRrdData": {**cluster, "vmids": [place.other_vmid, place.vmid]},
        "ExecInGuest": {**guest, "argv": ["echo", "hello"]},
        "ReadGuestFile": {**guest, "path": "/etc/hostname"},
        "ChangeVmState": {**guests, "action": "Reset"},
        "CreateVmSnapshot": {**guests, "snapshot_name": "new-one"},
        "Undo": cluster,
        "RollbackVmSnapshot": {**guest, "snapshot_name": place.snapshot},
        "DeleteVmSnapshot": {**guests, "snapshot_name": place.snapshot},
        "MigrateVm": {
            **cluster,
            "vmids": [place.moved_vmid],
            "target_node": place.target_node,
            "online": True,
        },
        "UpdateVmConfig": {**guests, "description": "New notes", "options": ["onboot=0"]},
        "ResizeVmDisk": {**guest, "disk": "scsi0", "size": "+1G"},
        "MoveVmDisk": {**guest, "disk": "scsi0", "target_storage": place.disks},
        "AttachDisk": {**guest, "volume": f"{place.disks}:1", "disk": "scsi9"},
        "DetachDisk": {**guest, "disk": "scsi9"},
        "CloneVm": {**cluster, "source": str(place.vmid), "name": "copy-1"},
        "CreateVm": {**node, "storage": place.disks, "name": "new-1"},
        "CreateContainer": {
            **node,
            "storage": place.disks,
            "name": "new-2",
            "template": f"{place.storage}:vztmpl/old.tar.zst",
        },
        "BackupVm": {**guests, "storage": place.backups},
        "DeleteVm": {**cluster, "vmid": vmid, "name": name},
        "ListNodes": cluster,
        "GetNodeStatus": node,
        "CheckMaintenance": node,
        "EvacuateNode": node,
        "ListReplications": cluster,
        "ListNodeRrdData": cluster,
        "ListTasks": cluster,
        "ListChanges": cluster,
        "GetLog": node,
        "GetTask": {**cluster, "upid": upid},
        "StopTask": {**cluster, "upid": running_task(place).upid},
        "UnlockVm": guest,
        "ListNodeDisks": cluster,
        "ListStorage": cluster,
        "ListStorageRrdData": cluster,
        "ListPools": cluster,
        "ListBackups": {**cluster, "vmid": place.vmid},
        "ListStorageContent": storage,
        "ListIsos": storage,
        "ListTemplates": storage,
        "ListBackupJobs": cluster,
        "GetBackupContents": {**cluster, "backup": str(place.vmid)},
        "RestoreBackup": {**cluster, "backup": str(place.vmid)},
        "DownloadIso": {
            **storage,
            "source": "https://93.184.216.34/new.iso",
            "filename": "new.iso",
        },
        "DeleteBackup": {**storage, "volid": f"{place.storage}:backup/old.vma.zst"},
        "DeleteIso": {**storage, "volid": f"{place.storage}:iso/old.iso"},
        "DeleteStorageContent": {**storage, "volid": f"{place.storage}:snippets/old.yaml"},
        "ExplainAccess": cluster,
        "GetQuerySchema": {},
        "FindApi": {"words": "node dns"},
        "CallApi": {**cluster, "method": "POST", "path": "/pools", "parameters": ["poolid=new"]},
        "ExecuteQuery": {
            **cluster,
            "query": {"from": "guests", "select": ["vmid", "node"], "orderBy": [{"field": "vmid"}]},
        },
        "GetAttention": cluster,
    }


def api_read(place: Place) -> Arguments:
    """Return the arguments of a call of CallApi that only reads."""
    path = f"/nodes/{place.node}/tasks"
    return {"cluster_name": place.cluster, "path": path, "parameters": ["limit=3"]}


def add_old_volumes(state: ClusterState, place: Place) -> None:
    """Add what the examples delete and stop: volumes and a task; a backup, and a template."""
    add_running_task(state, place)
    volid = f"{place.storage}:backup/vzdump-qemu-{place.vmid}-2026_01_01-00_00_00.vma.zst"
    backup = Volume(volid, "backup", "vma.zst", 2**20, 1, place.vmid, subtype="qemu")
    backup.config = f"memory: 512\nname: old\nscsi0: {place.disks}:vm-1-disk-0,size=1G\n"
    state.storages[place.storage].put(place.node, backup)
    for name, content in (
        ("backup/old.vma.zst", "backup"),
        ("iso/old.iso", "iso"),
        ("snippets/old.yaml", "snippets"),
        ("vztmpl/old.tar.zst", "vztmpl"),
    ):
        volume = Volume(f"{place.storage}:{name}", content, "raw", 2**20, int(state.now))
        state.storages[place.storage].put(place.node, volume)


def running_task(place: Place) -> Task:
    """Return the task that the example of StopTask stops; it runs until then."""
    return Task(place.node, 0x1001, 0x1001, 0x6B02AC99, "vzdump", str(place.vmid), "root@pam")


def add_running_task(state: ClusterState, place: Place) -> None:
    """Add the task of `running_task`."""
    task = running_task(place)
    state.tasks[task.upid] = task
