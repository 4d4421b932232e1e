"""What every tool answers when something is broken; docs/reference/faults.md is this, written down.

`make docs` renews the page: it runs these tests with PVEMCP_RENEW_DOCS set.
"""

import gc
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxmox_client.emulator import FaultKind, demo
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.toolkit.registry import tools

pytestmark = [
    pytest.mark.anyio,
    # anyio drops a connection attempt that is cancelled before its first step
    pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp:RuntimeWarning"),
]

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "faults.md"
URL = "https://cdimage.example.org/x.iso"
UPID = "UPID:pve:00001000:00001000:6B02AC99:qmstart:100:root@pam:"

# One call of each tool, about things that are there when all is well.
LAB: Mapping[str, dict[str, Any]] = {
    "ListClusters": {},
    "GetClusterStatus": {"cluster_name": "home-lab"},
    "GetClusterOptions": {"cluster_name": "home-lab"},
    "ListVms": {},
    "ListSnapshots": {},
    "GetVmConfig": {"cluster_name": "home-lab", "vmid": 101},
    "GetVmStatus": {"cluster_name": "home-lab", "vmid": 101},
    "ListVmRrdData": {"cluster_name": "home-lab", "vmids": [101, 102]},
    "ChangeVmState": {"cluster_name": "home-lab", "vmid": 101, "action": "Reset"},
    "CreateVmSnapshot": {"cluster_name": "home-lab", "vmid": 101, "snapshot_name": "new-one"},
    "DeleteVmSnapshot": {"cluster_name": "home-lab", "vmid": 101, "snapshot_name": "pre-zigbee"},
    "RollbackVmSnapshot": {"cluster_name": "home-lab", "vmid": 101, "snapshot_name": "pre-zigbee"},
    "BackupVm": {"cluster_name": "home-lab", "vmid": 101, "storage": "nas-backup"},
    "ListNodes": {"detail_level": "Full"},
    "GetNodeStatus": {"cluster_name": "home-lab", "node": "pve"},
    "ListReplications": {},
    "ListNodeRrdData": {"cluster_name": "home-lab"},
    "ListTasks": {},
    "GetTask": {"cluster_name": "home-lab", "upid": UPID},
    "ListNodeDisks": {},
    "ListStorage": {},
    "ListPools": {},
    "ListBackups": {},
    "ListStorageContent": {"node": "pve", "storage": "nas-backup"},
    "ListIsos": {"node": "pve", "storage": "local"},
    "ListTemplates": {"node": "pve", "storage": "local"},
    "ListBackupJobs": {},
    "DownloadIso": {
        "cluster_name": "home-lab",
        "node": "pve",
        "storage": "local",
        "url": URL,
        "filename": "x.iso",
    },
    "DeleteBackup": {
        "cluster_name": "home-lab",
        "node": "pve",
        "storage": "local",
        "volid": "local:backup/old.vma.zst",
    },
    "DeleteIso": {
        "cluster_name": "home-lab",
        "node": "pve",
        "storage": "local",
        "volid": "local:iso/old.iso",
    },
    "DeleteStorageContent": {
        "cluster_name": "home-lab",
        "node": "pve",
        "storage": "local",
        "volid": "local:snippets/old.yaml",
    },
    "ExplainAccess": {},
    "ExecuteQuery": {"query": {"from": "guests", "select": ["cluster", "COUNT(*) as total"],
                               "groupBy": ["cluster"]}},
}  # fmt: skip
# The same about one of several nodes: the one that fails.
PROD: Mapping[str, dict[str, Any]] = {
    "GetClusterStatus": {"cluster_name": "prod"},
    "ListVms": {"cluster_name": "prod"},
    "ListSnapshots": {"cluster_name": "prod"},
    "GetVmConfig": {"cluster_name": "prod", "vmid": 200},
    "GetVmStatus": {"cluster_name": "prod", "vmid": 200},
    "ListVmRrdData": {"cluster_name": "prod", "vmids": [101, 200]},
    "ChangeVmState": {"cluster_name": "prod", "vmid": 200, "action": "Reset"},
    "MigrateVm": {"cluster_name": "prod", "vmid": 105, "target_node": "pve02", "online": True},
    "BackupVm": {"cluster_name": "prod", "vmid": 200, "storage": "pbs-main"},
    "ListNodes": {"cluster_name": "prod"},
    "GetNodeStatus": {"cluster_name": "prod", "node": "pve02"},
    "ListReplications": {"cluster_name": "prod"},
    "ListNodeRrdData": {"cluster_name": "prod", "metrics": ["Cpu"]},
    "ListTasks": {"cluster_name": "prod"},
    "ListNodeDisks": {"cluster_name": "prod"},
    "ListStorage": {"cluster_name": "prod"},
    "ListBackups": {"cluster_name": "prod"},
    "ListIsos": {"cluster_name": "prod", "node": "pve02", "storage": "local"},
    "ListBackupJobs": {"cluster_name": "prod"},
    "ExecuteQuery": {"cluster_name": "prod",
                     "query": {"from": "node_disks", "select": ["node", "device"]}},
}  # fmt: skip
STORAGE: Mapping[str, dict[str, Any]] = {
    "ListBackups": {"cluster_name": "prod"},
    "ListStorageContent": {"cluster_name": "prod", "node": "pve01", "storage": "nfs-archive"},
    "ListStorage": {"cluster_name": "prod"},
    "GetClusterStatus": {"cluster_name": "prod"},
    "ExecuteQuery": {"cluster_name": "prod", "query": {
        "from": "backups", "select": ["storage", "COUNT(*) as total"], "groupBy": ["storage"]}},
}  # fmt: skip
WAITED: Mapping[str, dict[str, Any]] = {
    "ChangeVmState": {"cluster_name": "home-lab", "vmid": 105, "action": "Start", "wait": True},
    "DownloadIso": {**LAB["DownloadIso"], "wait": True},
}


