"""ChangeVmState, and the common parts of all writes."""

import anyio
import pytest

from proxmox_client.api import tasks
from proxmox_client.emulator import FaultKind
from proxmox_client.emulator.state.jobs import HaResource
from pvemcp_server.access.model import Resources
from pvemcp_server.clusters.acl import question

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}


async def test_a_guest_is_stopped_and_the_answer_names_the_task(demo_client):
    answer = await demo_client("ChangeVmState", **PROD, vmid=101, action="Stop", wait=True)
    assert answer.data["success"] is True
    assert (answer.data["vmid"], answer.data["action"]) == (101, "Stop")
    assert (answer.data["exit_status"], answer.data["ok"]) == ("OK", True)
    assert answer.data["upid"].startswith("UPID:pve01:")
    assert demo_client["prod"].emulated.state.guests[101].status == "stopped"


@pytest.mark.parametrize("action", ["Reset", "Suspend", "Reboot"])
async def test_a_running_machine_takes_the_action(demo_client, action):
    answer = await demo_client("ChangeVmState", **PROD, vmid=105, action=action, wait=True)
    assert answer.data["ok"] is True
    assert demo_client["prod"].emulated.state.guests[105].paused is (action == "Suspend")


async def test_a_suspended_machine_resumes(demo_client):
    await demo_client("ChangeVmState", **PROD, vmid=105, action="Suspend", wait=True)
    answer = await demo_client("ChangeVmState", **PROD, vmid=105, action="Resume", wait=True)
    assert answer.data["ok"] is True
    assert demo_client["prod"].emulated.state.guests[105].paused is False


async def test_a_container_is_started_and_shut_down(demo_client):
    lab = {"cluster_name": "home-lab", "vmid": 205, "wait": True}
    assert (await demo_client("ChangeVmState", **lab, action="Start")).data["ok"] is True
    assert demo_client["home-lab"].emulated.state.guests[205].running
    assert (await demo_client("ChangeVmState", **lab, action="Shutdown")).data["ok"] is True
    assert not demo_client["home-lab"].emulated.state.guests[205].running


async def test_a_write_takes_as_few_calls_as_it_can(demo_client):
    await demo_client("ListVms", **PROD)
    demo_client.requests("prod")
    await demo_client("ChangeVmState", **PROD, vmid=105, action="Reset")
    first, *beside, last = demo_client.requests("prod")
    assert first == "GET /nodes/pve01/qemu/105/status/current"
    assert sorted(beside) == [  # for what is shown beside the question, at the same time
        "GET /cluster/backup",
        "GET /cluster/replication",
        "GET /cluster/tasks",
        "GET /nodes/pve01/tasks",
    ]
    assert last == "POST /nodes/pve01/qemu/105/status/reset"


@pytest.mark.parametrize(
    ("vmid", "action", "says"),
    [
        (101, "Start", "qemu 101 (db-primary) on prod is running; Start needs it stopped."),
        (101, "Resume", "qemu 101 (db-primary) on prod is running; Resume needs it paused."),
        (300, "Reset", "lxc 300 (dns-1) on prod is a container: Reset is for virtual machines."),
        (9000, "Start", "qemu 9000 (tpl-debian-13) on prod is a template"),
        (9000, "Stop", "is stopped; Stop needs it running or paused."),
    ],
)
async def test_preconditions_are_checked_before_proxmox_refuses(demo_client, vmid, action, says):
    error = await demo_client.refused("ChangeVmState", **PROD, vmid=vmid, action=action)
    assert says in error
    assert not any(request.startswith("POST") for request in demo_client.requests("prod"))


async def test_a_locked_guest_is_refused_with_its_lock(demo_client):
    demo_client["prod"].emulated.state.guests[105].config["lock"] = "backup"
    demo_client["prod"].emulated.state.guests[105].touch()
    error = await demo_client.refused("ChangeVmState", **PROD, vmid=105, action="Stop")
    assert "qemu 105 (web-frontend) on prod is locked (backup)" in error


async def test_a_guest_on_an_offline_node_is_refused(demo_client):
    state = demo_client["prod"].emulated.state
    vmid = next(guest.vmid for guest in state.guests.values() if guest.node == "pve05")
    error = await demo_client.refused("ChangeVmState", **PROD, vmid=vmid, action="Start")
    assert error == "Node pve05 on prod is offline. ListNodeRrdData shows until when it ran."


