"""The tasks extension, on the demo clusters: Proxmox tasks as tasks of MCP."""

import base64
import json

import anyio
import pytest

from proxmox_client.api.tasks import TaskOutcome
from pvemcp_server.access.model import ANY, Grant, Resources
from pvemcp_server.mcp.tasks import EXTENSION, _result

pytestmark = pytest.mark.anyio
ANNOUNCED = {"io.modelcontextprotocol/clientCapabilities": {"extensions": {EXTENSION: {}}}}


@pytest.fixture
def client(demo_served):
    return Tasks(demo_served.modern)


class Tasks:
    """A client that announces the extension with every request."""

    def __init__(self, modern):
        self.modern = modern

    async def send(self, method, announced=True, header=None, **params):
        meta = {"_meta": ANNOUNCED} if announced else {}
        named = header or params.get("taskId") or params.get("name") or ""
        return (await self.modern.send(method, params | meta, Mcp_Name=named)).json()

    async def begin(self, tool="CreateVmSnapshot", announced=True, **arguments):
        """Start a write on the first guest of home-lab that supports snapshots."""
        given = {"cluster_name": "home-lab", "vmid": 101, "snapshot_name": "before", **arguments}
        given = {name: value for name, value in given.items() if value is not None}
        answer = await self.send("tools/call", announced, name=tool, arguments=given)
        return answer["result"]

    async def ended(self, task):
        with anyio.fail_after(20):
            while True:
                detail = (await self.send("tasks/get", taskId=task["taskId"]))["result"]
                if detail["status"] != "working":
                    return detail


async def test_a_write_becomes_a_task_with_its_outcome(client):
    task = await client.begin()
    assert task["resultType"] == "task"
    assert len(task["taskId"]) == 43
    assert (task["status"], task["ttlMs"], task["pollIntervalMs"]) == ("working", 86_400_000, 2000)
    assert "content" not in task
    detail = await client.ended(task)
    assert detail["status"] == "completed"
    assert detail["resultType"] == "complete"
    assert detail["result"]["isError"] is False
    answer = json.loads(detail["result"]["content"][0]["text"])["data"]
    assert answer["success"] is True
    assert (answer["snapshot_name"], answer["exit_status"], answer["ok"]) == ("before", "OK", True)
    again = (await client.send("tasks/get", taskId=task["taskId"]))["result"]
    assert again["result"] == detail["result"]


async def test_clients_without_the_extension_get_the_upid(client):
    result = await client.begin(announced=False)
    assert result["resultType"] == "complete"
    assert json.loads(result["content"][0]["text"])["data"]["upid"].startswith("UPID:")


async def test_a_read_or_a_dry_run_is_no_task(client):
    listed = await client.send("tools/call", name="ListClusters", arguments={})
    dry = await client.begin(dry_run=True)
    assert listed["result"]["resultType"] == dry["resultType"] == "complete"


async def test_a_task_belongs_to_the_key_that_started_it(client, demo_served):
    task = await client.begin()
    other = await demo_served.new_key("other", role="Administrator")
    client.modern.path = f"/mcp/{other}"
    for method in ("tasks/get", "tasks/update", "tasks/cancel"):
        answer = await client.send(method, taskId=task["taskId"])
        assert answer["error"] == {"code": -32602, "message": "Unknown task"}


async def test_task_methods_need_the_extension(client):
    for method in ("tasks/get", "tasks/update", "tasks/cancel"):
        answer = await client.send(method, announced=False, taskId="x")
        assert answer["error"]["code"] == -32021
        assert answer["error"]["data"]["requiredCapabilities"]["extensions"] == {EXTENSION: {}}


async def test_the_routing_header_must_name_the_task(client):
    task = await client.begin()
    answer = await client.send("tasks/get", header="another", taskId=task["taskId"])
    assert answer["error"]["code"] == -32020


async def test_a_cancelled_task_is_stopped_in_proxmox_and_recorded(client, demo_served):
    task = await client.begin("BackupVm", snapshot_name=None)
    assert task["resultType"] == "task", task
    acknowledged = await client.send("tasks/cancel", taskId=task["taskId"])
    assert acknowledged["result"]["resultType"] == "complete"
    assert (await client.ended(task))["status"] == "cancelled"
    again = await client.send("tasks/cancel", taskId=task["taskId"])
    assert "result" in again
    entries = [one for one in await demo_served.recorded() if one.tool == "tasks/cancel"]
    assert [(one.outcome, one.arguments["cluster"]) for one in entries] == [("ok", "home-lab")]


async def test_a_cancellation_by_a_key_that_lost_the_tool_ends_as_refused(client, demo_served):
    task = await client.begin("BackupVm", snapshot_name=None)
    await demo_served.state.access.keys.change(demo_served.key_id, role="Read-only")
    await demo_served.state.store.watch.poll()
    refused = await client.send("tasks/cancel", taskId=task["taskId"])
    assert refused["error"]["message"] == "Unknown task"
    [entry] = [one for one in await demo_served.recorded() if one.tool == "tasks/cancel"]
    assert (entry.kind.value, entry.outcome) == ("intent", "refused")


async def change_role(served, tools):
    access = served.state.access
    await access.roles.create("Others", [Grant(frozenset(tools))])
    await access.keys.change(served.key_id, role="Others", toolsets={"api"})
    await served.state.store.watch.poll()


