"""StopTask: what is lost, whose task it is, what it may not touch."""

import pytest

from proxmox_client.emulator.state.task import Task
from pvemcp_server.access.model import Resources

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}


def add_task(client, vmid=105, user="root@pam", kind="vzdump"):
    """Add a running task to prod and return its UPID."""
    task = Task("pve01", 0x3000, 0x3000, 0x6B02AC99, kind, str(vmid), user)
    client["prod"].emulated.state.tasks[task.upid] = task
    return task.upid


def sent(client):
    return [request for request in client.requests("prod") if not request.startswith("GET")]


async def test_a_task_is_stopped_after_consent_and_its_end_reported(demo_client):
    upid = add_task(demo_client)
    answer = await demo_client("StopTask", **PROD, upid=upid)
    [question] = demo_client.conversation.questions
    assert question == (
        "Stop the task vzdump of qemu 105 on pve01 of prod, which root@pam started. "
        "The backup that it writes is discarded."
    )
    assert (answer.data["task_status"], answer.data["success"]) == ("stopped", True)
    assert "has ended already" in await demo_client.refused("StopTask", **PROD, upid=upid)
    assert len(sent(demo_client)) == 1


async def test_tasks_of_hidden_and_protected_guests_are_not_stopped(demo_client):
    upid = add_task(demo_client)
    hidden = demo_client.scoped(Resources(vmids=frozenset({200})))
    assert (await hidden.refused("StopTask", **PROD, upid=upid)).startswith("No task ")
    guest = demo_client["prod"].emulated.state.guests[105]
    guest.config["tags"] = "protected"
    guest.touch()
    demo_client.refresh()
    assert "protected by its tag" in await demo_client.refused("StopTask", **PROD, upid=upid)
    demo_client["prod"].protected = True
    assert "is protected" in await demo_client.refused("StopTask", **PROD, upid=upid)
    assert sent(demo_client) == []


async def test_a_dry_run_names_the_privilege_for_tasks_of_others(
    demo_client, new_token, with_token
):
    emulated = demo_client["prod"].emulated
    account = new_token(emulated, ("/", "PVEAuditor"))
    client = await with_token(demo_client, "prod", account)
    foreign, own = add_task(client), add_task(client, 200, account[0])
    answer = await client("StopTask", **PROD, upid=foreign, dry_run=True)
    assert "lacks Sys.Modify on /nodes" in answer.notes
    assert "lacks" not in (await client("StopTask", **PROD, upid=own, dry_run=True)).notes
