"""Every tool on each version of Proxmox VE, on one node, and on thirty of which half are gone."""

import pytest

from proxmox_client.emulator import Scenario
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.toolkit.registry import tools

pytestmark = pytest.mark.anyio

VERSIONS = ("8.4", "9.0", "9.1", "9.2")
READS = {
    "ListClusters": {},
    "GetClusterStatus": {},
    "GetClusterOptions": {},
    "ListVms": {"detail_level": "Full"},
    "ListSnapshots": {"detail_level": "Full", "include_size": True},
    "GetVmConfig": {"vmid": 100},
    "GetVmStatus": {"vmid": 100},
    "ListVmRrdData": {"vmids": [100, 104]},
    "ListNodes": {"detail_level": "Full"},
    "GetNodeStatus": {"node": "pve1"},
    "ListReplications": {},
    "ListNodeRrdData": {},
    "ListTasks": {},
    "ListNodeDisks": {},
    "ListStorage": {"detail_level": "Full"},
    "ListPools": {},
    "ListBackups": {},
    "ListStorageContent": {"node": "pve1", "storage": "shared"},
    "ListIsos": {"node": "pve1", "storage": "local"},
    "ListTemplates": {"node": "pve1", "storage": "local"},
    "ListBackupJobs": {},
    "ExplainAccess": {},
    "GetQuerySchema": {},
    "ExecuteQuery": {"query": {"from": "guests", "select": ["vmid"]}},
}
LOCAL = {"node": "pve1", "storage": "local"}
WRITES = [  # in this order: what one leaves, the next one needs
    ("ChangeVmState", {"vmid": 100, "action": "Reset"}),
    ("CreateVmSnapshot", {"vmid": 100, "snapshot_name": "before"}),
    ("RollbackVmSnapshot", {"vmid": 100, "snapshot_name": "before"}),
    ("DeleteVmSnapshot", {"vmid": 100, "snapshot_name": "before"}),
    ("BackupVm", {"vmid": 104, "storage": "shared", "compress": "zstd"}),
    ("MigrateVm", {"vmid": 104, "target_node": "pve1", "online": True}),
    ("MigrateVm", {"vmid": 101, "target_node": "pve3", "online": True}),
    ("DownloadIso", {**LOCAL, "url": "https://cdimage.example.org/a.iso", "filename": "a.iso"}),
    ("DeleteIso", {**LOCAL, "volid": "local:iso/a.iso"}),
    ("DeleteBackup", {**LOCAL, "volid": "local:backup/old.vma.zst"}),
    ("DeleteStorageContent", {**LOCAL, "volid": "local:snippets/old.yaml"}),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("nodes", [1, 3])
async def test_every_read_works_on_every_version(open_desk, version, nodes):
    async with open_desk(
        Scenario.cluster("lab", version=version, nodes=nodes, guests=8)
    ) as demo_client:
        for tool, arguments in READS.items():
            answer = await demo_client(tool, **arguments)
            assert not answer.failed, f"{tool}: {answer.text}"
            assert "Missing" not in answer.notes, f"{tool}: {answer.notes}"


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_write_works_on_every_version(open_desk, version):
    async with open_desk(
        Scenario.cluster("lab", version=version, nodes=3, guests=8)
    ) as demo_client:
        _ready(demo_client)
        for tool, arguments in WRITES:
            demo_client.asked("lab")
            rehearsed = await demo_client(tool, **arguments, dry_run=True)
            assert rehearsed.data["would"].endswith("."), f"{tool}: {rehearsed.text}"
            assert all(one.startswith("GET ") for one in demo_client.asked("lab")), tool
            answer = await demo_client(tool, **arguments, wait=True)
            assert not answer.failed, f"{tool}: {answer.text}"
            assert answer.data["success"] is True, f"{tool}: {answer.text}"
            assert answer.data.get("ok") in (True, None), f"{tool}: {answer.text}"
            assert any(not one.startswith("GET ") for one in demo_client.asked("lab")), tool


async def test_a_cluster_that_is_half_gone_still_tells_of_the_other_half(open_desk):
    async with open_desk(Scenario.cluster("lab", nodes=30, guests=120)) as demo_client:
        gone = [f"pve{number}" for number in range(2, 31, 2)]
        for node in gone:
            await demo_client["lab"].emulated.node_down(node)
        status = (await demo_client("GetClusterStatus")).data
        assert (status["nodes_online"], status["nodes_offline"]) == (15, 15)
        answer = await demo_client("ListNodeDisks", limit=400)
        assert {row["node"] for row in answer.data} == {f"pve{n}" for n in range(1, 31, 2)}
        assert f"Offline on lab, so missing here: {', '.join(sorted(gone))}." in answer.notes
        assert len((await demo_client("ListVms")).data) == 120
        asked = demo_client.asked("lab")
        assert not any(f"/nodes/{node}/" in one for one in asked for node in gone)


def test_every_read_is_among_them():
    reads = {one.name for one in tools().values() if one.reads}
    assert READS.keys() == reads - {"GetTask"}


def test_every_write_is_among_them():
    writes = {one.name for one in tools().values() if not one.reads}
    assert {name for name, _ in WRITES} == writes


def _ready(demo_client):
    """Give generated guests disks that can be frozen, and the storage something to delete."""
    state = demo_client["lab"].emulated.state
    for name, kind in (("backup/old.vma.zst", "backup"), ("snippets/old.yaml", "snippets")):
        volume = Volume(f"local:{name}", kind, "raw", 2**20, int(state.now))
        state.storages["local"].put("pve1", volume)
    for guest in state.guests.values():
        for disk in list(guest.disks()):
            guest.config[disk.slot] = guest.config[disk.slot].replace(".raw", ".qcow2")
