"""Count the Proxmox requests of each tool at several sizes, and time a list of 10,000 guests.

    python benchmarks/tools.py             print the tables
    python benchmarks/tools.py --write     renew them in docs/contributors/performance.md
    python benchmarks/tools.py --check     fail where the counted requests differ from the page

The requests are exact and the same everywhere; the times are of one machine and read as ratios.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import process_time
from typing import Any

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from proxmox_client import ApiToken, Client, Tls
from proxmox_client.emulator import Clock, Emulator, Scenario
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.jobs import BackupJob, Pool
from pvemcp_server.access.budgets import Budget
from pvemcp_server.access.model import ANY, EVERYTHING, Caller, Grant, Resources, Role, Toolset
from pvemcp_server.approvals import PlannedCall
from pvemcp_server.audit import Event
from pvemcp_server.clusters import Cluster, Inventory, Notes
from pvemcp_server.pipeline.pipeline import Pipeline, Result
from pvemcp_server.settings import Values
from pvemcp_server.store.records import ApprovalRecord, ClusterKind
from pvemcp_server.toolkit.call import Decision
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.toolkit.undo import KeptUndo, Undo
from support.in_docs import renew_or_check

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "tests" / "server" / "tools"))
from examples import GENERATED, add_old_volumes, examples  # noqa: E402 - found by the line above

PAGE = REPOSITORY / "docs" / "contributors" / "performance.md"
SIZES = ((1, 10), (5, 100), (30, 1000), (30, 10_000))
PACE = 500.0  # how much faster than real time tasks run

LOCAL = {"node": "pve1", "storage": "local"}
SEVERAL_NODES = {"MigrateVm", "EvacuateNode"}
LOCKED = 104  # a guest that no other example is about

# Where the cost depends on the arguments: titles that follow or replace the example of the tool
VARIANTS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "ListVms": {
        "ListVms": {},
        "ListVms, Full, 50 a page": {"detail_level": "Full", "limit": 50},
    },
    "ListSnapshots": {"ListSnapshots": {"vmids": [100, 101, 102]}},
    "DetachDisk": {"DetachDisk": {"vmid": 100, "disk": "scsi0", "boot_disk": True}},
    "UnlockVm": {"UnlockVm": {"vmid": LOCKED}},
    "ListBackups": {"ListBackups": LOCAL},
    "DeleteIso": {
        "DeleteIso, on one node": {**LOCAL, "volid": "local:iso/old.iso"},
        "DeleteIso, shared": {"node": "pve1", "storage": "shared", "volid": "shared:iso/old.iso"},
    },
    "DeleteStorageContent": {
        "DeleteStorageContent, template": {**LOCAL, "volid": "local:vztmpl/old.tar.zst"}
    },
}
# One call of each tool or variant, writes as dry runs; the task of GetTask is started before.
CALLS: Mapping[str, Mapping[str, Any]] = {
    title: variant if tools()[name].reads else {**variant, "dry_run": True}
    for name, arguments in examples(GENERATED).items()
    for title, variant in VARIANTS.get(name, {name: arguments}).items()
}


class NoFreezes:
    """Stands in for the freeze switch, without a store."""

    async def of(self, _cluster: str) -> None:
        """Return that nothing is frozen."""

    async def refuse(self, _cluster: str) -> None:
        """Allow the write."""


class Unlimited:
    """Stands in for the budgets of keys, without a store."""

    async def of(self, _key_id: str, default: int) -> Budget:
        return Budget(default, 0, datetime.now(UTC))

    async def spend(self, _key_id: str, _default: int) -> None:
        """Allow the write."""


@dataclass
class Bench:
    """One emulated cluster behind the pipeline, and the requests that it received."""

    pve: Client
    inventory: Inventory
    requests: list[str] = field(default_factory=list)
    wants_progress: bool = False
    kept: KeptUndo | None = None
    client: str = "benchmark"
    freezes: NoFreezes = field(default_factory=NoFreezes)

    async def kinds(self) -> dict[str, ClusterKind]:
        return {"lab": ClusterKind.PVE}

    async def open(
        self, name: str, _identities: Mapping[str, int], scope: Resources, notes: Notes
    ) -> Cluster:
        return Cluster(name, "", self.pve, "bench", self.inventory, scope, notes)

    async def current(self) -> Values:
        return Values(inside_guests=True)

    async def progress(self, done: float, total: float | None, message: str) -> None:
        """Discard the report."""

    async def ask(self, _question: str, _beside: str = "", _digest: str = "") -> Decision:
        return Decision.YES

    async def decision(self, _event: Event) -> None:
        """Discard the event."""

    async def call(self, _event: Event) -> None:
        """Discard the event."""

    async def intent(self, _event: Event, _call_id: str) -> str:
        return ""

    async def outcome(self, _call_id: str, _event: Event) -> None:
        """Discard the event."""

    async def others(self, _planned: PlannedCall) -> list[ApprovalRecord]:
        return []

    async def keep(self, _planned: PlannedCall) -> None:
        """Forget the plan that a dry run has shown."""

    async def require_same(self, _planned: PlannedCall) -> None:
        """Allow the write, whatever a dry run has shown."""

    async def refused(self, event: Event) -> None:
        raise RuntimeError(f"refused: {event.reason}")

    async def add(
        self, _key_id: str, cluster: str, done: str, _vmids: Collection[int], undo: Undo | None
    ) -> None:
        if undo is not None:
            self.kept = KeptUndo(1, cluster, done, undo)

    async def last(self, *_of: object) -> KeptUndo | None:
        return self.kept

    async def run(self, tool: str, arguments: Mapping[str, Any]) -> Result:
        inside = {"programs": frozenset({"echo"}), "files": frozenset({"/etc/hostname"})}
        role = Role(1, "bench", "", (Grant(frozenset({ANY}), resources=EVERYTHING, **inside),))
        pipeline = Pipeline(tools(), self, self, self, self, self, self, Unlimited())  # type: ignore[arg-type]
        caller = Caller("k", "bench", role, toolsets=frozenset(Toolset))
        result = await pipeline.call(caller, tool, arguments, self)  # type: ignore[arg-type]
        if result.cause:
            raise RuntimeError(f"{tool}: {result.blocks[0]}")
        return result


def add_missing_parts(state: ClusterState) -> None:
    """Add what a generated cluster lacks: a pool, a backup job, a lock, volumes to delete."""
    state.guests[LOCKED].config["lock"] = "backup"
    state.pools["office"] = Pool("office", vmids={100})
    far = datetime.fromtimestamp(state.now, UTC) + timedelta(hours=12)  # a run would have a log
    state.backup_jobs["nightly"] = BackupJob(
        "nightly", f"{far:%H:%M}", {"all": 1, "storage": "shared"}
    )
    add_old_volumes(state, GENERATED)
    add_old_volumes(state, replace(GENERATED, storage="shared"))


@asynccontextmanager
async def opened(nodes: int, guests: int) -> AsyncIterator[Bench]:
    """Start a generated cluster and yield a bench on it."""
    scenario = Scenario.cluster("lab", nodes=nodes, guests=guests, seed=7)
    async with Emulator(scenario, clock=Clock(PACE)) as emulator:
        emulated = emulator["lab"]
        add_missing_parts(emulated.state)
        auth, tls = ApiToken(*emulated.token), Tls(ca_pem=emulated.ca_pem)
        async with Client(emulated.hosts, auth, tls=tls, name="lab") as pve:
            bench = Bench(pve, Inventory(pve, lambda: 60.0))
            send = pve.transport.request

            async def counted(method: str, path: str, parameters: Mapping[str, Any]) -> Any:
                bench.requests.append(f"{method} {path}")
                return await send(method, path, parameters)

            pve.transport.request = counted  # type: ignore[method-assign]  # only counts
            try:
                yield bench
            finally:
                await bench.inventory.aclose()


async def calls_at(nodes: int, guests: int) -> dict[str, int | str]:
    """Count the Proxmox requests of each call, beginning with an empty cache."""
    counted: dict[str, int | str] = {}
    async with opened(nodes, guests) as bench:
        upid = await create_snapshot(bench)
        for title, arguments in CALLS.items():
            tool = title.partition(",")[0]
            if nodes == 1 and tool in SEVERAL_NODES:
                counted[title] = "–"
                continue
            bench.inventory.invalidate()
            bench.requests.clear()
            await bench.run(tool, {"upid": upid} if tool == "GetTask" else arguments)
            counted[title] = len(bench.requests)
    return counted


async def create_snapshot(bench: Bench) -> str:
    """Create the snapshot that later calls name, and return the UPID of its task."""
    snapshot = {"vmid": GENERATED.vmid, "snapshot_name": GENERATED.snapshot}
    result = await bench.run("CreateVmSnapshot", {**snapshot, "wait": True, "format": "JsonNormal"})
    upid: str = json.loads(result.blocks[0])["data"]["upid"]
    return upid


def calls_table() -> str:
    """Format the counted requests as a Markdown table."""
    columns = [asyncio.run(calls_at(*size)) for size in SIZES]
    heads = [f"{n} node{'s' * (n > 1)}, {g:,} guests" for n, g in SIZES]
    lines = [f"| tool | {' | '.join(heads)} |", f"|---|{'--:|' * len(heads)}"]
    lines += [
        f"| {title} | {' | '.join(str(column[title]) for column in columns)} |" for title in CALLS
    ]
    return "\n".join(lines)


async def times() -> list[tuple[str, float, int]]:
    """Measure CPU milliseconds and bytes of the first page of long lists, with a warm cache."""
    cases = {
        "ListVms, first page of 100": ("ListVms", {"limit": 100}),
        "ListVms, first page as it comes (400 rows)": ("ListVms", {}),
        "ListVms running, first page of 100": ("ListVms", {"status": "running", "limit": 100}),
        "GetClusterStatus": ("GetClusterStatus", {}),
    }
    rows = []
    async with opened(30, 10_000) as bench:
        for title, (tool, arguments) in cases.items():
            await bench.run(tool, arguments)
            began, rounds = process_time(), 10
            for _ in range(rounds):
                result = await bench.run(tool, arguments)
            spent = (process_time() - began) / rounds * 1000
            rows.append((title, spent, len(result.blocks[0].encode())))
    return rows


def times_table() -> str:
    """Format the measured times as a Markdown table."""
    lines = ["| with 10,000 guests on 30 nodes, warm | CPU ms | bytes |", "|---|--:|--:|"]
    lines += [
        f"| {title} | {spent:.1f} | {size:,} |" for title, spent, size in asyncio.run(times())
    ]
    return "\n".join(lines)


def main() -> None:
    """Count, then print, write or check; times are written, never checked."""
    arguments = sys.argv[1:]
    renew_or_check(PAGE, "calls", calls_table(), arguments)
    if "--check" not in arguments:
        renew_or_check(PAGE, "times", times_table(), arguments)


if __name__ == "__main__":
    main()
