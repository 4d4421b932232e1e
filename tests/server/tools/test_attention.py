"""GetAttention: each check with and without something to find, and what could not be looked at."""

import json
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest

from proxmox_client.emulator import ManualClock, Scenario, demo
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import Resources
from pvemcp_server.pipeline.arguments import read_arguments
from pvemcp_server.query.binder import bind
from pvemcp_server.query.catalog import Catalog
from pvemcp_server.query.parser import parse
from pvemcp_server.settings import Values, declared_settings
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables import tables
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.tools.attention import evidence
from pvemcp_server.tools.attention.model import ON_REQUEST, Item, Severity, Topic, checks

from .altered import RESOURCES, altered, rows_changed, without_statistics
from .tool_client import ToolClient, open_tool_client

pytestmark = pytest.mark.anyio

CHECKS = {each.name: each for each in checks(Topic)}
DAY = 86_400
NOW = int(time.time())


@pytest.fixture(scope="module")
async def _lab(anyio_backend):
    """Yield a client on a cluster of three nodes on which nothing needs attention."""
    async with open_tool_client(
        Scenario.cluster("lab", nodes=3, guests=8), ManualClock()
    ) as client:
        state = client["lab"].emulated.state
        for vmid in state.guests:
            volid = f"shared:backup/vzdump-qemu-{vmid}-2026_11_30-01_00_00.vma.zst"
            volume = Volume(volid, "backup", "vma.zst", 2**20, int(state.now) - DAY, vmid)
            state.storages["shared"].put("pve1", volume)
        yield client


@pytest.fixture
def lab(_lab):
    return ToolClient(_lab.clusters)


def found(answer):
    assert not answer.failed, answer.text
    return [row["finding"] for row in answer.data]


async def run_next(client, row):
    """Run the next call of a finding; return its rows, or its document."""
    tool, _, arguments = row["next"].partition(" ")
    answer = await client(tool, **json.loads(arguments))
    assert not answer.failed, (row["next"], answer.text)
    return answer.data


async def test_nothing_is_found_where_nothing_is_wrong(lab):
    answer = await lab("GetAttention", areas=list(Topic))
    assert answer.data == []
    assert answer.notes == f"Nothing found in what could be looked at: {', '.join(Topic)}."


# What the demo has of its own, and how many by the state of the emulator


def demo_counts(states):
    now = states["prod"].now
    nodes = [node for state in states.values() for node in state.nodes.values()]
    online = [node for node in nodes if node.online]
    guests = [
        guest
        for state in states.values()
        for guest in state.guests.values()
        if state.nodes[guest.node].online
    ]
    snapshots = [snapshot for guest in guests for snapshot in guest.snapshots.values()]
    tasks = [task for state in states.values() for task in state.tasks.values()]
    jobs = [job for state in states.values() for job in state.replications.values()]
    return {
        "offline_nodes": len(nodes) - len(online),
        "failing_disks": sum(disk.health == "FAILED" for node in online for disk in node.disks),
        "pending_updates": sum(len(node.updates) for node in online),
        "nodes_to_reboot": sum(bool(node.newest_kernel) for node in online),
        "failing_replications": sum(job.fail_count > 0 for job in jobs),
        "old_snapshots": sum(each.time < now - 30 * DAY for each in snapshots),
        "incomplete_snapshots": sum(bool(each.state) for each in snapshots),
        "failed_tasks": sum(
            task.started >= now - DAY and not task.running and not task.ok
            for task in tasks
        ),
        "degraded_pools": 1,
        "full_storages": 2,
        "failed_backup_jobs": 1,
        "unhealthy_ceph": 1,
        "disks_with_errors": 1,
        "silent_agents": 3,
    }  # fmt: skip


DEMO = (
    *("offline_nodes", "failing_disks", "pending_updates", "nodes_to_reboot", "old_snapshots"),
    *("failing_replications", "incomplete_snapshots", "failed_tasks", "degraded_pools"),
    *("full_storages", "failed_backup_jobs", "unhealthy_ceph", "disks_with_errors"),
    "silent_agents",
)


async def test_the_demo_has_what_the_emulator_holds(tool_client):
    answer = await tool_client("GetAttention", areas=list(Topic))
    states = {name: tool_client[name].emulated.state for name in ("home-lab", "prod")}
    expected = demo_counts(states)
    words = {name: CHECKS[name].words(number) for name, number in expected.items()}
    texts = found(answer)
    assert {name: w for name, w in words.items() if not any(t.startswith(w) for t in texts)} == {}
    assert len(texts) == len(words)
    severities = [Severity[row["severity"].upper()] for row in answer.data]
    assert severities == sorted(severities)


