"""CheckMaintenance: what speaks against taking a node away, and what is not known about it."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from proxmox_client.emulator import FaultKind, ManualClock, Scenario
from proxmox_client.emulator.state.jobs import BackupJob, HaResource, Replication
from pvemcp_server.access.model import READS, Resources
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.tools.maintenance import facts

from .altered import RESOURCES, altered, rows_changed, without_statistics
from .tool_client import ToolClient, open_tool_client

pytestmark = pytest.mark.anyio

NODE = {"cluster_name": "lab", "node": "pve1"}
NOW = datetime.now(UTC)
LETTERS = str.maketrans(": */", "xxxx")
QUORUM = "Quorum holds: 2 of 3 votes are left, so no other may fail."


EACH_VERSION = pytest.mark.parametrize("_client", ["8.4", "9.2"], indirect=True)


def lab_of(**options):
    return Scenario.cluster("lab", nodes=3, guests=6, **options)


@pytest.fixture(scope="module")
async def _client(anyio_backend, request):
    version = getattr(request, "param", "9.2")
    async with open_tool_client(lab_of(version=version), ManualClock()) as client:
        yield client


@pytest.fixture
async def client(_client):
    """Yield a client on a cluster of three nodes, whose state is restored after the test."""
    state = _client["lab"].emulated.state
    guests = {
        guest.vmid: (guest.node, guest.status, dict(guest.config))
        for guest in state.guests.values()
    }
    yield ToolClient(_client.clusters)
    for vmid, (node, status, config) in guests.items():
        guest = state.guests[vmid]
        guest.node, guest.status, guest.config = node, status, config
        guest.touch()
    for node in state.nodes.values():
        node.maintenance = False
    for kept in (state.ha_resources, state.ha_rules, state.ha_groups, state.replications):
        kept.clear()
    state.backup_jobs.clear()
    state.tasks.clear()
    state.options.clear()
    state.quorum_device = {}
    _client.refresh()


def state_of(client):
    return client["lab"].emulated.state


def put(client, *vmids, node="pve1", status="running"):
    """Let only these guests be on the node."""
    for vmid, guest in state_of(client).guests.items():
        guest.node, guest.status = ("pve2", guest.status) if vmid not in vmids else (node, status)
        guest.touch()
    client.refresh()


async def check(client, **place):
    answer = await client("CheckMaintenance", **{**NODE, **place})
    assert not answer.failed, answer.text
    return answer


async def test_a_node_without_running_guests_is_safe(client):
    put(client, 100, status="stopped")
    answer = await check(client)
    assert (answer.data["verdict"], answer.data["running"], answer.notes) == ("safe", 0, "")
    assert QUORUM in answer.data["findings"]
    assert (answer.data["movable"], answer.data["stuck"], answer.data["next"]) == ([], [], [])


@EACH_VERSION
async def test_running_guests_can_be_moved_by_the_call_that_it_names(client):
    put(client, 100, 101)
    answer = await check(client)
    assert (answer.data["verdict"], answer.data["movable"]) == ("prepare", [100, 101])
    assert any("2 running guests without HA" in text for text in answer.data["findings"])
    tool, _, arguments = answer.data["next"][0].partition(" ")
    assert json.loads(arguments)["vmids"] == [100, 101]
    preview = await client(tool, **json.loads(arguments), dry_run=True)
    assert not preview.failed, preview.text


# What binds a guest to its node: the options that its configuration gets, and the reason
BOUND = {
    "hostpci": ({"hostpci0": "0000:65:00.0"}, "devices of the node: hostpci0"),
    "usb": ({"usb0": "host=1-2"}, "devices of the node: usb0"),
    "iso": ({"ide2": "local:iso/debian.iso,media=cdrom"}, "has a local CD-ROM in its drive ide2"),
    "path": ({"scsi7": "/dev/sdb"}, "uses a path of its node: scsi7 is /dev/sdb"),
    "clone": ({"scsi7": "local:100/base-9-disk-0/vm-100-disk-7,size=1G"}, "linked clones on a"),
    "storage": ({"scsi7": "nowhere:vm-100-disk-7,size=1G"}, "no other node has"),
}


async def test_what_binds_a_guest_to_its_node_is_named(client):
    put(client, 100)
    guest = state_of(client).guests[100]
    moved = {"cluster_name": "lab", "vmid": 100, "target_node": "pve2", "online": True}
    usual = dict(guest.config)
    for options, reason in BOUND.values():
        guest.config = usual | options
        answer = await check(client)
        [stuck] = answer.data["stuck"]
        assert stuck.startswith("100 web-100: ")
        assert reason in stuck
        assert (answer.data["verdict"], answer.data["movable"]) == ("prepare", [])
        assert '"action":"Shutdown"' in answer.data["next"][-1]
        assert await client.refused("MigrateVm", **moved, dry_run=True)


async def test_what_is_not_bound_to_a_node_moves(client):
    put(client, 100)
    guest = state_of(client).guests[100]
    usual = dict(guest.config)
    for options in ({"usb0": "spice"}, {"usb0": "mapping=stick"}, {"ide2": "none,media=cdrom"}):
        guest.config = usual | options
        assert (await check(client)).data["movable"] == [100]


def manage(client, *vmids, group=None):
    for vmid in vmids:
        state_of(client).ha_resources[f"vm:{vmid}"] = HaResource(f"vm:{vmid}", group=group)


def prefer(client, nodes, *, strict=False):
    """Let guest 100 prefer nodes, by the rule or group that the version has."""
    state = state_of(client)
    if state.release >= (9, 0):
        state.ha_rules["r"] = {
            "rule": "r", "type": "node-affinity", "nodes": nodes, "resources": "vm:100",
            "strict": int(strict),
        }  # fmt: skip
    else:
        state.ha_groups["r"] = {"group": "r", "nodes": nodes, "restricted": int(strict)}
        state.ha_resources["vm:100"].group = "r"


async def ha_of(client):
    data = (await check(client)).data
    return data["ha"], data["stuck"]


@EACH_VERSION
async def test_ha_moves_guests_where_rules_and_groups_allow(client):
    put(client, 100)
    manage(client, 100)
    assert (await ha_of(client))[0][0].endswith(" or 1 more")
    prefer(client, "pve1:3,pve2:1,pve3:2")
    assert await ha_of(client) == (["100 web-100 → pve3"], [])
    prefer(client, "pve1")
    assert (await ha_of(client))[0][0].endswith(" or 1 more")
    prefer(client, "pve1", strict=True)
    assert await ha_of(client) == ([], ["100 web-100: its HA rules allow no other node now"])
    prefer(client, "pve2", strict=True)
    state_of(client).nodes["pve2"].maintenance = True
    assert (await ha_of(client))[0] == []


@pytest.mark.parametrize(("affinity", "of_100"), [("negative", "pve3"), ("positive", "pve2")])
async def test_ha_keeps_guests_together_or_apart(client, affinity, of_100):
    put(client, 100)
    manage(client, 100, 101)
    state_of(client).ha_rules["r"] = {
        "rule": "r",
        "type": "resource-affinity",
        "affinity": affinity,
        "resources": "vm:100,vm:101",
    }
    assert await ha_of(client) == ([f"100 web-100 → {of_100}"], [])


@EACH_VERSION
async def test_a_reboot_moves_ha_guests_by_the_policy_only(client):
    put(client, 100)
    manage(client, 100)
    answer = await check(client)
    command = "`ha-manager crm-command node-maintenance enable pve1`"
    assert any("(policy conditional)" in f and command in f for f in answer.data["findings"])
    assert answer.data["verdict"] == "prepare"
    state_of(client).options["ha"] = "shutdown_policy=migrate"
    answer = await check(client)
    assert any("(policy migrate)" in finding for finding in answer.data["findings"])
    assert answer.data["verdict"] == "safe"
    state_of(client).nodes["pve1"].maintenance = True
    assert "It is in HA maintenance." in (await check(client)).data["findings"]


DEVICE = {"State": "Connected", "Algorithm": "Fifty-Fifty split"}


async def test_quorum_counts_votes_and_the_quorum_device(client):
    put(client, 100, status="stopped")
    state = state_of(client)
    state.quorum_device = DEVICE
    assert (
        "Quorum holds: 3 of 4 votes are left, so no other may fail."
        in ((await check(client)).data["findings"])
    )
    state.quorum_device = {**DEVICE, "State": "Disconnected"}
    answer = await check(client)
    assert answer.data["verdict"] == "unsafe"
    assert answer.data["findings"][0] == (
        "Quorum is lost without it: 2 of 4 votes are left, 3 are needed."
    )
    state.quorum_device = {**DEVICE, "Algorithm": "LMS"}
    assert "Quorum holds: 4 of 5 votes are left." in (await check(client)).data["findings"]


async def test_tasks_jobs_and_replications_that_collide_are_named(client):
    put(client, 100, status="stopped")
    state = state_of(client)
    task = state.add_task("pve1", "vzdump", "100", "root@pam", int(state.now) - 60)
    state.add_task("pve2", "vzdump", "101", "root@pam", int(state.now) - 60)
    answer = await check(client)
    assert answer.data["verdict"] == "prepare"
    assert "1 running task would be cut off: vzdump 100." in answer.data["findings"]
    tool, _, arguments = answer.data["next"][0].partition(" ")
    assert (await client(tool, **json.loads(arguments))).column("id") == [task.id]
    state.tasks.clear()
    state.replications["100-0"] = Replication(100, 0, "pve1", "pve2")
    state.replications["101-0"] = Replication(101, 0, "pve2", "pve3")
    state.backup_jobs["b"] = BackupJob("b", "*:0/30", {"all": 1, "storage": "shared"})
    answer = await check(client)
    assert "1 replication from or to it cannot run until it is back." in answer.data["findings"]
    assert any("Backup job b begins 20" in text for text in answer.data["findings"])
    assert answer.data["verdict"] == "prepare"


# Schedules of jobs, and those that the check names: all until tomorrow, else the next one
FAR, FARTHER = (f"{NOW + timedelta(days=days):%a} 03:00".lower() for days in (3, 5))
DUE = (
    (["*:0/30", "*:0/20", FAR], ["*:0/30", "*:0/20"]),
    ([FARTHER, FAR], [FAR]),
    ([], []),
)


@pytest.mark.parametrize(("schedules", "named"), DUE)
async def test_the_next_backup_job_is_named_and_all_until_tomorrow(client, schedules, named):
    put(client, 100)
    jobs = state_of(client).backup_jobs
    for schedule in schedules:
        name = schedule.translate(LETTERS)
        jobs[name] = BackupJob(name, schedule, {"all": 1, "storage": "shared"})
    findings = (await check(client)).data["findings"]
    texts = [text for text in findings if text.startswith("Backup job")]
    assert {text.split()[2] for text in texts} == {each.translate(LETTERS) for each in named}
    assert ("No backup job with guests of it is due." in findings) == (not schedules)


# The share of memory in use of each node, the one that is offline, and the finding
ROOM = (
    ({"pve1": 0.5, "pve2": 0.7, "pve3": 0.7}, "", "Room elsewhere:"),
    ({"pve1": 0.5, "pve2": 0.8, "pve3": 0.8}, "", "No room elsewhere:"),
    # Proxmox repeats the figures of an offline node for five minutes
    ({"pve1": 0.5, "pve2": 0.7, "pve3": 0.0}, "pve3", "No room elsewhere:"),
)


@pytest.mark.parametrize(("used", "offline", "finding"), ROOM)
async def test_room_elsewhere_is_that_of_nodes_that_are_online(client, used, offline, finding):
    put(client, 100)

    def change(row):
        if row["type"] != "node":
            return row
        status = "offline" if row["node"] == offline else row["status"]
        return {**row, "mem": int(row["maxmem"] * used[row["node"]]), "status": status}

    with altered(client["lab"], RESOURCES, rows_changed(change)):
        answer = await check(client)
        attention = await client("GetAttention", areas=["Capacity"])
    assert any(text.startswith(finding) for text in answer.data["findings"])
    lost = any("memory of a lost node" in row["finding"] for row in attention.data)
    assert lost == finding.startswith("No")


# Nodes without statistics, and what is not known for that
BLIND = (
    (("pve1",), ("The memory that is in use there is not known.", "The state of 1 guest is unk")),
    (("pve2", "pve3"), ("Room elsewhere is not known: it uses",)),
)


@pytest.mark.parametrize(("nodes", "unknown"), BLIND)
async def test_unknown_figures_make_the_verdict_unknown(client, nodes, unknown):
    put(client, 100)
    with altered(client["lab"], RESOURCES, without_statistics(*nodes)):
        answer = await check(client)
    assert answer.data["verdict"] == "unknown"
    assert answer.data["running"] == (None if "pve1" in nodes else 1)
    for beginning in unknown:
        assert any(text.startswith(beginning) for text in answer.data["findings"])


WITHOUT = {
    "GetClusterStatus": "Whether the cluster keeps its quorum is not known.",
    "ListVms": "What runs there is not known.",
    "GetVmConfig": "Whether 1 running guest can move is not known.",
    "ListStorage": "Which storages it has alone is not known.",
    "ListTasks": "Which tasks run there is not known.",
    "ListBackupJobs": "Which backup jobs begin soon is not known.",
    "ListReplications": "Which replications depend on it is not known.",
    "ListNodes": "The memory that is in use there is not known.",
}


async def test_a_part_whose_tool_is_not_granted_is_not_known(client):
    put(client, 100)
    for tool, finding in WITHOUT.items():
        client.tools = frozenset(tools()) - {tool}
        answer = await check(client)
        assert answer.data["verdict"] == "unknown"
        assert finding in answer.data["findings"]
        assert f"{tool} is not granted there." in answer.notes


FAILING = (
    *("/cluster/status", "/cluster/config/nodes", "/cluster/config/qdevice", "/cluster/backup"),
    *("/cluster/ha/resources", "/cluster/replication", "/nodes/pve1/tasks"),
    "/nodes/pve1/qemu/100/pending",
)


async def test_a_request_that_fails_makes_the_verdict_unknown(client):
    put(client, 100)
    for path in FAILING:
        client["lab"].emulated.fault(FaultKind.ERROR, path=f"{path}$", message="rados timeout")
        answer = await check(client)
        client["lab"].emulated.faults.clear()
        assert answer.data["verdict"] == "unknown", path
        assert "A part could not be looked at: see the notes." in answer.data["findings"]
        assert "rados timeout" in answer.notes


async def test_a_key_that_only_reads_gets_no_calls_that_write(client):
    put(client, 100)
    client.tools = frozenset({READS})
    answer = await check(client)
    assert (answer.data["movable"], answer.data["next"]) == ([100], [])


async def test_a_role_for_a_part_of_the_cluster_is_never_called_safe(client):
    put(client, 100, status="stopped")
    scoped = client.scoped(Resources(nodes=frozenset({"pve1"})))
    answer = await check(scoped)
    assert answer.data["verdict"] == "unknown"
    assert not any("pve2" in text for text in (answer.text, answer.notes))
    scoped = client.scoped(Resources(vmids=frozenset({100})))
    assert "No node 'pve1' on lab" in await scoped.refused("CheckMaintenance", **NODE)


async def test_what_other_tools_show_changes_no_answer_without_them(client, tool_client):
    for each in (client, tool_client):
        each.tools = frozenset({"CheckMaintenance"})
    put(client, 100)
    running = await check(client)
    put(client, 100, status="stopped")
    client.refresh()
    assert await check(client) == running
    on_ceph = await check(tool_client, cluster_name="prod", node="pve01")
    assert "Ceph" not in on_ceph.text
    assert "ceph" not in on_ceph.notes


async def test_an_offline_node_says_so(open_client):
    async with open_client(lab_of(), ManualClock()) as client:
        await client["lab"].emulated.node_down("pve1", seconds_ago=600)
        client.requests("lab")
        answer = await check(client)
        assert not [each for each in client.requests("lab") if "/nodes/pve1/" in each]
    assert answer.data["verdict"] == "unknown"
    assert answer.data["findings"][0].startswith("It is offline already")
    assert answer.data["running"] is None


async def test_the_only_node_has_nowhere_to_move_to(tool_client):
    answer = await tool_client("CheckMaintenance", cluster_name="home-lab", node="pve")
    running = sum(g.running for g in tool_client["home-lab"].emulated.state.guests.values())
    assert answer.data["verdict"] == "prepare"
    stopping, job = answer.data["findings"]
    assert stopping == f"No other node is online: {running} running guests stop with it."
    assert job.startswith("Backup job backup-home begins 20")


async def test_ceph_decides_with_its_health_and_its_daemons(tool_client, monkeypatch):
    state = tool_client["prod"].emulated.state
    place = {"cluster_name": "prod", "node": "pve04"}
    answer = await check(tool_client, **place)
    assert answer.data["verdict"] == "unsafe"
    assert answer.data["findings"][0].startswith("Ceph is not healthy: 'OSD_DOWN: ")
    monkeypatch.setattr(state.nodes["pve05"], "online", True)
    answer = await check(tool_client, **place)
    assert not any("not healthy" in text for text in answer.data["findings"])
    assert "OSDs of Ceph there: 4; run `ceph osd set noout` first." in answer.data["findings"]
    monkeypatch.setattr(state, "ceph_flags", {"noout"})
    answer = await check(tool_client, **place)
    assert "OSDs of Ceph there: 4; noout is set." in answer.data["findings"]
    assert answer.data["verdict"] != "unsafe"


async def test_storages_on_the_ceph_of_other_machines_leave_nothing_unknown(demo_client):
    words = "binary not installed: /usr/bin/ceph-mon"  # what a node without Ceph answers
    demo_client["prod"].emulated.fault("error", path=".*/ceph/.*", message=words)
    answer = await check(demo_client, cluster_name="prod", node="pve04")
    assert "Ceph is not installed here: its storages are elsewhere." in answer.data["findings"]
    assert (answer.data["verdict"], "OSD" in answer.text) == ("prepare", False)


async def test_the_demo_s_answer_is_short(tool_client):
    tool_client.change(output_format="Toon")
    for node in ("pve01", "pve03", "pve05"):
        answer = await tool_client("CheckMaintenance", cluster_name="prod", node=node)
        assert len(answer.text) + len(answer.notes) < 1_800  # below 600 tokens


@pytest.mark.parametrize("tool", ["CheckMaintenance", "EvacuateNode"])
async def test_more_of_ha_than_can_be_looked_at_is_not_known(tool_client, monkeypatch, tool):
    monkeypatch.setattr(facts, "_MOST_HA", 1)
    further = {"dry_run": True} if tool == "EvacuateNode" else {}
    answer = await tool_client(tool, cluster_name="prod", node="pve01", **further)
    assert "HA of prod has more resources and rules than are looked at." in answer.notes
    if not further:
        assert "What HA would move is not known." in answer.data["findings"]
