"""Nodes, their disks, replication, tasks and metrics."""

from datetime import UTC, datetime

import pytest

from proxmox_client.api.tasks import TaskOutcome
from pvemcp_server.access.model import Resources
from pvemcp_server.toolkit.task_wait import outcome_fields

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}


async def test_list_nodes_has_state_and_load(tool_client):
    answer = await tool_client("ListNodes", **PROD, detail_level="Full")
    state = tool_client["prod"].emulated.state
    rows = {row["node"]: row for row in answer.data}
    assert list(rows) == sorted(state.nodes)
    for name, node in state.nodes.items():
        assert rows[name]["status"] == ("online" if node.online else "offline")
        if node.online:
            assert rows[name]["cpu_total"] == node.cpus
            assert rows[name]["memory_total"] == node.memory
            assert rows[name]["network_in_rate"] > 0
            assert 0 <= rows[name]["cpu_usage"] <= 100


async def test_list_nodes_minimal_takes_one_request(tool_client):
    tool_client.refresh()
    tool_client.requests("prod")
    await tool_client("ListNodes", **PROD)
    assert tool_client.requests("prod") == ["GET /cluster/resources"]


async def test_node_status_has_all_fields(tool_client):
    state = (await tool_client("GetNodeStatus", **PROD, node="pve01")).data
    node = tool_client["prod"].emulated.state.nodes["pve01"]
    assert state["pve_version"] == "9.2.11"
    assert state["kernel_version"] == "6.17.4-2-pve"
    assert state["kernel_sysname"] == "Linux"
    assert (state["memory_total"], state["cpu_threads"]) == (node.memory, node.cpus)
    assert state["memory_used"] <= state["memory_total"]
    assert (state["boot_mode"], state["secure_boot"]) in {("efi", False), ("efi", True)}
    assert all(state[f"load_avg_{minutes}"] > 0 for minutes in ("1m", "5m", "15m"))


async def test_node_status_of_an_offline_node_is_an_error(tool_client):
    error = await tool_client.refused("GetNodeStatus", **PROD, node="pve05")
    assert error == "Node pve05 on prod is offline. ListNodeRrdData shows until when it ran."


async def test_list_node_disks_shows_a_disk_that_is_failing(tool_client):
    answer = await tool_client("ListNodeDisks", **PROD, node="pve03")
    disks = tool_client["prod"].emulated.state.nodes["pve03"].disks
    assert answer.column("serial") == [disk.serial for disk in disks]
    failing = [row for row in answer.data if row["health"] == "FAILED"]
    assert [row["wearout"] for row in failing] == [4]


async def test_list_node_disks_notes_offline_nodes(tool_client):
    answer = await tool_client("ListNodeDisks", **PROD)
    assert "Offline on prod, so missing here: pve05." in answer.notes
    assert set(answer.column("node")) == {"pve01", "pve02", "pve03", "pve04"}


async def test_list_replications_has_the_last_outcome(tool_client):
    answer = await tool_client("ListReplications", **PROD)
    jobs = tool_client["prod"].emulated.state.replications
    rows = {row["id"]: row for row in answer.data}
    assert set(rows) == set(jobs)
    for name, job in jobs.items():
        assert (rows[name]["vmid"], rows[name]["target"]) == (job.guest, job.target)
        assert rows[name]["fail_count"] == job.fail_count
    failing = next(row for row in rows.values() if row["fail_count"])
    assert "out of space" in failing["error"]


async def test_list_tasks_shows_the_newest_of_all_nodes_first(tool_client):
    columns = ["upid", "node", "type", "user", "start_time"]
    answer = await tool_client("ListTasks", **PROD, limit=20, fields=columns)
    assert len(answer.data) == 20
    starts = answer.column("start_time")
    assert starts == sorted(starts, reverse=True)
    assert len({row["node"] for row in answer.data}) > 1
    tasks = tool_client["prod"].emulated.state.tasks
    for row in answer.data:
        task = tasks[row["upid"]]
        assert (row["type"], row["user"]) == (task.type, task.user)
    assert "use a larger limit or filters for more" in answer.notes


@pytest.mark.parametrize("status", ["ok", "error", "stopped", "running"])
async def test_list_tasks_filters_by_outcome(tool_client, status):
    answer = await tool_client("ListTasks", **PROD, status=status, limit=200)
    for row in answer.data:
        good = row["status"] == "OK" or row["status"].startswith("WARNINGS")
        running = row["status"] == "running"
        assert {"ok": good, "error": not good and not running}.get(
            status, running == (status == "running")
        )
    if status == "error":
        tasks = tool_client["prod"].emulated.state.tasks.values()
        failed = [task for task in tasks if not task.running and task.outcome != "OK"]
        online = [task for task in failed if task.node != "pve05"]
        assert len(answer.data) == sum(not task.outcome.startswith("WARN") for task in online)


async def test_a_task_that_died_with_its_node_counts_as_failed(demo_client):
    tasks = demo_client["prod"].emulated.state.tasks.values()
    died = next(task for task in tasks if task.ok and task.node == "pve01")
    died.outcome = "unexpected status"
    for status in ("error", "stopped"):
        answer = await demo_client(
            "ListTasks", **PROD, status=status, node="pve01", limit=500, fields=["upid"]
        )
        assert died.upid in answer.column("upid")