async def test_each_next_call_of_the_demo_shows_the_things_found(tool_client):
    answer = await tool_client("GetAttention", areas=list(Topic))
    for row in answer.data:
        rows = await run_next(tool_client, row)
        number = int(row["finding"].split()[0])
        if isinstance(rows, list) and row["area"] != "Updates":
            assert len(rows) >= min(number, 50), row


# What the demo lacks: the paths whose answers are changed, and the start of the finding


def body(data):
    return lambda response: response._replace(status=200, body=json.dumps({"data": data}).encode())


def each_row(match, **values):
    """Return a change of the rows that `match`; a function as a value gets the row."""

    def change(row):
        if not match.items() <= row.items():
            return row
        return row | {k: v(row) if callable(v) else v for k, v in values.items()}

    return rows_changed(change)


def member(**values):
    def change(response):
        data = json.loads(response.body)["data"]
        return body(data | {k: v(data) if callable(v) else v for k, v in values.items()})(response)

    return change


PVE1 = {"type": "node", "node": "pve1"}
REPLICATION = {"id": "100-0", "guest": 100, "jobnum": 0, "target": "pve2", "type": "local"}
GROWTH = [
    {"time": NOW - 30 * DAY + n * DAY, "used": 1e11 + n * 1e10, "total": 5e11} for n in range(31)
]
BACKUPS = "/nodes/pve1/storage/shared/content"
PBS = {RESOURCES: each_row({"type": "storage", "storage": "shared"}, plugintype="pbs")}

PLANTS = {
    "silent_clusters": (
        {"/version": lambda response: response._replace(status=503, body=b"")},
        "1 cluster not reachable: lab",
    ),
    "clusters_without_quorum": (
        {"/cluster/status": each_row({"type": "cluster"}, quorate=0)},
        "1 cluster without quorum: lab",
    ),
    "nodes_without_statistics": (
        {RESOURCES: without_statistics("pve3")},
        "1 node without statistics: pve3",
    ),
    "full_nodes": (
        {RESOURCES: each_row(PVE1, mem=lambda row: int(row["maxmem"] * 0.95))},
        "1 node short of memory or root disk: pve1 memory 95%",
    ),
    "services_down": (
        {
            "/nodes/pve1/services": each_row({"service": "cron"}, **{"active-state": "failed"}),
            "/nodes/pve2/services": each_row({"service": "pveproxy"}, state="dead"),
        },
        "2 services down: pve1 cron running, pve2 pveproxy dead",
    ),
    "skewed_clocks": (
        {"/nodes/pve2/time": member(time=lambda data: data["time"] + 60)},
        "1 node with another time: pve2 +60 s",
    ),
    "failed_ha_resources": (
        {
            "/cluster/ha/resources": body([{"sid": "vm:100", "type": "vm", "state": "started"}]),
            "/cluster/ha/status/current": body(
                [{"id": "service:vm:100", "type": "service", "sid": "vm:100", "state": "error"}]
            ),
        },
        "1 HA guest not in service: vm:100 error",
    ),
    "ending_certificates": (
        {"/nodes/pve1/certificates/info": each_row({}, notafter=NOW + 5 * DAY)},
        "1 certificate ends: pve1 pve-ssl.pem",
    ),
    "ending_subscriptions": (
        {"/nodes/pve1/subscription": member(status="expired")},
        "1 subscription ends or is not valid: pve1 expired",
    ),
    "different_versions": (
        {"/nodes/pve1/status": member(pveversion="pve-manager/9.1.1/0123456789abcdef")},
        "3 nodes of different versions: pve1 9.1.1, pve2 9.2.11 …",
    ),
    "unavailable_storages": (
        {
            RESOURCES: each_row(
                {"type": "storage", "storage": "local", "node": "pve1"}, status="unknown"
            )
        },
        "1 storage not available: pve1 local",
    ),
    "filling_storages": (
        {"/nodes/pve1/storage/local/rrddata": body(GROWTH)},
        "1 storage full soon: pve1 local full on",
    ),
    "overcommitted_memory": (
        {RESOURCES: each_row({"type": "qemu", "node": "pve1"}, maxmem=2**38)},
        "1 node with memory overcommitted: pve1",
    ),
    "overcommitted_cpu": (
        {RESOURCES: each_row({"type": "qemu", "node": "pve2"}, maxcpu=512)},
        "1 node with CPU overcommitted: pve2",
    ),
    "no_room_for_a_lost_node": (
        {RESOURCES: each_row({"type": "node"}, mem=lambda row: int(row["maxmem"] * 0.8))},
        "1 cluster without room for the memory of a lost node: lab pve1 uses 205 GiB, the others",
    ),
    "guests_without_backup": (
        {BACKUPS: body([])},
        "8 guests without a backup: 100 web-100, 101 db-101 …",
    ),
    "guests_with_old_backups": (
        {BACKUPS: each_row({"vmid": 100}, ctime=NOW - 12 * DAY)},
        "1 guest without a recent backup: 100 web-100 12 d",
    ),
    "guests_without_verified_backup": (
        {
            **PBS,
            BACKUPS: each_row({"vmid": 101}, verification={"state": "ok", "upid": "UPID:x"}),
        },
        "7 guests without a recently verified backup: 100 web-100",
    ),
    "late_replications": (
        {
            "/cluster/replication": body([REPLICATION]),
            "/nodes/pve1/replication": body(
                [{**REPLICATION, "last_sync": 9, "last_try": 9, "next_sync": NOW - 3 * DAY}]
            ),
        },
        "1 replication behind: 100-0 due 3 d ago",
    ),
}


