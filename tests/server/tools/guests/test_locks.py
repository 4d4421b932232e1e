"""UnlockVm: what holds a lock, what left it, and who may remove it."""

from dataclasses import replace

import pytest
from tests.server.tools.in_process import InProcess
from tests.server.tools.tool_client import ConnectedCluster, FakeClusters

from proxmox_client import Client, Password, Qemu
from pvemcp_server.access.model import Resources
from pvemcp_server.clusters import Inventory
from pvemcp_server.mcp.elicitation import Decision

pytestmark = pytest.mark.anyio

VM, CONTAINER = 105, 300
NODE = "pve01"
ROOT, ROOT_PASSWORD = "root@pam", "root-password"


@pytest.fixture
def state(tool_client):
    return tool_client["prod"].emulated.state


@pytest.fixture
def lock(tool_client, state):
    """Return a function that locks a guest."""
    locked = []

    def set_lock(vmid=VM, name="backup"):
        guest = state.guests[vmid]
        locked.append(guest)
        guest.config["lock"] = name
        guest.touch()
        tool_client.refresh()

    yield set_lock
    for guest in locked:
        guest.config.pop("lock", None)
        guest.touch()


@pytest.fixture
def add_task(state):
    """Return a function that adds a task, a running one without an outcome."""
    added = []

    def add(type_, id_, *, node=NODE, outcome="", log=()):
        task = state.add_task(node, type_, id_, "alice@pve", int(state.now))
        task.log.extend(log)
        if outcome:
            task.finish(outcome, state.now)
        added.append(task.upid)
        return task.upid

    yield add
    for upid in added:
        del state.tasks[upid]


@pytest.fixture
async def root(tool_client):
    """Yield a client whose account is root@pam."""
    emulated = tool_client["prod"].emulated
    emulated.state.user_config.users[ROOT].password = ROOT_PASSWORD
    auth, wire = Password(ROOT, ROOT_PASSWORD), InProcess(emulated)
    async with Client(emulated.hosts, auth, name="prod", http_transport=wire) as pve:
        inventory = Inventory(pve, lambda: 10.0)
        connected = ConnectedCluster(emulated, pve, inventory, ROOT)
        yield replace(tool_client, clusters=FakeClusters({"prod": connected}))
        await inventory.aclose()


async def unlock(client, vmid=VM, **options):
    answer = await client("UnlockVm", cluster_name="prod", vmid=vmid, **options)
    assert not answer.failed, answer.text
    return answer


async def refused(client, vmid=VM):
    return await client.refused("UnlockVm", cluster_name="prod", vmid=vmid)


@pytest.mark.parametrize(
    ("vmid", "command"), [(VM, "qm unlock 105"), (CONTAINER, "pct unlock 300")]
)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_other_accounts_get_the_command_for_an_administrator(
    tool_client, lock, add_task, vmid, command, dry_run
):
    lock(vmid)
    add_task("vzdump", str(vmid), outcome="unexpected status", node=NODE)
    tool_client.requests("prod")
    answer = (await unlock(tool_client, vmid, dry_run=dry_run)).data
    assert (answer["success"], answer["lock"]) == (False, "backup")
    assert answer["administrator_runs"] == command
    assert tool_client.conversation.questions == []
    assert not [r for r in tool_client.requests("prod") if not r.startswith("GET")]


async def test_containers_take_a_command_from_root_too(root, lock):
    lock(CONTAINER)
    answer = (await unlock(root, CONTAINER)).data
    assert answer["administrator_runs"] == f"pct unlock {CONTAINER}"
    assert "no lock of a container" in answer["reason"]