async def test_a_task_that_undo_started_belongs_to_the_call_that_it_made(client, demo_served):
    suspended = await client.begin("ChangeVmState", snapshot_name=None, action="Suspend")
    await client.ended(suspended)
    task = await client.send("tools/call", name="Undo", arguments={"cluster_name": "home-lab"})
    await change_role(demo_served, {"Undo"})
    for method in ("tasks/get", "tasks/cancel"):
        answer = await client.send(method, taskId=task["result"]["taskId"])
        assert answer["error"]["message"] == "Unknown task"


async def test_a_key_that_lost_the_permission_to_write_cancels_nothing(client, demo_served):
    await demo_served.state.access.keys.change(demo_served.key_id, toolsets={"api"})
    await demo_served.state.store.watch.poll()
    request = {"path": "/nodes/pve/qemu/101/snapshot", "parameters": ["snapname=before"]}
    task = await client.begin("CallApi", vmid=None, snapshot_name=None, method="POST", **request)
    await change_role(demo_served, {"CallApi"})
    refused = await client.send("tasks/cancel", taskId=task["taskId"])
    assert refused["error"]["message"] == "Unknown task"


async def test_a_task_about_a_guest_that_the_role_no_longer_shows_is_hidden(client, demo_served):
    task = await client.begin("BackupVm", snapshot_name=None)
    access = demo_served.state.access
    grant = Grant(frozenset({ANY}), resources=Resources(vmids=frozenset({102})))
    await access.roles.create("Narrow", [grant])
    await access.keys.change(demo_served.key_id, role="Narrow")
    await demo_served.state.store.watch.poll()
    detail = (await client.send("tasks/get", taskId=task["taskId"]))["result"]
    assert (detail["status"], detail["statusMessage"][:12]) == ("working", "No guest 101")
    refused = await client.send("tasks/cancel", taskId=task["taskId"])
    assert "No guest 101" in refused["error"]["message"]
    [entry] = [one for one in await demo_served.recorded() if one.tool == "tasks/cancel"]
    assert entry.outcome == "error"


async def test_a_stored_result_is_hidden_like_the_running_task(client, demo_served):
    task = await client.begin()
    assert (await client.ended(task))["status"] == "completed"
    access = demo_served.state.access
    grant = Grant(frozenset({ANY}), resources=Resources(vmids=frozenset({102})))
    await access.roles.create("Narrow", [grant])
    for role in ("Narrow", "Read-only"):
        await access.keys.change(demo_served.key_id, role=role)
        await demo_served.state.store.watch.poll()
        answer = await client.send("tasks/get", taskId=task["taskId"])
        assert answer["error"] == {"code": -32602, "message": "Unknown task"}


async def protect_cluster(served, _guest):
    await served.state.access.clusters.change("home-lab", protected=True)


async def protect_guest(served, guest):
    guest.config["tags"], guest.row = "protected", None
    for connection in served.app.endpoint.services.clusters._open.values():
        connection.inventory.invalidate()


@pytest.mark.parametrize("protect", [protect_cluster, protect_guest])
async def test_a_task_of_what_is_protected_by_now_is_not_stopped(
    client, demo_served, demo_pve, protect
):
    task = await client.begin("BackupVm", snapshot_name=None)
    state = demo_pve["home-lab"].state
    await protect(demo_served, state.guests[101])
    await demo_served.state.store.watch.poll()
    refused = await client.send("tasks/cancel", taskId=task["taskId"])
    assert "protected" in refused["error"]["message"]
    assert not [each for each in state.tasks.values() if each.stopping]


async def test_a_task_outlives_the_process_that_started_it(client, demo_served):
    task = await client.begin()
    async with demo_served.twin() as other:
        elsewhere = Tasks(other.modern)
        assert (await elsewhere.ended(task))["status"] == "completed"


async def test_the_extension_is_announced_in_its_own_era_only(client, demo_served):
    discovered = (await client.send("server/discover"))["result"]
    assert EXTENSION in discovered["capabilities"]["extensions"]
    hello = {
        "jsonrpc": "2.0",
        "id": 0,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    accept = {"Accept": "application/json, text/event-stream"}
    answer = await demo_served.http.post(f"/mcp/{demo_served.key}", json=hello, headers=accept)
    assert EXTENSION not in answer.text


async def test_an_ended_task_has_the_warnings_of_its_plan(client):
    task = await client.begin(vmid=105, include_vm_state=True)
    data, warnings = (await client.ended(task))["result"]["content"]
    assert '"success":true' in data["text"]
    assert warnings["text"] == "\nIt is not running, so there is no RAM to save."


def test_the_log_of_a_failed_task_is_cleaned():
    ended = TaskOutcome(
        ok=False, exit_status="no", warnings=0, log_tail=["a\u200bb\x1b[31m psk=x1"]
    )
    begun = {"answer": {"success": True}, "format": "JsonNormal"}
    (data,) = _result(begun, ended)["content"]
    assert json.loads(data["text"])["data"]["log"] == ["ab[31m psk=***"]


async def test_the_header_may_be_encoded(client):
    task = await client.begin()
    encoded = base64.b64encode(task["taskId"].encode()).decode()
    answer = await client.send("tasks/get", header=f"=?base64?{encoded}?=", taskId=task["taskId"])
    assert answer["result"]["taskId"] == task["taskId"]


async def test_a_task_that_cannot_be_stored_returns_the_upid(client, demo_served, monkeypatch):
    async def refused(_holder, **_values):
        raise ConnectionError("the database is away")

    tasks = demo_served.app.endpoint.services.store.mcp_tasks
    monkeypatch.setattr(tasks, "keep", refused)
    result = await client.begin()
    assert (result["resultType"], result["isError"]) == ("complete", False)
    assert json.loads(result["content"][0]["text"])["data"]["upid"].startswith("UPID:")