@contextmanager
def planted(client, changes):
    with ExitStack() as stack:
        for path, change in changes.items():
            stack.enter_context(altered(client["lab"], path, change))
        yield


@pytest.mark.parametrize("name", PLANTS)
async def test_a_check_finds_what_is_planted(lab, name):
    changes, text = PLANTS[name]
    with planted(lab, changes):
        answer = await lab("GetAttention", areas=[CHECKS[name].topic])
        assert [each for each in found(answer) if each.startswith(text)], answer.text
        row = next(row for row in answer.data if row["finding"].startswith(text))
        assert row["area"] == CHECKS[name].topic
        rows = await run_next(lab, row)
    if isinstance(rows, list) and name != "silent_clusters":
        assert len(rows) >= int(row["finding"].split()[0])


def test_every_check_is_tested():
    of_servers = {n for n, each in CHECKS.items() if not each.is_about(ClusterKind.PVE)}
    assert {*DEMO, *PLANTS, *of_servers} == CHECKS.keys()  # test_backup_server.py has those
    assert not {*DEMO} & {*PLANTS}


ABOUT = {"node": "pve01", "vmid": 101, "vmids": [101]}


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("number", [1, 2])
def test_the_next_call_is_valid_for_one_and_for_several(name, number):
    item = Item(Severity.NOTICE, "x", detail="pbs-main", arguments={"cluster_name": "prod"})
    call = CHECKS[name].next(Values(), [item] * number)
    schema = tools()[call.tool].input_schema
    required = schema.get("required", ())
    arguments = dict(call.arguments) | {k: ABOUT[k] for k in required if k in ABOUT}
    read_arguments(tools()[call.tool], arguments)
    jsonschema.validate(json.loads(NextCall(call.tool, arguments).text.partition(" ")[2]), schema)
    if "query" in arguments:
        bind(parse(arguments["query"]), Catalog(dict(tables())), datetime.now(UTC))


THRESHOLDS = [each.name for each in declared_settings() if each.group == "Attention"]


@pytest.mark.parametrize("name", THRESHOLDS)
def test_every_threshold_is_used(name):
    folder = Path(evidence.__file__).parent
    assert any(f".{name}" in path.read_text("utf-8") for path in folder.glob("*.py"))


async def test_a_threshold_is_a_setting(tool_client):
    tool_client.change(attention_storage_percent=90, attention_storage_critical_percent=92)
    [row] = (await tool_client("GetAttention", cluster_name="prod", areas=["Storages"])).data
    assert (row["severity"], row["finding"]) == (
        "critical",
        "1 storage nearly full: nfs-archive 93%",
    )
    tool_client.change(attention_storage_percent=95)
    answer = await tool_client("GetAttention", cluster_name="prod", areas=["storages"])
    assert answer.data == []


async def test_costly_areas_are_looked_at_when_they_are_named(lab, monkeypatch):
    monkeypatch.setattr(evidence, "MOST_REQUESTS", 3)
    lab.requests("lab")
    answer = await lab("GetAttention")
    assert "Only looked at when named in areas: Smart, Agents." in answer.notes
    assert "Not looked at on lab: Snapshots (about 8 requests; name them in areas)." in answer.notes
    assert not [each for each in lab.requests("lab") if "snapshot" in each or "smart" in each]
    answer = await lab("GetAttention", areas=["Snapshots"])
    assert "Not looked at" not in answer.notes
    assert len([each for each in lab.requests("lab") if "snapshot" in each]) == 8