MOVE: Mapping[str, Any] = {
    "cluster_name": "prod",
    "vmid": 101,
    "target_node": "pve02",
    "online": True,
}
OLD = {"backup": "backup/old.vma.zst", "iso": "iso/old.iso", "snippets": "snippets/old.yaml"}


@dataclass(frozen=True)
class Broken:
    """Something that is broken, and the calls that are made then."""

    title: str
    happens: Callable[[Any], Awaitable[None]]
    calls: Mapping[str, dict[str, Any]]


async def node_is_down(demo_client):
    await demo_client["prod"].emulated.node_down("pve02")


async def cluster_is_down(demo_client):
    await demo_client["home-lab"].emulated.node_down("pve")


async def cluster_hangs(demo_client):
    demo_client.change(
        call_deadline_seconds=4
    )  # for the cluster that is well: this machine may be busy
    demo_client["home-lab"].inventory.patience = 0.2
    demo_client["home-lab"].inventory.quiet = 0.0
    demo_client["home-lab"].emulated.fault(FaultKind.HANG)


async def privileges_are_missing(demo_client):
    demo_client["home-lab"].emulated.fault(
        FaultKind.FORBIDDEN, path="(?!/cluster/resources)", message="/nodes/pve, Sys.Audit"
    )


async def proxmox_fails(demo_client):
    demo_client["home-lab"].emulated.fault(
        FaultKind.ERROR, path="(?!/cluster/resources)", message="rados timeout"
    )


async def storage_hangs(demo_client):
    demo_client.change(call_deadline_seconds=4)
    demo_client["prod"].emulated.fault(FaultKind.HANG, path=".*/storage/nfs-archive/")


async def answers_break_off(demo_client):
    demo_client["home-lab"].emulated.fault(FaultKind.DROP, path="(?!/cluster/resources)")


async def tasks_fail(demo_client):
    state = demo_client["home-lab"].emulated.state
    state.guests[105].config["net0"] = "virtio=BC:24:11:00:00:09,bridge=nope"
    state.downloads[URL] = None


@pytest.fixture(autouse=True)
def dropped_attempts_are_collected_here():
    """Not in a later test, where the warning about them would count."""
    yield
    gc.collect()


BROKEN = [
    Broken("A node is down", node_is_down, PROD),
    Broken("A cluster is down", cluster_is_down, LAB),
    Broken("A cluster hangs", cluster_hangs, LAB),
    Broken("The account lacks a privilege", privileges_are_missing, LAB),
    Broken("Proxmox fails", proxmox_fails, LAB),
    Broken("A storage hangs", storage_hangs, STORAGE),
    Broken("Answers break off", answers_break_off, LAB),
    Broken("A task fails", tasks_fail, WAITED),
]


SLOW = {cluster_hangs, storage_hangs}  # what never answers takes its time


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(one, id=one.happens.__name__, marks=[pytest.mark.slow] * (one.happens in SLOW))
        for one in BROKEN
    ],
)
async def test_tools_answer_honestly_when_something_is_broken(demo_client, broken):
    for kind, name in OLD.items():
        _put(demo_client["home-lab"].emulated.state, "local", name, kind)
    await broken.happens(demo_client)
    lines = []
    for tool, arguments in broken.calls.items():
        demo_client.refresh()
        answer = await demo_client(tool, **arguments)
        said = answer.text if answer.failed else answer.notes
        assert "incident" not in said, said
        assert said or answer.data, f"{tool} is silent"
        lines.append(f"| {tool} | {_kind(answer)} | {_plain(said)} |")
    _compare(broken.title, "\n".join(["| tool | answers | says |", "|---|---|---|", *lines]))


async def nothing(_desk):
    """All is well."""