async def test_ha_managed_power_changes_are_noted(
    demo_client,
):
    answer = await demo_client("ChangeVmState", **PROD, vmid=103, action="Stop", dry_run=True)
    assert "HA manages this guest" in answer.data["would"]


@pytest.mark.parametrize("action", ["Reset", "Reboot", "Suspend"])
async def test_actions_that_ha_leaves_to_proxmox_have_no_warning(demo_client, action):
    demo_client["prod"].emulated.state.ha_resources["vm:103"].state = "error"
    answer = await demo_client("ChangeVmState", **PROD, vmid=103, action=action, dry_run=True)
    assert "HA" not in answer.data["would"]


async def test_a_guest_that_high_availability_holds_in_error_is_refused(demo_client):
    state = demo_client["prod"].emulated.state
    state.ha_resources["vm:105"] = HaResource("vm:105", state="error")
    error = await demo_client.refused("ChangeVmState", **PROD, vmid=105, action="Stop")
    assert "in state error" in error


async def test_a_dry_run_describes_the_write_and_changes_nothing(demo_client):
    demo_client["prod"].emulated.state.backup_jobs.clear()  # one may be due within the hour
    answer = await demo_client("ChangeVmState", **PROD, vmid=101, action="Stop", dry_run=True)
    assert answer.data == {
        "dry_run": True,
        "vmid": 101,
        "action": "Stop",
        "would": "Stop qemu 101 (db-primary) on prod, which is running. "
        "What the guest has not written to its disks is lost.",
        "since": answer.data["since"],
        "undo": 'ChangeVmState {"cluster_name":"prod","vmids":[101],"action":"Start"}',
    }
    assert not any(request.startswith("POST") for request in demo_client.requests("prod"))
    assert [kind for kind, _ in demo_client.audit.events] == ["call"]


async def test_a_protected_guest_refuses_writes(demo_client):
    guest = demo_client["prod"].emulated.state.guests[101]
    guest.config["tags"] = "production;protected"
    guest.touch()
    error = await demo_client.refused("ChangeVmState", **PROD, vmid=101, action="Stop")
    assert "is protected by its tag protected." in error
    demo_client.change(protected_tags=("production",))
    error = await demo_client.refused("ChangeVmState", **PROD, vmid=105, action="Stop")
    assert "is protected by its tag production." in error


async def test_a_protected_cluster_refuses_writes(demo_client):
    demo_client["prod"].protected = True
    error = await demo_client.refused("ChangeVmState", **PROD, vmid=101, action="Stop")
    assert error.startswith("Cluster prod is protected")


async def test_a_write_without_wait_notes_the_next_step(demo_client):
    answer = await demo_client("ChangeVmState", **PROD, vmid=150, action="Reset")
    assert answer.data["task_status"] == "running"
    assert "GetTask with this upid" in answer.notes
    task = (await demo_client("GetTask", **PROD, upid=answer.data["upid"], wait_seconds=30)).data
    assert (task["task_status"], task["ok"]) == ("stopped", True)


async def test_the_next_read_after_a_write_asks_proxmox_again(demo_client):
    await demo_client("ListVms", **PROD)
    await demo_client("ChangeVmState", **PROD, vmid=101, action="Stop", wait=True)
    row = next(row for row in (await demo_client("ListVms", **PROD)).data if row["vmid"] == 101)
    assert row["status"] == "stopped"


async def test_the_intent_is_recorded_before_the_write(demo_client):
    answer = await demo_client("ChangeVmState", **PROD, vmid=150, action="Reset")
    kinds = [kind for kind, _ in demo_client.audit.events]
    assert kinds == ["decision", "intent", "outcome"]
    assert demo_client.audit.events[2][1].upid == answer.data["upid"]


async def test_progress_follows_the_log_and_only_goes_up(demo_client):
    demo_client.conversation.wants_progress = True
    answer = await demo_client("MigrateVm", **PROD, vmid=105, target_node="pve02", online=True)
    assert answer.data["ok"] is True
    done = [progress for progress, _, _ in demo_client.conversation.progress_reports]
    assert done == sorted(set(done))
    assert 0 < done[-1] <= 100
    # of a hundred from the first percentage in the log on
    totals = [total for _, total, _ in demo_client.conversation.progress_reports]
    known = totals.index(100.0)
    assert totals == [None] * known + [100.0] * (len(totals) - known)


