"""ListChanges and the table `changes`: what Proxmox has on record, compared with the emulator's."""

from datetime import UTC, datetime

import pytest

from pvemcp_server.access.model import Resources
from pvemcp_server.tables.cluster_log import TASK_LINE

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}
ALL = ["time", "kind", "node", "vmid", "subject", "user", "text", "outcome", "upid"]
HOUR = 3600
NOT_LOGGED = "no options of containers, storages, users"


def on_record(state, since, until=None):
    """Return what the emulator has of a time: the ids of tasks and the other lines of the log."""
    end = state.now if until is None else until
    logged = {match["upid"] for entry in state.log if (match := TASK_LINE.fullmatch(entry.text))}
    tasks = {
        upid
        for upid, task in state.tasks.items()
        if since <= task.started <= end and (state.nodes[task.node].online or upid in logged)
    }
    lines = [
        (entry.time, entry.text)
        for entry in state.log
        if since <= entry.time <= end and not TASK_LINE.fullmatch(entry.text)
    ]
    return tasks, sorted(lines)


def lines_of(rows):
    times = (int(datetime.fromisoformat(row["time"]).timestamp()) for row in rows)
    return sorted(
        (time, row["text"]) for time, row in zip(times, rows, strict=True) if row["kind"] != "task"
    )


@pytest.mark.parametrize(
    ("arguments", "since", "until"),
    [
        ({}, 24, 0),
        ({"since": "-1h"}, 1, 0),
        ({"since": "-3d", "until": "-2d"}, 72, 48),
        ({"until": "-24h"}, 48, 24),
    ],
)
async def test_each_task_and_line_of_a_time_is_one_row(tool_client, arguments, since, until):
    state = tool_client["prod"].emulated.state
    answer = await tool_client("ListChanges", **PROD, **arguments, fields=ALL, limit=1000)
    tasks, lines = on_record(state, state.now - since * HOUR, state.now - until * HOUR)
    listed = [row["upid"] for row in answer.data if row["kind"] == "task"]
    assert sorted(listed) == sorted(tasks)
    assert lines_of(answer.data) == lines
    times = answer.column("time")
    assert times == sorted(times, reverse=True)


async def test_a_task_has_its_user_and_outcome(tool_client):
    tasks = tool_client["prod"].emulated.state.tasks
    answer = await tool_client("ListChanges", **PROD, kinds=["task"], since="-3d", fields=ALL)
    assert answer.data
    for row in answer.data:
        task = tasks[row["upid"]]
        assert (row["user"], row["text"]) == (task.user, f"{task.type}: {task.outcome}")
        assert row["subject"] == (task.id or task.node)
        assert (row["outcome"] == "error") == (not task.ok)


@pytest.mark.parametrize(
    ("arguments", "matches"),
    [
        ({"kinds": ["config"]}, lambda row: row["kind"] == "config" and row["vmid"]),
        ({"kinds": "config, logins"}, lambda row: row["kind"] in ("config", "login")),
        ({"kind": "logins"}, lambda row: row["kind"] == "login"),
        ({"user": "ALICE"}, lambda row: "alice" in row["user"]),
        ({"node": "pve02"}, lambda row: row["node"] == "pve02"),
        ({"vmid": 101}, lambda row: row["vmid"] == 101 and row["subject"] == "101"),
    ],
)
async def test_changes_are_filtered(tool_client, arguments, matches):
    answer = await tool_client("ListChanges", **PROD, **arguments, since="-7d", fields=ALL)
    assert answer.data
    assert all(matches(row) for row in answer.data)


@pytest.mark.parametrize(("kind", "asked"), [("config", False), ("login", False), ("task", True)])
async def test_tasks_are_asked_for_only_if_they_can_be_rows(tool_client, kind, asked):
    tool_client.requests("prod")
    where = [
        {"field": "kind", "operator": "=", "value": kind},
        {"field": "time", "operator": ">", "value": "-24h"},
    ]
    query = {"from": "changes", "select": ["kind"], "where": {"logic": "and", "conditions": where}}
    for tool, arguments in (("ListChanges", {"kind": kind}), ("ExecuteQuery", {"query": query})):
        answer = await tool_client(tool, **PROD, **arguments)
        assert set(answer.column("kind")) == {kind}
        assert any("/tasks" in request for request in tool_client.requests("prod")) is asked


async def test_who_changed_the_memory_of_a_vm_is_answered(demo_client):
    prod = demo_client["prod"]
    await prod.pve.transport.request("PUT", "/nodes/pve01/qemu/101/config", {"memory": 6144})
    answer = await demo_client("ListChanges", **PROD, vmid=101, kinds=["config"], fields=ALL)
    newest = answer.data[0]
    assert newest["text"] == "update VM 101: -memory 6144"
    assert (newest["user"], newest["node"]) == (prod.account, "pve01")
    assert NOT_LOGGED in answer.notes


@pytest.mark.parametrize("kind", ["login", "task"])
async def test_what_is_not_logged_is_noted_where_it_matters(tool_client, kind):
    assert NOT_LOGGED in (await tool_client("ListChanges", **PROD)).notes
    assert NOT_LOGGED not in (await tool_client("ListChanges", **PROD, kinds=[kind])).notes


