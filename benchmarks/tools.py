"""Counts the Proxmox calls of each tool at several sizes, and times a list of 10,000 guests.

    python benchmarks/tools.py             print the tables
    python benchmarks/tools.py --write     renew them in docs/contributors/performance.md
    python benchmarks/tools.py --check     fail where the counted calls differ from the page

The calls are exact and the same everywhere; the times are those of one machine and read as ratios.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import process_time
from typing import Any

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from proxmox_client import ApiToken, Client, Tls
from proxmox_client.emulator import Clock, Emulator, Scenario
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.jobs import BackupJob, Pool
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import ANY, EVERYTHING, Caller, Grant, Resources, Role
from pvemcp_server.audit import Event
from pvemcp_server.clusters import Cluster, Inventory, Notes
from pvemcp_server.pipeline.pipeline import Pipeline, Result
from pvemcp_server.settings import Values
from pvemcp_server.toolkit.registry import tools
from support.in_docs import renew_or_check

PAGE = Path(__file__).parents[1] / "docs" / "contributors" / "performance.md"
SIZES = ((1, 10), (5, 100), (30, 1000), (30, 10_000))
PACE = 500.0  # how much faster than life tasks run

LOCAL = {"node": "pve1", "storage": "local"}
SHARED = {"node": "pve1", "storage": "shared"}
SNAPSHOT = {"vmid": 100, "snapshot_name": "before"}
SEVERAL = {"MigrateVm"}  # tools that take more than one node

# One call of each tool, after a comma how or of what; where a list is long, one page of it.
CALLS: Mapping[str, dict[str, Any]] = {
    "ListClusters": {},
    "GetClusterStatus": {},
    "GetClusterOptions": {},
    "ListVms": {},
    "ListVms, Full, 50 a page": {"detail_level": "Full", "limit": 50},
    "ListSnapshots": {"vmids": [100, 101, 102]},
    "GetVmConfig": {"vmid": 100},
    "GetVmStatus": {"vmid": 100},
    "ListVmRrdData": {"vmids": [100, 101]},
    "ChangeVmState": {"vmid": 100, "action": "Reset", "dry_run": True},
    "CreateVmSnapshot": {"vmid": 100, "snapshot_name": "new-one", "dry_run": True},
    "DeleteVmSnapshot": {**SNAPSHOT, "dry_run": True},
    "RollbackVmSnapshot": {**SNAPSHOT, "dry_run": True},
    "MigrateVm": {"vmid": 100, "target_node": "pve2", "online": True, "dry_run": True},
    "BackupVm": {"vmid": 100, "dry_run": True},
    "ListNodes": {},
    "GetNodeStatus": {"node": "pve1"},
    "ListReplications": {},
    "ListNodeRrdData": {"time_frame": "Hour"},
    "ListTasks": {},
    "GetTask": {},  # of the task that `prepared` started
    "ListNodeDisks": {},
    "ListStorage": {},
    "ListPools": {},
    "ListBackups": LOCAL,
    "ListStorageContent": LOCAL,
    "ListIsos": LOCAL,
    "ListTemplates": LOCAL,
    "ListBackupJobs": {},
    "DownloadIso": {**LOCAL, "url": "https://cdimage.example.org/new.iso", "filename": "new.iso",
                    "dry_run": True},
    "DeleteBackup": {**LOCAL, "volid": "local:backup/old.vma.zst", "dry_run": True},
    "DeleteIso, on one node": {**LOCAL, "volid": "local:iso/old.iso", "dry_run": True},
    "DeleteIso, shared": {**SHARED, "volid": "shared:iso/old.iso", "dry_run": True},
    "DeleteStorageContent, template": {**LOCAL, "volid": "local:vztmpl/old.tar.zst",
                                       "dry_run": True},
    "ExplainAccess": {},
    "GetQuerySchema": {},
    "ExecuteQuery": {"query": {"from": "guests", "select": ["node", "COUNT(*) as total"],
                               "groupBy": ["node"]}},
}  # fmt: skip


@dataclass
class Bench:
    """One emulated cluster behind the pipeline, with what it was asked."""

    pve: Client
    inventory: Inventory
    asked: list[str] = field(default_factory=list)
    wants_progress: bool = False
    client: str = "benchmark"

    async def names(self) -> list[str]:
        return ["lab"]

    async def open(self, name: str, _caller: Caller, scope: Resources, notes: Notes) -> Cluster:
        return Cluster(name, "", self.pve, "bench", self.inventory, scope, notes)

    async def current(self) -> Values:
        return Values()

    async def progress(self, done: float, total: float | None, message: str) -> None:
        """Nobody listens."""

    async def call(self, _event: Event) -> None:
        """Nothing is kept."""

    async def intent(self, _event: Event) -> str:
        return ""

    async def outcome(self, _call_id: str, _event: Event) -> None:
        """Nothing is kept."""

    async def refused(self, event: Event) -> None:
        raise RuntimeError(f"refused: {event.reason}")

    async def run(self, tool: str, arguments: Mapping[str, Any]) -> Result:
        role = Role(1, "bench", "", (Grant(frozenset({ANY}), resources=EVERYTHING),))
        pipeline = Pipeline(tools(), self, self, self)  # type: ignore[arg-type]
        result = await pipeline.call(Caller("k", "bench", role), tool, arguments, self)  # type: ignore[arg-type]
        if result.failed:
            raise RuntimeError(f"{tool}: {result.blocks[0]}")
        return result


def stocked(state: ClusterState) -> None:
    """Add what a generated cluster lacks: a pool, a backup job, and something to delete."""
    state.pools["office"] = Pool("office", vmids={100})
    far = datetime.fromtimestamp(state.now, UTC) + timedelta(hours=12)  # a run would have a log
    state.backup_jobs["nightly"] = BackupJob(
        "nightly", f"{far:%H:%M}", {"all": 1, "storage": "shared"}
    )
    for place, name, kind in (
        ("local", "backup/old.vma.zst", "backup"),
        ("local", "iso/old.iso", "iso"),
        ("local", "vztmpl/old.tar.zst", "vztmpl"),
        ("shared", "iso/old.iso", "iso"),
    ):
        volume = Volume(f"{place}:{name}", kind, "raw", 2**30, int(state.now))
        state.storages[place].put("pve1", volume)


@asynccontextmanager
async def opened(nodes: int, guests: int) -> AsyncIterator[Bench]:
    scenario = Scenario.cluster("lab", nodes=nodes, guests=guests, seed=7)
    async with Emulator(scenario, clock=Clock(PACE)) as emulator:
        emulated = emulator["lab"]
        stocked(emulated.state)
        auth, tls = ApiToken(*emulated.token), Tls(ca_pem=emulated.ca_pem)
        async with Client(emulated.hosts, auth, tls=tls, name="lab") as pve:
            bench = Bench(pve, Inventory(pve, lambda: 60.0))
            send = pve.transport.request

            async def counted(method: str, path: str, parameters: Mapping[str, Any]) -> Any:
                bench.asked.append(f"{method} {path}")
                return await send(method, path, parameters)

            pve.transport.request = counted  # type: ignore[method-assign]  # only counts
            try:
                yield bench
            finally:
                await bench.inventory.aclose()


async def calls_at(nodes: int, guests: int) -> dict[str, int | str]:
    """How many Proxmox calls each tool makes, beginning with nothing known."""
    counted: dict[str, int | str] = {}
    async with opened(nodes, guests) as bench:
        upid = await prepared(bench)
        for title, arguments in CALLS.items():
            tool = title.partition(",")[0]
            if nodes == 1 and tool in SEVERAL:
                counted[title] = "–"
                continue
            bench.inventory.invalidate()
            bench.asked.clear()
            await bench.run(tool, {"upid": upid} if tool == "GetTask" else arguments)
            counted[title] = len(bench.asked)
    return counted


async def prepared(bench: Bench) -> str:
    """Make the snapshot that is deleted later, and give the number of its task."""
    result = await bench.run("CreateVmSnapshot", {**SNAPSHOT, "wait": True, "format": "JsonNormal"})
    upid: str = json.loads(result.blocks[0])["data"]["upid"]
    return upid


def calls_table() -> str:
    """The counted calls as a Markdown table."""
    columns = [asyncio.run(calls_at(*size)) for size in SIZES]
    heads = [f"{n} node{'s' * (n > 1)}, {g:,} guests" for n, g in SIZES]
    lines = [f"| tool | {' | '.join(heads)} |", f"|---|{'--:|' * len(heads)}"]
    lines += [
        f"| {title} | {' | '.join(str(column[title]) for column in columns)} |" for title in CALLS
    ]
    return "\n".join(lines)


async def times() -> list[tuple[str, float, int]]:
    """CPU milliseconds and bytes of the first page of long lists, with everything known."""
    cases = {
        "ListVms, first page of 100": ("ListVms", {"limit": 100}),
        "ListVms, first page as it comes (400 rows)": ("ListVms", {}),
        "ListVms running, first page of 100": ("ListVms", {"status": "running", "limit": 100}),
        "GetClusterStatus": ("GetClusterStatus", {}),
    }
    found = []
    async with opened(30, 10_000) as bench:
        for title, (tool, arguments) in cases.items():
            await bench.run(tool, arguments)
            began, rounds = process_time(), 10
            for _ in range(rounds):
                result = await bench.run(tool, arguments)
            spent = (process_time() - began) / rounds * 1000
            found.append((title, spent, len(result.blocks[0].encode())))
    return found


def times_table() -> str:
    lines = ["| with 10,000 guests on 30 nodes, warm | CPU ms | bytes |", "|---|--:|--:|"]
    lines += [
        f"| {title} | {spent:.1f} | {size:,} |" for title, spent, size in asyncio.run(times())
    ]
    return "\n".join(lines)


def main() -> None:
    """Count, then print, write or check; times are only written, never checked."""
    arguments = sys.argv[1:]
    renew_or_check(PAGE, "calls", calls_table(), arguments)
    if "--check" not in arguments:
        renew_or_check(PAGE, "times", times_table(), arguments)


if __name__ == "__main__":
    main()
