"""The seventeen prompts of the reference, as the calls an assistant makes for them.

Each is answered within its number of calls, in all four formats; the answers are checked against
what the emulated clusters hold.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxmox_client.emulator.tasks.content import checksum_of
from pvemcp_formats import Format, decode, decode_document
from pvemcp_server.toolkit.registry import tools

pytestmark = pytest.mark.anyio

NETINST = "https://93.184.216.34/debian-12.12.0-amd64-netinst.iso"


@dataclass
class Assistant:
    """Makes calls in one format and counts them."""

    demo_client: Any
    format: Format
    calls: list[str] = field(default_factory=list)
    notes: str = ""

    async def rows(self, tool: str, **arguments: Any) -> list[dict[str, Any]]:
        """Return the rows of an answer; a single document is one row."""
        self.calls.append(tool)
        answer = await self.demo_client(tool, **arguments, format=self.format.value)
        assert not answer.failed, answer.text
        self.notes = answer.notes
        read = decode if tools()[tool].lists else _decode_one
        return read(answer.text, self.format)

    @property
    def prod(self) -> Any:
        return self.demo_client["prod"].emulated.state


def _decode_one(text: str, notation: Format) -> list[dict[str, Any]]:
    """Decode a single answer; in Toon and Csv it is JSON where that takes fewer tokens."""
    is_json = text.startswith("{")
    return [decode_document(text, Format.JSON_COMPACT if is_json else notation)]


Scenario = Callable[[Assistant], Awaitable[None]]
SCENARIOS: list[tuple[int, str, Scenario]] = []


def prompt(most_calls: int, text: str) -> Callable[[Scenario], Scenario]:
    """Register the scenario of a prompt, with the number of calls that it may take."""

    def declare(scenario: Scenario) -> Scenario:
        SCENARIOS.append((most_calls, text, scenario))
        return scenario

    return declare


def condition(name: str, operator: str, *value: Any) -> dict[str, Any]:
    return {"field": name, "operator": operator, "value": list(value)}


@prompt(1, "Which VMs in cluster home-lab are running and using more than 70% CPU?")
async def busy_guests_of_home_lab(ask: Assistant) -> None:
    rows = await ask.rows(
        "ExecuteQuery",
        cluster_name="home-lab",
        query={
            "from": "guests",
            "select": ["vmid", "name", "cpu_usage_percentage"],
            "where": {
                "logic": "and",
                "conditions": [
                    condition("status", "=", "running"),
                    condition("cpu_usage_percentage", ">", 70),
                ],
            },
        },
    )
    assert {int(row["vmid"]) for row in rows} == {103, 106}


@prompt(1, "Show me the snapshots older than 30 days across all clusters.")
async def old_snapshots_everywhere(ask: Assistant) -> None:
    rows = await ask.rows(
        "ExecuteQuery",
        query={
            "from": "snapshots",
            "select": ["cluster", "vmid", "name", "date"],
            "where": {"logic": "and", "conditions": [condition("date", "<", "-30d")]},
        },
    )
    month_ago = datetime.now(UTC) - timedelta(days=30)
    expected = {
        (name, guest.vmid, snapshot.name)
        for name in ("home-lab", "prod")
        for guest in ask.demo_client[name].emulated.state.guests.values()
        if ask.demo_client[name].emulated.state.nodes[guest.node].online
        for snapshot in guest.snapshots.values()
        if snapshot.time < month_ago.timestamp()
    }
    assert {(row["cluster"], int(row["vmid"]), row["name"]) for row in rows} == expected


@prompt(2, "Summarize the health of cluster prod: nodes, VM status counts, free storage per pool.")
async def health_of_prod(ask: Assistant) -> None:
    (health,) = await ask.rows("GetClusterStatus", cluster_name="prod")
    storages = await ask.rows("ListStorage", cluster_name="prod", detail_level="Full")
    assert (int(health["nodes_online"]), int(health["nodes_offline"])) == (4, 1)
    totals = {row["storage"]: row["disk_total"] for row in storages if row["disk_total"]}
    assert int(totals["ceph-vm"]) == ask.prod.storages["ceph-vm"].total


@prompt(1, "List the last 20 failed tasks across the cluster, with user and duration.")
async def the_last_failed_tasks(ask: Assistant) -> None:
    rows = await ask.rows("ListTasks", cluster_name="prod", status="error", limit=20)
    assert len(rows) == 20
    starts = [str(row["start_time"]) for row in rows]
    assert starts == sorted(starts, reverse=True)
    for row in rows:
        task = ask.prod.tasks[row["upid"]]
        assert task.outcome == row["status"]
        assert (row["user"], int(row["duration"])) == (task.user, task.ended - task.started)


@prompt(1, "For node pve01, show the CPU and memory pressure (PSI) over the last 24 hours.")
async def pressure_of_a_node(ask: Assistant) -> None:
    rows = await ask.rows(
        "ListNodeRrdData",
        cluster_name="prod",
        nodes=["pve01"],
        time_frame="Day",
        metrics=["Pressure"],
    )
    assert [row["metric"] for row in rows][:2] == ["pressure_cpu_some", "pressure_io_some"]
    for row in rows:
        assert 0 < float(row["average"]) < float(row["p95"]) < float(row["maximum"])
        age = ask.prod.now - datetime.fromisoformat(str(row["maximum_time"])).timestamp()
        assert 0 <= age <= timedelta(hours=25).total_seconds()


@prompt(1, "List all backups for VM 101 and show the most recent one.")
async def the_most_recent_backup(ask: Assistant) -> None:
    rows = await ask.rows("ListBackups", cluster_name="prod", vmid=101)
    held = [
        volume
        for storage in ask.prod.storages.values()
        for volume in storage.everything()
        if volume.content == "backup" and volume.vmid == 101
    ]
    assert len(rows) == len(held)
    assert rows[0]["volid"] == max(held, key=lambda volume: volume.ctime).volid


@prompt(1, "On node pve01, storage local, find ISO images older than 6 months.")
async def old_iso_images(ask: Assistant) -> None:
    rows = await ask.rows("ListIsos", cluster_name="prod", node="pve01", storage="local")
    half_year_ago = datetime.now(UTC) - timedelta(days=182)
    old = {
        row["volid"] for row in rows if datetime.fromisoformat(str(row["creation"])) < half_year_ago
    }
    expected = {
        volume.volid
        for volume in ask.prod.storages["local"].volumes("pve01").values()
        if volume.content == "iso" and volume.ctime < half_year_ago.timestamp()
    }
    assert old == expected
    assert expected


@prompt(2, "Download the latest Debian 12 netinst ISO to storage local on node pve01.")
async def download_debian(ask: Assistant) -> None:
    (started,) = await ask.rows(
        "DownloadIso",
        cluster_name="prod",
        node="pve01",
        storage="local",
        source=NETINST,
        filename="debian-12.12.0-amd64-netinst.iso",
        checksum=checksum_of(NETINST, "sha256"),
    )
    (task,) = await ask.rows("GetTask", cluster_name="prod", upid=started["upid"], wait_seconds=60)
    assert task["exit_status"] == "OK"
    assert started["volid"] in ask.prod.storages["local"].volumes("pve01")


@prompt(1, "Show me all backup jobs and highlight any whose last run failed.")
async def failed_backup_jobs(ask: Assistant) -> None:
    rows = await ask.rows("ListBackupJobs", cluster_name="prod")
    assert {row["id"] for row in rows} == set(ask.prod.backup_jobs)
    failed = {row["id"] for row in rows if row["last_run_ok"] in (False, "false")}
    assert failed == {"backup-archive"}


@prompt(1, "Create a snapshot of VM 200 called pre-upgrade, including RAM.")
async def snapshot_with_ram(ask: Assistant) -> None:
    await ask.rows(
        "CreateVmSnapshot",
        cluster_name="prod",
        vmid=200,
        snapshot_name="pre-upgrade",
        description="before kernel update",
        include_vm_state=True,
        wait=True,
    )
    taken = ask.prod.guests[200].snapshots["pre-upgrade"]
    assert (taken.description, taken.with_ram) == ("before kernel update", True)


@prompt(1, "Migrate VM 105 from pve01 to pve02, live migration if running.")
async def migrate_live(ask: Assistant) -> None:
    await ask.rows(
        "MigrateVm", cluster_name="prod", vmid=105, target_node="pve02", online=True, wait=True
    )
    assert (ask.prod.guests[105].node, ask.prod.guests[105].running) == ("pve02", True)


@prompt(1, "Run a backup of VM 200 on storage pbs-main with zstd compression.")
async def backup_with_zstd(ask: Assistant) -> None:
    before = sum(volume.vmid == 200 for volume in ask.prod.storages["pbs-main"].everything())
    await ask.rows(
        "BackupVm", cluster_name="prod", vmid=200, storage="pbs-main", compress="zstd", wait=True
    )
    after = sum(volume.vmid == 200 for volume in ask.prod.storages["pbs-main"].everything())
    assert after == before + 1


@prompt(1, "Reset VM 150 (it's hung).")
async def reset_a_hung_machine(ask: Assistant) -> None:
    (row,) = await ask.rows("ChangeVmState", cluster_name="prod", vmid=150, action="Reset")
    assert ask.prod.tasks[row["upid"]].type == "qmreset"


@prompt(1, "What tables can I query against this cluster?")
async def tables_to_query(ask: Assistant) -> None:
    (schema,) = await ask.rows("GetQuerySchema")
    assert "guests" in str(schema)
    assert "backup_jobs" in str(schema)


@prompt(1, "Group all guests by node and count how many are running vs stopped.")
async def guests_by_node(ask: Assistant) -> None:
    rows = await ask.rows(
        "ExecuteQuery",
        cluster_name="prod",
        query={
            "from": "guests",
            "select": ["node", "status", "COUNT(*) as total"],
            "groupBy": ["node", "status"],
        },
    )
    expected = Counter(
        (guest.node, guest.status if ask.prod.nodes[guest.node].online else "unknown")
        for guest in ask.prod.guests.values()
    )
    assert {(row["node"], row["status"]): int(row["total"]) for row in rows} == expected


@prompt(1, "Find the top 5 VMs by memory usage, with their node and OS type.")
async def biggest_by_memory(ask: Assistant) -> None:
    rows = await ask.rows(
        "ExecuteQuery",
        cluster_name="prod",
        query={
            "from": "guests",
            "select": ["vmid", "name", "node", "memory_usage", "qemu_config.os_type"],
            "where": {"logic": "and", "conditions": [condition("type", "=", "qemu")]},
            "orderBy": [{"field": "memory_usage", "direction": "desc"}],
            "limit": 5,
        },
    )
    used = [int(row["memory_usage"]) for row in rows]
    assert (len(rows), used) == (5, sorted(used, reverse=True))
    os_type = next(name for name in rows[0] if "os_type" in name)
    for row in rows:
        assert row[os_type] == ask.prod.guests[int(row["vmid"])].config["ostype"]


@prompt(1, "List storages with more than 80% usage.")
async def full_storages(ask: Assistant) -> None:
    rows = await ask.rows(
        "ExecuteQuery",
        query={
            "from": "storages",
            "select": ["cluster", "storage", "node", "usage_percentage"],
            "where": {"logic": "and", "conditions": [condition("usage_percentage", ">", 80)]},
        },
    )
    assert ("home-lab", "local") in {(row["cluster"], row["storage"]) for row in rows}
    for row in rows:
        state = ask.demo_client[row["cluster"]].emulated.state
        storage = state.storages[row["storage"]]
        assert storage.used(row["node"]) / storage.total > 0.8


@pytest.mark.parametrize("notation", list(Format))
@pytest.mark.parametrize(
    ("most_calls", "scenario"),
    [pytest.param(calls, scenario, id=text) for calls, text, scenario in SCENARIOS],
)
async def test_a_prompt_is_answered_within_its_calls(demo_client, most_calls, scenario, notation):
    assistant = Assistant(demo_client, notation)
    await scenario(assistant)
    assert len(assistant.calls) <= most_calls


def test_all_seventeen_prompts_are_here():
    assert len(SCENARIOS) == 17
