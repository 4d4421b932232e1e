"""Dry runs say how long a write takes, from past tasks of its kind."""

import pytest

from proxmox_client.emulator import FaultKind
from proxmox_client.emulator.state.task import Task
from pvemcp_server.access.model import Resources
from pvemcp_server.toolkit.past_tasks import _readable

from .examples import PROD as PLACE
from .examples import examples

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod", "dry_run": True}
EXAMPLES = examples(PLACE)
VM, CONTAINER = 101, 300
# each kind of write: its tool, its arguments, the guest, and Proxmox's type of its task
WRITES = [
    *(
        ("ChangeVmState", {"vmid": vmid, "action": action}, vmid, f"{prefix}{action.lower()}")
        for vmid, prefix in ((VM, "qm"), (CONTAINER, "vz"))
        for action in ("Stop", "Shutdown", "Reboot")
    ),
    ("CreateVmSnapshot", {"vmid": VM, "snapshot_name": "new-one"}, VM, "qmsnapshot"),
    ("CreateVmSnapshot", {"vmid": CONTAINER, "snapshot_name": "new-one"}, CONTAINER, "vzsnapshot"),
    ("DeleteVmSnapshot", EXAMPLES["DeleteVmSnapshot"], VM, "qmdelsnapshot"),
    ("RollbackVmSnapshot", EXAMPLES["RollbackVmSnapshot"], VM, "qmrollback"),
    ("BackupVm", {"vmid": VM}, VM, "vzdump"),
    ("MigrateVm", {"vmid": 105, "target_node": "pve02", "online": True}, 105, "qmigrate"),
    ("MoveVmDisk", EXAMPLES["MoveVmDisk"], VM, "qmmove"),
    ("CloneVm", EXAMPLES["CloneVm"], VM, "qmclone"),
    ("DeleteVm", EXAMPLES["DeleteVm"], 9001, "qmdestroy"),
    ("RestoreBackup", {"backup": "101", "vmid": 7777}, VM, "qmrestore"),
]


@pytest.fixture
def add_tasks(tool_client, monkeypatch):
    """Return a function that adds ended tasks of a guest, each with its seconds."""
    state = tool_client["prod"].emulated.state
    monkeypatch.setattr(state, "tasks", {})

    def add(kind: str, vmid: int, *seconds: int, node: str | None = None, outcome: str = "OK"):
        place = node or state.guests[vmid].node
        for number, length in enumerate(seconds):
            start = int(state.now) - 100_000 - number * 10_000
            task = Task(place, 0x2000, 0x2000 + len(state.tasks), start, kind, str(vmid), "a@pve")
            task.ended, task.outcome = start + length, outcome
            state.tasks[task.upid] = task

    return add


async def taken(client, tool, **arguments):
    answer = await client(tool, **{**arguments, **PROD})
    assert not answer.failed, answer.text
    assert "Usually" not in answer.data["would"]
    return answer.data.get("takes")


@pytest.mark.parametrize(("tool", "arguments", "vmid", "kind"), WRITES)
async def test_a_dry_run_has_the_median_of_its_kind(
    tool_client, add_tasks, tool, arguments, vmid, kind
):
    assert await taken(tool_client, tool, **arguments) is None
    add_tasks("qmtemplate", vmid, 5)
    add_tasks(kind, vmid, 4, outcome="command failed")
    add_tasks(kind, vmid, 600, 20, 40)
    text = await taken(tool_client, tool, **arguments)
    whose = "other guests on pve01" if tool == "RestoreBackup" else "this guest"
    assert text == f"Usually 40 s, 10 min at most, by the last 3 {kind} tasks of {whose}."


async def test_other_guests_count_only_where_the_role_shows_them(tool_client, add_tasks):
    add_tasks("qmsnapshot", 102, 30, node="pve01")
    call = {"vmid": VM, "snapshot_name": "new-one"}
    text = await taken(tool_client, "CreateVmSnapshot", **call)
    assert text == "Usually 30 s, by the only task of other guests on pve01."
    narrow = tool_client.scoped(Resources(vmids=frozenset({VM})))
    assert await taken(narrow, "CreateVmSnapshot", **call) is None


async def test_many_guests_have_the_span_of_their_medians(tool_client, add_tasks):
    call = {"vmids": [VM, 102, CONTAINER], "snapshot_name": "new-one"}
    assert await taken(tool_client, "CreateVmSnapshot", **call) is None
    add_tasks("qmsnapshot", VM, 10, 12, 14)
    add_tasks("vzsnapshot", CONTAINER, 600)
    text = await taken(tool_client, "CreateVmSnapshot", **call)
    assert text == "Each usually takes 12 s to 10 min, by past tasks."


async def test_a_plan_without_the_list_of_tasks_is_whole(tool_client, add_tasks):
    add_tasks("qmsnapshot", VM, 10)
    emulated = tool_client["prod"].emulated
    fault = emulated.fault(FaultKind.ERROR, path="/nodes/pve01/tasks$", message="boom")
    try:
        assert (
            await taken(tool_client, "CreateVmSnapshot", vmid=VM, snapshot_name="new-one") is None
        )
    finally:
        emulated.faults.remove(fault)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (150, "2 min"), (7200, "2.0 h")]
)
def test_a_time_is_in_a_unit_that_reads_well(seconds, text):
    assert _readable(seconds) == text
