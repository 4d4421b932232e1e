"""StopTask: what it says that a task leaves, and which tasks it stops."""

import pytest

from pvemcp_server.access.model import Resources
from pvemcp_server.mcp.elicitation import Decision

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}
OWNER = "alice@pve"


@pytest.fixture
def state(tool_client):
    return tool_client["prod"].emulated.state


@pytest.fixture
def begin(tool_client, state):
    """Return a function that adds a running task and returns its UPID."""
    added = []

    def add(type_, id_, *, node="pve01", user=OWNER, log=()):
        task = state.add_task(node, type_, id_, user, int(state.now))
        task.log.extend(log)
        added.append(task.upid)
        return task.upid

    yield add
    for upid in added:
        del state.tasks[upid]
    tool_client.requests("prod")
    tool_client.refresh()


async def plan(client, upid):
    answer = await client("StopTask", **PROD, upid=upid, dry_run=True)
    assert not answer.failed, answer.text
    return answer


@pytest.mark.parametrize(
    ("type_", "id_", "log", "says"),
    [
        (
            "vzdump",
            "105",
            ["INFO:  45% (14.4 GiB of 32.0 GiB) in 2m"],
            ["Stop the backup (vzdump) of qemu 105 on pve01 of prod, begun ",
             f" by {OWNER}.", "a lock (backup) or part of a file may stay."],
        ),
        ("vzdump", "", [], ["Stop the backup (vzdump) on pve01 of prod", "those after it"]),
        ("qmigrate", "105", [], ["Stop the migration (qmigrate) of qemu 105", "on the target"]),
        ("qmclone", "105", [], ["Stop the creation of a guest", "its disks so far"]),
        ("imgcopy", "", [], ["Stop the copy of a file", "a part may stay"]),
        ("newtype", "x", [], ["Stop the task (newtype) of x on pve01", "perhaps half-done"]),
    ],
)  # fmt: skip
async def test_the_plan_says_what_runs_and_what_stopping_leaves(
    tool_client, begin, type_, id_, log, says
):
    would = (await plan(tool_client, begin(type_, id_, log=log))).data["would"]
    assert [text for text in says if text not in would] == []


async def test_progress_is_beside_the_question_and_no_part_of_it(tool_client, begin, state):
    upid = begin("vzdump", "105", log=["INFO:  45% (14.4 GiB of 32.0 GiB) in 2m"])
    preview = await plan(tool_client, upid)
    assert preview.data["progress"] == "It is at 45 %."
    state.tasks[upid].log.append("INFO:  46% (14.7 GiB of 32.0 GiB) in 2m")
    assert not (await tool_client("StopTask", **PROD, upid=upid)).failed
    assert tool_client.conversation.questions == [preview.data["would"]]
    assert tool_client.conversation.beside[0].startswith("It is at 46 %.")


async def test_the_user_is_asked_and_the_answer_says_how_it_ended(tool_client, begin, state):
    upid = begin("vzdump", "105", log=["INFO: one", "ERROR: interrupted by signal"])
    tool_client.conversation.decision = Decision.NO
    await tool_client.refused("StopTask", **PROD, upid=upid)
    assert state.tasks[upid].running
    tool_client.conversation.decision = Decision.YES
    answer = (await tool_client("StopTask", **PROD, upid=upid)).data
    assert answer == {
        "success": True,
        "upid": upid,
        "ended": True,
        "exit_status": "unexpected status",
        "log": ["INFO: one", "ERROR: interrupted by signal"],
    }
    assert not state.tasks[upid].running


async def test_a_lock_that_it_left_is_named(tool_client, begin, state):
    state.guests[105].config["lock"] = "backup"
    answer = await tool_client("StopTask", **PROD, upid=begin("vzdump", "105"))
    del state.guests[105].config["lock"]
    assert answer.data["lock"] == "backup"
    assert "qemu 105 is still locked: UnlockVm says by what." in answer.notes


async def test_a_task_that_has_ended_is_not_stopped(tool_client, begin, state):
    upid = begin("qmstart", "105")
    state.tasks[upid].finish("OK", state.now)
    error = await tool_client.refused("StopTask", **PROD, upid=upid)
    assert error.startswith("The task has already ended: OK.")


@pytest.mark.parametrize(
    ("resources", "seen"),
    [
        (Resources(vmids=frozenset({105})), True),
        (Resources(nodes=frozenset({"pve01"})), True),
        (Resources(vmids=frozenset({101})), False),
    ],
)
async def test_a_key_stops_tasks_that_it_sees(tool_client, begin, resources, seen):
    upid = begin("vzdump", "105")
    answer = await tool_client.scoped(resources)("StopTask", **PROD, upid=upid, dry_run=True)
    assert answer.failed is not seen
    assert seen or answer.text == f"No task {upid!r} on prod."


async def test_an_invented_task_is_like_one_that_is_hidden(tool_client):
    upid = "UPID:pve01:0000FFFF:00000001:6B02AC99:qmstart:100:root@pam:"
    assert await tool_client.refused("StopTask", **PROD, upid=upid) == f"No task {upid!r} on prod."


@pytest.mark.parametrize(
    ("type_", "id_", "protected"),
    [
        ("vzdump", "105", True),
        ("vzdump", "", True),  # of a job: it may be at work on any guest of its node
        ("startall", "", True),
        ("bulk-shutdown", "", True),
        ("imgdel", "105@ceph-vm", True),
        ("vzdump", "101", False),
        ("aptupdate", "", False),
    ],
)
async def test_what_protects_a_guest_protects_each_task_about_it(
    tool_client, begin, state, type_, id_, protected
):
    guest, upid = state.guests[105], begin(type_, id_)
    before = guest.config["tags"]
    guest.config["tags"] = "protected"
    guest.touch()
    tool_client.refresh()
    answer = await tool_client("StopTask", **PROD, upid=upid, dry_run=True)
    guest.config["tags"] = before
    guest.touch()
    fact = "Guest 105, which the task is about, is protected by its tag"
    assert answer.text.startswith(fact) is protected


async def test_own_tasks_need_no_privilege_and_those_of_others_do(
    tool_client, begin, new_token, with_token
):
    token = new_token(tool_client["prod"].emulated, ("/", "PVEAuditor"))
    narrow = await with_token(tool_client, "prod", token)
    others, own = begin("vzdump", "105"), begin("vzdump", "105", user=token[0])
    assert f"{token[0]} lacks Sys.Modify on /nodes of prod" in (await plan(narrow, others)).notes
    assert "lacks" not in (await plan(narrow, own)).notes
    assert "Sys.Modify" in await narrow.refused("StopTask", **PROD, upid=others)
    assert (await narrow("StopTask", **PROD, upid=own)).data["ended"] is True