@pytest.mark.parametrize(
    ("given", "matches"),
    [
        ({"type": "vzdump"}, lambda row: row["type"] == "vzdump"),
        ({"user": "alice"}, lambda row: "alice" in row["user"]),
        ({"node": "pve02"}, lambda row: row["node"] == "pve02"),
        ({"vmid": 101}, lambda row: row["id"] == "101"),
    ],
)
async def test_list_tasks_filters(tool_client, given, matches):
    answer = await tool_client("ListTasks", **PROD, **given, limit=100)
    assert answer.data
    assert all(matches(row) for row in answer.data)


async def test_list_tasks_since_takes_dates_and_spans(tool_client):
    everything = await tool_client("ListTasks", **PROD, limit=500)
    recent = await tool_client("ListTasks", **PROD, since="-24h", limit=500)
    assert 0 < len(recent.data) < len(everything.data)
    today = datetime.now(UTC).date().isoformat()
    dated = await tool_client("ListTasks", **PROD, since=today, limit=500)
    assert all(row["start_time"] >= today for row in dated.data)
    for form in (f"{datetime.now(UTC):%d.%m.%Y}", "today"):
        written = await tool_client("ListTasks", **PROD, since=form, limit=500)
        assert written.data == dated.data
    ever = await tool_client("ListTasks", **PROD, since="-999999w", limit=500)
    assert len(ever.data) >= len(everything.data)
    error = await tool_client.refused("ListTasks", since="some day")
    example = f"{datetime.now(UTC):%Y-%m-%d}"
    assert error.startswith(f"since: 'some day' is neither ISO 8601 ({example}T")
    assert error.endswith("Z) nor like -24h or yesterday.")


async def test_get_task_has_outcome_times_and_log(tool_client):
    failed = (await tool_client("ListTasks", **PROD, status="error", limit=1)).data[0]
    finished = (await tool_client("GetTask", **PROD, upid=failed["upid"], log_lines=3)).data
    assert (finished["task_status"], finished["ok"]) == ("stopped", False)
    assert finished["exit_status"] == failed["status"]
    assert finished["start_time"] == failed["start_time"]
    assert finished["duration"] == failed["duration"]
    assert 0 < len(finished["log"]) <= 3


async def test_the_log_of_a_task_has_its_secrets_masked_in_each_tool(demo_client):
    state = demo_client["prod"].emulated.state
    task = state.add_task("pve01", "vzdump", "101", "root@pam", int(state.now) - 9)
    task.log.append("INFO: hook: export PGPASSWORD=hunter2hunter2")
    task.finish("OK", int(state.now))
    for tool in ("GetTask", "GetLog"):
        answer = await demo_client(tool, cluster_name="prod", upid=task.upid)
        assert "PGPASSWORD=***" in answer.text
        assert "hunter2" not in answer.text
    tail = ["password=hunter2hunter2"]
    outcome = TaskOutcome(ok=True, exit_status="WARNINGS: 1", warnings=1, log_tail=tail)
    assert outcome_fields(outcome)["log"] == ["password=***"]


async def test_get_task_distinguishes_warnings_from_failure(demo_client):
    tasks = demo_client["prod"].emulated.state.tasks
    task = next(task for task in tasks.values() if task.node == "pve01" and task.outcome == "OK")
    task.outcome = "WARNINGS: 2"
    finished = (await demo_client("GetTask", **PROD, upid=task.upid)).data
    assert (finished["ok"], finished["warnings"]) == (True, 2)


async def test_get_task_refuses_an_invalid_upid(tool_client):
    error = await tool_client.refused("GetTask", **PROD, upid="UPID:pve01:nonsense")
    assert error.startswith("upid: ")


async def test_a_deleted_task_is_answered_like_an_unknown_one(tool_client):
    upid = "UPID:pve01:0000FFFF:00000001:6B02AC99:qmstart:100:root@pam:"
    error = await tool_client.refused("GetTask", **PROD, upid=upid)
    assert error == f"No task {upid!r} on prod."
    assert error == await tool_client.refused("GetTask", **PROD, upid=upid, wait_seconds=1)


async def test_get_task_hides_tasks_of_guests_that_are_not_granted(tool_client):
    answer = await tool_client("ListTasks", **PROD, vmid=101, limit=1, fields=["upid"])
    upid = answer.data[0]["upid"]
    scoped = tool_client.scoped(Resources(vmids=frozenset({105})))
    assert (await scoped.refused("GetTask", **PROD, upid=upid)).startswith("No task")
    own = tool_client.scoped(Resources(vmids=frozenset({101})))
    assert (await own("GetTask", **PROD, upid=upid)).data["id"] == "101"


async def test_get_task_notes_that_it_stopped_waiting(demo_client):
    started = await demo_client("BackupVm", **PROD, vmid=200, storage="pbs-main")
    demo_client.change(task_wait_max_seconds=0)
    answer = await demo_client("GetTask", **PROD, upid=started.data["upid"], wait_seconds=30)
    assert not answer.failed
    assert "It was still running after 0 s." in answer.notes


async def test_get_task_waits_and_returns_the_failure(demo_client):
    state = demo_client["home-lab"].emulated.state
    state.guests[105].config["net0"] = "virtio=BC:24:11:00:00:09,bridge=nope"
    lab = {"cluster_name": "home-lab"}
    started = await demo_client("ChangeVmState", **lab, vmid=105, action="Start")
    finished = (
        await demo_client("GetTask", **lab, upid=started.data["upid"], wait_seconds=60)
    ).data
    assert (finished["ok"], finished["exit_status"]) == (False, "bridge 'nope' does not exist")