async def test_a_cluster_that_is_down_is_a_finding_and_the_others_are_looked_at(open_client):
    async with open_client(demo()) as client:
        await client["home-lab"].emulated.node_down("pve")
        answer = await client("GetAttention")
        assert answer.data[0]["finding"] == "1 cluster not reachable: home-lab"
        assert any("on prod: pve05" in text for text in found(answer))
        [note] = [n for n in answer.notes.split("\n") if n.startswith("Not looked at on home-lab")]
        assert note.endswith("(it is not reachable).")
        assert all(topic in note for topic in Topic if topic not in ON_REQUEST and topic != "Nodes")
        alone = await client("GetAttention", cluster_name="home-lab")
        assert found(alone) == ["1 cluster not reachable: home-lab"]


async def test_a_role_for_a_guest_finds_only_its_own(tool_client):
    scoped = tool_client.scoped(Resources(vmids=frozenset({176})))
    answer = await scoped("GetAttention", cluster_name="prod", areas=list(Topic))
    assert found(answer) == ["1 unfinished snapshot: 176 pre-upgrade prepare"]
    assert "The role of this key covers a part of prod only" in answer.notes
    assert "Not looked at on prod: Ceph, Capacity (the role covers a part of the cluster)." in (
        answer.notes
    )


async def test_tables_that_are_not_granted_are_named(tool_client):
    client = ToolClient(tool_client.clusters, tools=frozenset({"GetAttention", "ListTasks"}))
    answer = await client("GetAttention", cluster_name="prod")
    [row] = answer.data
    assert row["finding"].startswith("8 failed tasks")
    assert row["next"].startswith("ListTasks")
    missing = {n.partition(" not granted")[0].rpartition("(")[2] for n in answer.notes.split("\n")}
    assert {"GetNodeStatus", "ListBackups and ListBackupJobs", "ListSnapshots"} <= missing
    named = answer.notes.partition("Only looked at")[0]
    assert [t for t in Topic if t not in named and t not in (*ON_REQUEST, "Tasks")] == []


async def test_a_call_that_is_not_granted_is_not_named(tool_client):
    client = ToolClient(tool_client.clusters, tools=frozenset({"GetAttention", "ListStorage"}))
    answer = await client("GetAttention", cluster_name="prod", fields=["finding", "next"])
    assert [row["next"] for row in answer.data] == [None]


HIDDEN = {
    "/vms/101": {*Topic},
    "/vms": {*Topic} - {Topic.SNAPSHOTS, Topic.REPLICATION},
    "/nodes": {Topic.HA, Topic.CEPH, Topic.STORAGES, Topic.BACKUPS, Topic.SNAPSHOTS, Topic.UPDATES},
    "/storage": {*Topic} - {Topic.STORAGES, Topic.CEPH},
}


@pytest.mark.parametrize("path", HIDDEN)
async def test_what_an_account_may_not_see_is_named(demo_client, new_token, with_token, path):
    token = new_token(demo_client["prod"].emulated, (path, "PVEAuditor"))
    client = await with_token(demo_client, "prod", token)
    answer = await client("GetAttention", cluster_name="prod")
    assert not [text for text in found(answer) if "without a backup" in text]
    left_out = [note for note in answer.notes.split("\n") if "ooked at" in note]
    named = {topic for topic in Topic if any(topic in note for note in left_out)}
    assert HIDDEN[path] - named == set(), answer.notes
    assert len(answer.notes) < 5000


async def test_a_node_that_fails_is_named(lab):
    fault = lab["lab"].emulated.fault("error", path="/nodes/pve2/disks", message="no smartctl")
    try:
        answer = await lab("GetAttention", areas=["Disks"])
    finally:
        lab["lab"].emulated.faults.remove(fault)
    assert "Looked at in part on lab: Disks (see the other notes)." in answer.notes
    assert "disks of node pve2" in answer.notes


async def test_a_finding_that_was_seen_in_part_says_so(lab):
    fault = lab["lab"].emulated.fault("error", path=BACKUPS, message="mount is stale")
    try:
        answer = await lab("GetAttention", areas=["Backups"])
    finally:
        lab["lab"].emulated.faults.remove(fault)
    assert found(answer) == ["8 guests without a backup, as far as seen: 100 web-100, 101 db-101 …"]


async def test_the_answer_for_the_demo_is_short(tool_client):
    # the limit is 600 tokens with the notes; a token of this answer has 3.5 characters
    answer = await tool_client("GetAttention", format="JsonCompact")
    assert len(answer.text) + len(answer.notes) < 600 * 3.5
