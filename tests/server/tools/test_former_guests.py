"""A role for a part of the cluster gets no VMID under which a hidden guest left volumes."""

import pytest

from proxmox_client.emulator import ManualClock, demo
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import EVERYTHING, Resources

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}
ROLE = Resources(
    vmids=frozenset({9000, 140}),
    pools=frozenset({"office"}),
    target_nodes=frozenset({"*"}),
    target_storages=frozenset({"*"}),
)
CREATED = {"node": "pve01", "storage": "ceph-vm", "name": "new", "pool": "office"}
WRITES = {
    "CreateVm": CREATED,
    "CloneVm": {"source": "9000", "name": "new", "pool": "office"},
    "RestoreBackup": {"backup": 140, "pool": "office"},
}
NUMBER = {"RestoreBackup": "vmid"}


@pytest.fixture(scope="module")
async def client(anyio_backend, open_client):
    async with open_client(demo(), ManualClock()) as opened:
        yield opened


@pytest.fixture
async def left(client):
    """Return the next two free VMIDs: a deleted guest left a backup with the first one."""
    first = await client["prod"].pve.cluster.nextid()
    storage = client["prod"].emulated.state.storages["local"]
    volid = f"local:backup/vzdump-qemu-{first}-2026_01_01-00_00_00.vma.zst"
    storage.put("pve03", Volume(volid, "backup", "vma.zst", 1, 1, first, subtype="qemu"))
    yield first, first + 1
    storage.remove("pve03", volid)


async def planned(client, tool, **arguments):
    return await client(tool, **PROD, **WRITES[tool], **arguments, dry_run=True)


@pytest.mark.parametrize("tool", WRITES)
async def test_the_next_free_vmid_is_one_without_volumes(client, left, tool):
    assert (await planned(client.scoped(ROLE), tool)).data["vmid"] == left[1]
    assert (await planned(client.scoped(EVERYTHING), tool)).data["vmid"] == left[0]


@pytest.mark.parametrize("tool", WRITES)
async def test_a_named_vmid_with_volumes_is_refused_unless_it_is_granted(client, left, tool):
    number = {NUMBER.get(tool, "new_vmid"): left[0]}
    answer = await planned(client.scoped(ROLE), tool, **number)
    assert answer.text.startswith(f"VMID {left[0]} on prod cannot be used: a deleted guest left")
    for resources in (EVERYTHING, ROLE | Resources(vmids=frozenset({left[0]}))):
        assert not (await planned(client.scoped(resources), tool, **number)).failed
