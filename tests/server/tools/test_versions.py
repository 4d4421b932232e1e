"""Every tool on each version of Proxmox VE, on one node, and on thirty of which half are down."""

import pytest

from proxmox_client.emulator import Scenario
from pvemcp_server.toolkit.registry import tools

from .examples import GENERATED, add_old_volumes, add_running_task, api_read, examples

pytestmark = pytest.mark.anyio

VERSIONS = ("8.4", "9.0", "9.1", "9.2")


def _with_full_detail(name, arguments):
    """Return the arguments with everything that a list can show."""
    options = {"detail_level": "Full", "include_size": True}
    own = tools()[name].arguments.model_fields
    return {**arguments, **{key: options[key] for key in options if key in own}}


CONTAINER = {"cluster_name": "lab", "vmid": 104, "target_node": "pve1", "online": True}
CALLS = [*examples(GENERATED).items(), ("MigrateVm", CONTAINER)]
BY_ROOT = {"UnlockVm"}  # with a token it writes nothing: guests/test_locks.py
WRITES = [
    (name, arguments)
    for name, arguments in CALLS
    if not tools()[name].reads and name not in BY_ROOT
]
READS = [
    (name, _with_full_detail(name, arguments))
    for name, arguments in CALLS
    if tools()[name].reads and name != "GetTask"  # no task has run
] + [("CallApi", api_read(GENERATED))]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("nodes", [1, 3])
async def test_every_read_works_on_every_version(open_client, version, nodes):
    scenario = Scenario.cluster("lab", version=version, nodes=nodes, guests=8)
    async with open_client(scenario) as client:
        add_old_volumes(client["lab"].emulated.state, GENERATED)
        for tool, arguments in READS:
            answer = await client(tool, **arguments)
            assert not answer.failed, f"{tool}: {answer.text}"
            assert "Missing" not in answer.notes, f"{tool}: {answer.notes}"


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_write_works_on_every_version(open_client, version):
    async with open_client(Scenario.cluster("lab", version=version, nodes=3, guests=8)) as client:
        await _prepare(client)
        for tool, arguments in WRITES:
            client.requests("lab")
            preview = await client(tool, **arguments, dry_run=True)
            assert preview.data["would"].endswith("."), f"{tool}: {preview.text}"
            assert all(one.startswith("GET ") for one in client.requests("lab")), tool
            answer = await client(tool, **arguments, wait=True)
            assert not answer.failed, f"{tool}: {answer.text}"
            assert answer.data["success"] is True, f"{tool}: {answer.text}"
            assert answer.data.get("ok") in (True, None), f"{tool}: {answer.text}"
            assert any(not one.startswith("GET ") for one in client.requests("lab")), tool


async def test_a_cluster_answers_with_half_of_its_nodes_down(open_client):
    async with open_client(Scenario.cluster("lab", nodes=30, guests=120)) as client:
        gone = [f"pve{number}" for number in range(2, 31, 2)]
        for node in gone:
            await client["lab"].emulated.node_down(node)
        status = (await client("GetClusterStatus")).data
        assert (status["nodes_online"], status["nodes_offline"]) == (15, 15)
        answer = await client("ListNodeDisks", limit=400)
        assert {row["node"] for row in answer.data} == {f"pve{n}" for n in range(1, 31, 2)}
        assert f"Offline on lab, so missing here: {', '.join(sorted(gone))}." in answer.notes
        assert len((await client("ListVms", limit=400)).data) == 120
        asked = client.requests("lab")
        assert not any(f"/nodes/{node}/" in one for one in asked for node in gone)


async def _prepare(client):
    """Add volumes to delete, a task and a snapshot, on disks that can have snapshots."""
    state = client["lab"].emulated.state
    add_old_volumes(state, GENERATED)
    add_running_task(state, GENERATED)
    for guest in state.guests.values():
        for disk in list(guest.disks()):
            guest.config[disk.slot] = guest.config[disk.slot].replace(".raw", ".qcow2")
    call = {"cluster_name": "lab", "vmid": GENERATED.vmid, "snapshot_name": GENERATED.snapshot}
    answer = await client("CreateVmSnapshot", **call, wait=True)
    assert answer.data["ok"], answer.text