async def test_a_failed_task_is_an_error_with_its_log(demo_client):
    stopped = next(
        guest
        for guest in demo_client["prod"].emulated.state.guests.values()
        if not guest.running
        and not guest.template
        and guest.node != "pve05"
        and guest.kind == "qemu"
    )
    stopped.config["net0"] = "virtio=BC:24:11:00:00:09,bridge=nope"
    start = {**PROD, "vmid": stopped.vmid, "action": "Start", "wait": True}
    error = await demo_client.refused("ChangeVmState", **start)
    assert "failed: " in error
    assert "Its log ends: " in error
    assert demo_client.audit.events[-1][1].upid


async def test_waiting_ends_with_the_setting_and_leaves_the_task_running(demo_client):
    demo_client.change(task_wait_max_seconds=0)
    answer = await demo_client("BackupVm", **PROD, vmid=200, storage="pbs-main", wait=True)
    assert answer.data["task_status"] == "running"
    assert "still running" in answer.notes


async def test_a_client_that_disconnects_does_not_stop_the_task(demo_client):
    demo_client.conversation.wants_progress = True
    async with anyio.create_task_group() as group:

        async def call():
            await demo_client("BackupVm", **PROD, vmid=200, storage="pbs-main", mode="stop")

        group.start_soon(call)
        with anyio.fail_after(10):
            await demo_client.conversation.progress_received.wait()
        group.cancel_scope.cancel()
    (kind, event) = demo_client.audit.events[-1]
    assert (kind, event.outcome) == ("outcome", "cancelled")
    task = (await demo_client("GetTask", **PROD, upid=event.upid, wait_seconds=60)).data
    assert task["ok"] is True


async def test_a_role_for_some_guests_writes_to_those_only(demo_client):
    scoped = demo_client.scoped(Resources(vmids=frozenset({105})))
    assert (await scoped("ChangeVmState", **PROD, vmid=105, action="Reset")).data["success"]
    error = await scoped.refused("ChangeVmState", **PROD, vmid=101, action="Reset")
    assert error.startswith("No guest 101 on prod.")


async def test_a_missing_privilege_comes_with_a_question_for_the_administrator(
    demo_client, new_token, with_token
):
    token = new_token(demo_client["prod"].emulated, ("/vms", "PVEAuditor"))
    narrow = await with_token(demo_client, "prod", token)
    error = await narrow.refused("ChangeVmState", **PROD, vmid=105, action="Reset")
    assert f"{token[0]} lacks VM.PowerMgmt on /vms/105" in error
    rehearsed = await narrow("ChangeVmState", **PROD, vmid=105, action="Reset", dry_run=True)
    assert (
        f"{token[0]} lacks VM.PowerMgmt on /vms of prod, so Proxmox will refuse" in rehearsed.notes
    )
    assert question(token[0], "/vms/105", ["VM.PowerMgmt"]) in error


async def test_a_write_without_quorum_is_refused_with_a_next_step(demo_client):
    demo_client["prod"].emulated.lose_quorum()
    error = await demo_client.refused("ChangeVmState", **PROD, vmid=107, action="Start")
    assert error == (
        "The cluster lacks quorum, so nothing can be changed on it "
        "(Proxmox: 'cluster not ready - no quorum?'). "
        "GetClusterStatus counts the nodes that are offline."
    )


async def test_a_dropped_answer_to_a_write_is_not_retried(demo_client):
    demo_client["prod"].emulated.fault(FaultKind.DROP, method="POST", path=".*/status/reset")
    error = await demo_client.refused("ChangeVmState", **PROD, vmid=105, action="Reset")
    assert "Whether it was carried out is not known. Look with ListTasks" in error
    sent = [
        task for task in demo_client["prod"].emulated.state.tasks.values() if task.type == "qmreset"
    ]
    assert len(sent) == 1
    assert [kind for kind, _ in demo_client.audit.events] == [
        "decision",
        "intent",
        "outcome",
    ]


async def test_an_unwatchable_task_is_answered_with_its_upid(demo_client, monkeypatch):
    monkeypatch.setattr(tasks, "_LONGEST_OUTAGE", 0.0)
    demo_client["prod"].emulated.fault(FaultKind.DROP, path=".*/tasks/")
    answer = await demo_client("ChangeVmState", **PROD, vmid=105, action="Reset", wait=True)
    assert (answer.data["success"], answer.data["task_status"]) == (True, "unknown")
    assert answer.data["upid"].startswith("UPID:")
    assert "GetTask with this upid returns the outcome." in answer.notes