@pytest.mark.parametrize("tool", ["ListChanges", "ExecuteQuery"])
async def test_secrets_of_the_log_are_masked(demo_client, tool):
    state = demo_client["prod"].emulated.state
    text = "update VM 101: -cipassword s3cret-1 -description password: s3cret-2"
    state.write_log("pve01", "alice@pve", text)
    arguments = {"kind": "config"} if tool == "ListChanges" else {"query": {"from": "cluster_log"}}
    answer = await demo_client(tool, **PROD, **arguments)
    assert "update VM 101: -cipassword *** -description password: ***" in answer.text
    assert "s3cret" not in answer.text


async def test_the_log_has_tasks_of_a_node_that_is_offline(demo_client):
    state = demo_client["prod"].emulated.state
    ended, cut = (
        state.add_task("pve05", "qmstart", "101", "ops@pve!token", int(state.now) - n)
        for n in (60, 30)
    )
    for task in (ended, cut):
        state.write_log("pve05", task.user, f"starting task {task.upid}")
    state.write_log("pve05", ended.user, f"end task {ended.upid} OK")
    answer = await demo_client("ListChanges", node="pve05", fields=ALL)
    rows = {row["upid"]: row for row in answer.data}
    assert (rows[ended.upid]["text"], rows[ended.upid]["outcome"]) == ("qmstart: OK", "ok")
    assert rows[cut.upid]["text"] == "qmstart: its end is not logged"
    assert rows[cut.upid]["outcome"] is None
    assert {row["user"] for row in rows.values()} == {"ops@pve!token"}
    assert "Offline on prod, so missing here: pve05." in answer.notes
    assert "Tasks of pve05 on prod are here as far as the log has them." in answer.notes


async def test_the_beginning_of_both_records_is_named(tool_client):
    log = tool_client["prod"].emulated.state.log
    first = datetime.fromtimestamp(min(entry.time for entry in log), UTC)
    answer = await tool_client("ListChanges", **PROD, since="-3650d")
    assert f"The log of prod has no older lines than {first:%Y-%m-%d %H:%M} UTC." in answer.notes
    assert "prod has no older tasks on record than these dates: pve01 20" in answer.notes
    assert "Tasks go further back" not in answer.notes
    options = await tool_client("ListChanges", **PROD, since="-3650d", kinds=["config"])
    assert "Tasks go further back: kind task, where qmconfig is" in options.notes
    recent = await tool_client("ListChanges", **PROD, since="-1h")
    assert "no older lines" not in recent.notes


async def test_a_narrow_role_gets_its_tasks_and_no_log(tool_client):
    narrow = tool_client.scoped(Resources(vmids=frozenset({105})))
    narrow.requests("prod")
    answer = await narrow("ListChanges", **PROD, since="-90d", fields=ALL)
    state = tool_client["prod"].emulated.state
    own = [
        upid
        for upid, task in state.tasks.items()
        if task.id == "105" and task.started > state.now - 90 * 24 * HOUR
    ]
    assert sorted(answer.column("upid")) == sorted(own)
    assert "The log of prod is for roles on the whole cluster" in answer.notes
    assert NOT_LOGGED not in answer.notes
    assert "GET /cluster/log" not in narrow.requests("prod")


async def test_an_account_without_syslog_gets_a_note_on_the_log(tool_client, new_token, with_token):
    token = new_token(tool_client["prod"].emulated, ("/", "PVEAuditor"))
    client = await with_token(tool_client, "prod", token)
    answer = await client("ListChanges", **PROD, fields=ALL)
    assert answer.data
    assert {row["kind"] for row in answer.data} == {"task"}
    assert "lacks Sys.Syslog on / of prod, so Proxmox lists the account's own lines" in answer.notes


async def test_a_log_that_fails_costs_its_own_rows(tool_client):
    emulated = tool_client["prod"].emulated
    fault = emulated.fault("error", path="/cluster/log", message="no log here")
    try:
        answer = await tool_client("ListChanges", **PROD)
    finally:
        emulated.faults.remove(fault)
    assert set(answer.column("kind")) == {"task"}
    assert "The log of prod is missing: " in answer.notes


async def test_a_line_of_another_form_is_a_row_of_its_own(demo_client):
    state = demo_client["prod"].emulated.state
    texts = {
        "snapshot VM 101: before": ("log", 101, "101"),
        "update CT 105: resize --disk rootfs --size 9G": ("config", 105, "105"),
        "starting cluster log": ("log", None, "pve01"),
        "successful openid auth for user 'eve@sso'": ("login", None, "eve@sso"),
        "end task UPID:of-nothing: OK": ("log", None, "pve01"),
    }
    for text in texts:
        state.write_log("pve01", "root@pam", text)
    answer = await demo_client("ListChanges", **PROD, since="-1h", fields=ALL)
    rows = {row["text"]: (row["kind"], row["vmid"], row["subject"]) for row in answer.data}
    assert texts.items() <= rows.items()


async def test_times_the_wrong_way_round_are_refused(tool_client):
    error = await tool_client.refused("ListChanges", since="-1h", until="-2h")
    assert error == "until: it is before since."