async def test_root_removes_the_lock_after_a_question(root, lock, add_task, state):
    lock()
    add_task("vzdump", str(VM), outcome="job errors")
    root.conversation.decision = Decision.NO
    assert await refused(root) == "The user declined; nothing was changed."
    [question] = root.conversation.questions
    assert question.startswith(
        "Remove the lock 'backup' of qemu 105 (web-frontend) on prod, perhaps left by vzdump of "
    )
    assert "which failed ('job errors'). What no task shows may still work on it" in question
    root.conversation.decision = Decision.YES
    answer = (await unlock(root)).data
    assert (answer["success"], answer["lock"], answer["lock_now"]) == (True, "backup", None)
    assert "lock" not in state.guests[VM].config


@pytest.mark.parametrize(
    ("name", "type_", "id_", "node", "log"),
    [
        ("backup", "vzdump", "105", NODE, ()),
        ("backup", "qmstart", "105", NODE, ()),
        ("backup", "vzdump", "", NODE, ["INFO: Starting Backup of VM 105 (qemu)"]),
        ("migrate", "qmigrate", "105", "pve02", ()),
        ("clone", "qmclone", "9000", NODE, ()),
    ],
)
async def test_a_lock_that_a_task_holds_stays(
    tool_client, root, lock, add_task, name, type_, id_, node, log
):
    lock(name=name)
    upid = add_task(type_, id_, node=node, log=log)
    for client in (tool_client, root):
        error = await refused(client)
        assert f"is locked ({name}), and {type_} works on it since " in error
        assert error.endswith(f"{upid} GetTask with this upid waits for its end; StopTask ends it.")


@pytest.mark.parametrize(
    ("type_", "id_", "log"),
    [
        ("vncproxy", "105", ()),
        ("vzdump", "101", ()),
        ("qmclone", "9000", ()),
        (
            "vzdump",
            "",
            ["INFO: Starting Backup of VM 105 (qemu)", "INFO: Starting Backup of VM 106 (qemu)"],
        ),
    ],
)
async def test_a_task_about_something_else_holds_no_lock(
    tool_client, lock, add_task, type_, id_, log
):
    lock()
    add_task(type_, id_, log=log)
    assert (await unlock(tool_client)).data["administrator_runs"]


async def test_a_task_that_the_caller_may_not_see_is_not_named(tool_client, lock, add_task):
    lock()
    add_task("vzdump", "", log=["INFO: Starting Backup of VM 105 (qemu)"])
    scoped = tool_client.scoped(Resources(vmids=frozenset({VM})))
    error = await refused(scoped)
    assert error == "qemu 105 (web-frontend) on prod is locked (backup) by a task that still runs."


async def test_an_account_that_sees_no_tasks_is_warned(tool_client, lock, new_token, with_token):
    lock()
    token = new_token(tool_client["prod"].emulated, ("/vms", "PVEVMAdmin"))
    narrow = await with_token(tool_client, "prod", token)
    answer = (await unlock(narrow)).data
    assert f"`pvesh get /nodes/{NODE}/tasks --source active`" in answer["before"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "is not locked."),
        ("suspended", "ChangeVmState with Start resumes it."),
        ("mounted", f"`pct unmount {VM}` on {NODE} ends that."),
    ],
)
async def test_what_no_task_left_is_refused(tool_client, lock, name, says):
    lock(name=name)
    assert (await refused(tool_client)).endswith(says)


async def test_a_task_that_begins_in_between_keeps_its_lock(root, lock, state, monkeypatch):
    lock()
    send = Qemu.unlock

    async def late(self, **options):
        state.guests[VM].config["lock"] = "snapshot"
        await send(self, **options)

    monkeypatch.setattr(Qemu, "unlock", late)
    assert "checksum mismatch" in await refused(root)
    assert state.guests[VM].config["lock"] == "snapshot"


async def test_a_lock_of_a_guest_that_changed_since_the_dry_run_stays(root, state, lock):
    lock()
    await unlock(root, dry_run=True)
    state.guests[VM].config["description"] = "still needed"
    state.guests[VM].touch()
    assert "The configuration has changed since the dry run of" in await refused(root)
    assert state.guests[VM].config["lock"] == "backup"
    state.guests[VM].config.pop("description")