async def move_is_forbidden(demo_client):
    message = "/vms/101, VM.Migrate"
    demo_client["prod"].emulated.fault(
        FaultKind.FORBIDDEN, path=".*/qemu/101/migrate", message=message
    )


async def move_fails_at_once(demo_client):
    demo_client["prod"].emulated.fault(
        FaultKind.ERROR, path=".*/qemu/101/migrate", message="no quorum!"
    )


async def move_breaks_off(demo_client):
    demo_client["prod"].emulated.fault(FaultKind.DROP, path=".*/qemu/101/migrate")


async def move_hangs(demo_client):
    demo_client.change(call_deadline_seconds=2)
    demo_client["prod"].emulated.fault(FaultKind.HANG, path=".*/qemu/101/migrate")


async def source_is_down(demo_client):
    await demo_client["prod"].emulated.node_down("pve01")


MOVES = {
    "nothing is broken": nothing,
    "the target is down": node_is_down,
    "the guest's node is down": source_is_down,
    "the account lacks a privilege": move_is_forbidden,
    "Proxmox fails": move_fails_at_once,
    "the answer breaks off": move_breaks_off,
    "Proxmox hangs": move_hangs,
}


@pytest.mark.slow
async def test_a_migration_answers_honestly_when_something_is_broken(open_client):
    lines = []
    for title, happens in MOVES.items():
        async with open_client(demo()) as demo_client:
            await happens(demo_client)
            answer = await demo_client("MigrateVm", **MOVE)
        said = answer.text if answer.failed else answer.notes
        assert answer.failed == (happens is not nothing), said
        lines.append(f"| {title} | {_kind(answer)} | {_plain(said)} |")
    _compare("A migration", "\n".join(["| when | answers | says |", "|---|---|---|", *lines]))


async def test_a_dead_cluster_takes_nothing_from_the_others(demo_client):
    whole = {tool: await demo_client(tool, **LAB[tool]) for tool in LAB if _of_all(tool)}
    await demo_client["home-lab"].emulated.node_down("pve")
    demo_client.refresh()
    for tool, before in whole.items():
        after = await demo_client(tool, **LAB[tool])
        assert not after.failed, after.text
        assert _of_prod(after) >= _of_prod(before), tool
        assert "home-lab" in after.notes + after.text


def test_every_tool_is_tried_with_faults():
    tried = {tool for broken in BROKEN for tool in broken.calls}
    assert tried == tools().keys() - {"GetQuerySchema"}  # which asks nobody


def _put(state: Any, storage: str, name: str, kind: str) -> None:
    volume = Volume(f"{storage}:{name}", kind, "raw", 2**20, int(state.now))
    state.storages[storage].put("pve", volume)


def _of_all(tool: str) -> bool:
    return tools()[tool].lists and LAB[tool].get("cluster_name", "") == "" and not LAB[tool]


def _of_prod(answer: Any) -> set[Any]:
    """The rows of prod, by what names them: their figures change from second to second."""
    names = ("upid", "volid", "vmid", "id", "name", "poolid", "storage", "node", "device")
    rows = [row for row in answer.data if row.get("cluster") == "prod"]
    return {tuple(row.get(name) for name in names) for row in rows}


def _kind(answer: Any) -> str:
    if answer.failed:
        return "an error"
    return "data and notes" if answer.notes else "data"


def _plain(said: str) -> str:
    """The text without what differs from run to run."""
    for pattern, text in (
        (r"127\.0\.0\.1:\d+", "pve.example:8006"),
        (r" \(received \d+ bytes, expected \d+\)", ""),
        (r"UPID:[^ ]+", "UPID:…"),
        (r"cursor=\S+", "cursor=…"),
        (r"\b\d+(\.\d+)? s\b", "9 s"),
        (r"Left out because empty in every row: [^.]*\.", ""),
        (r"Rows 1–\d+ of \d+[^\n]*", ""),
    ):
        said = re.sub(pattern, text, said)
    first = " ".join(line for line in said.split("\n") if line)
    return (first if len(first) < 240 else f"{first[:239]}…").replace("|", "\\|")


def _compare(title: str, table: str) -> None:
    mark, end = f"<!-- {title}: generated -->", f"<!-- end of {title} -->"
    page = PAGE.read_text() if PAGE.exists() else ""
    if os.environ.get("PVEMCP_RENEW_DOCS"):
        whole = f"## {title}\n\n{mark}\n{table}\n{end}\n"
        part = re.compile(rf"## {re.escape(title)}\n\n{mark}.*?{end}\n", re.DOTALL)
        renewed = part.sub(lambda _: whole, page) if part.search(page) else f"{page}\n{whole}"
        PAGE.write_text(renewed)
        return
    shown = page.partition(f"{mark}\n")[2].partition(f"\n{end}")[0]
    assert table == shown, "docs/reference/faults.md is not current; run make docs"
