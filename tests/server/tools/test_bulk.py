"""Bulk writes: one call on many guests, for every tool that takes `vmids`."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import anyio
import pytest

from proxmox_client import Unreachable
from proxmox_client.emulator.state.guest import Snapshot
from proxmox_client.emulator.tasks.power import set_stopped
from pvemcp_server.access.budgets import Budget
from pvemcp_server.access.freezes import Freeze
from pvemcp_server.access.model import Resources
from pvemcp_server.audit import Event
from pvemcp_server.audit.reader import Kind
from pvemcp_server.mcp.elicitation import Decision
from pvemcp_server.pipeline.confirmation import Agreed
from pvemcp_server.toolkit.arguments import MOST_GUESTS
from pvemcp_server.toolkit.registry import tools

from .tool_client import FakeApprovals, FakeBudgets, FakeConversation, offered

pytestmark = pytest.mark.anyio

GUESTS = [101, 102, 300, 302]  # two of each kind, on two nodes
OFFLINE, HIDDEN, UNKNOWN = 104, 106, 99_999
CALLS = {
    "ChangeVmState": {"action": "Stop"},
    "CreateVmSnapshot": {"snapshot_name": "bulk"},
    "DeleteVmSnapshot": {"snapshot_name": "same"},
    "BackupVm": {"storage": "pbs-main", "mode": "stop"},
    "MigrateVm": {"target_node": "pve02", "online": True},
    "UpdateVmConfig": {"description": "New notes"},
}
LOSING = CALLS.keys() - {"CreateVmSnapshot", "UpdateVmConfig"}
LOSSES = {name: len(GUESTS) for name in LOSING} | {"MigrateVm": 2}  # guests that lose something
TASKS = CALLS.keys() - {"UpdateVmConfig"}  # the others end without one
EACH = pytest.mark.parametrize("name", CALLS)
EACH_TASK = pytest.mark.parametrize("name", sorted(TASKS))
EACH_LOSING = pytest.mark.parametrize("name", sorted(LOSING))
PROD = {"cluster_name": "prod"}
TAGS = {"tags": ""}  # a guest may have none


def prepare(client):
    """Give every guest the snapshot that is deleted."""
    for guest in client["prod"].emulated.state.guests.values():
        guest.snapshots["same"] = Snapshot("same", 1_700_000_000)
    return client


@pytest.fixture
def fresh(demo_client):
    return prepare(demo_client)


@pytest.fixture
def shared(tool_client):
    """Return a client for calls that change nothing, on clusters of the module."""
    return prepare(tool_client)


def sent(client):
    return [r for r in client.requests("prod") if not r.startswith("GET")]


def watch_writes(client, before):
    """Call `before(node, vmid)` ahead of each write on prod; return the VMIDs of those sent."""
    transport, passed = client["prod"].pve.transport, []
    send = transport.request

    async def request(method, path, parameters):
        if method != "GET":
            node = path.split("/")[2]
            vmid = int(parameters.get("vmid") or path.split("/")[4])
            await before(node, vmid)
            passed.append(vmid)
        return await send(method, path, parameters)

    transport.request = request
    return passed


def test_every_tool_that_takes_many_guests_is_covered():
    assert {name for name, tool in tools().items() if tool.bulk} == CALLS.keys()


@EACH
async def test_each_guest_has_a_row_and_a_refused_one_stops_no_other(fresh, name):
    vmids = [*GUESTS, GUESTS[0], OFFLINE, UNKNOWN]
    answer = await fresh(name, **PROD, vmids=vmids, **CALLS[name], wait=True)
    rows = {row["vmid"]: row for row in answer.data["results"]}
    assert list(rows) == sorted({*vmids})
    assert [vmid for vmid, row in rows.items() if row["success"]] == GUESTS
    assert answer.data["success"] is False
    for vmid in GUESTS if name in TASKS else ():
        assert rows[vmid]["exit_status"] == "OK"
    assert "is offline" in rows[OFFLINE]["error"]
    assert rows[UNKNOWN]["error"].startswith("No guest 99999 on prod.")
    assert len(sent(fresh)) == len(GUESTS)

    questions = fresh.conversation.questions
    assert len(questions) == (name in LOSING)
    for vmid in GUESTS if questions else ():
        assert f"{vmid} (" in questions[0]
    kinds = [kind for kind, _ in fresh.audit.events]
    assert kinds == [*(["decision"] if questions else []), "intent", "outcome"]
    intent, outcome = (event for _, event in fresh.audit.events[-2:])
    assert intent.arguments["vmids"] == vmids
    upids = [row["upid"] for row in rows.values() if "upid" in row]
    assert sorted(outcome.upid.split()) == sorted(upids)
    assert len(upids) == (len(GUESTS) if name in TASKS else 0)
    assert outcome.outcome == "error"
    assert outcome.reason.startswith(f"Not done on {OFFLINE}, {UNKNOWN}. {OFFLINE}: Node ")


@EACH
async def test_a_dry_run_is_the_question_and_names_every_guest_once(shared, name):
    answer = await shared(name, **PROD, vmids=[*GUESTS, OFFLINE], **CALLS[name], dry_run=True)
    would = answer.data["would"]
    assert answer.data["vmids"] == GUESTS
    assert [row["vmid"] for row in answer.data["refused"]] == [OFFLINE]
    assert all(would.count(f"{vmid} (") == 1 for vmid in GUESTS)
    assert would.endswith(f"Refused, so left out: {OFFLINE}.")
    if name in LOSING:
        shared.conversation.decision = Decision.NO
        call = {"vmids": [*GUESTS, OFFLINE], **CALLS[name]}
        assert await shared.refused(name, **PROD, **call) == (
            "The user declined; nothing was changed."
        )
        assert shared.conversation.questions == [would]
    assert sent(shared) == []


@EACH
async def test_a_hidden_guest_is_answered_like_one_that_does_not_exist(shared, name):
    scoped = shared.scoped(Resources(vmids=frozenset(GUESTS)))
    each = [await scoped.refused(name, **PROD, vmids=v, **CALLS[name]) for v in (HIDDEN, UNKNOWN)]
    error = await scoped.refused(name, **PROD, vmids=[HIDDEN, UNKNOWN], **CALLS[name])
    reasons = f"{HIDDEN}: {each[0]} {UNKNOWN}: {each[1]}"
    assert error == f"Refused for every guest. {reasons}"
    assert each[0].startswith(f"No guest {HIDDEN} on prod. Did you mean 102, 101?")
    assert each[1].startswith(f"No guest {UNKNOWN} on prod.")
    assert {kind for kind, _ in shared.audit.events} == {"call"}


@EACH
async def test_more_guests_than_the_limit_are_refused_before_anything_is_read(shared, name):
    shared.requests("prod")
    vmids = list(range(100, 101 + MOST_GUESTS))
    error = await shared.refused(name, **PROD, vmids=vmids, **CALLS[name])
    assert "at most 50 items" in error
    assert "required" in await shared.refused(name, **PROD, vmids=[], **CALLS[name])
    assert shared.requests("prod") == []


@EACH
async def test_one_guest_is_answered_as_a_single_document(shared, name):
    for vmids in ({"vmids": [101, 101]}, {"vmids": "101"}, {"vmid": 101}):
        answer = await shared(name, **PROD, **vmids, **CALLS[name], dry_run=True)
        assert answer.data["vmid"] == 101
    error = await shared.refused(name, **PROD, vmids=[101], vmid=102, **CALLS[name])
    assert error.startswith("vmid: there is no such argument")


@EACH
async def test_guests_of_several_clusters_are_refused(shared, name):
    error = await shared.refused(name, vmids=[101, 300], **CALLS[name])
    assert error.startswith("cluster_name: say which cluster; home-lab has 101 (")


def query(*vmids, **more):
    condition = {"field": "vmid", "operator": "IN", "value": [str(vmid) for vmid in vmids]}
    return {"from": "guests", "where": {"conditions": [condition]}, **more}


@EACH
async def test_a_query_selects_the_guests_in_its_rows(shared, name):
    named = await shared(name, **PROD, vmids=GUESTS, **CALLS[name], dry_run=True)
    for form in (query(*GUESTS), json.dumps(query(*GUESTS, select=["vmid", "name"]))):
        selected = await shared(name, **PROD, query=form, **CALLS[name], dry_run=True)
        assert selected.data["vmids"] == named.data["vmids"] == GUESTS
        assert selected.data["would"].startswith(named.data["would"])
    assert shared.audit.events[-1][1].arguments["vmids"] == GUESTS
    one = await shared(name, **PROD, query=query(101), **CALLS[name], dry_run=True)
    assert one.data["vmid"] == 101
    assert sent(shared) == []


@pytest.mark.parametrize("name", ["ChangeVmState"])
async def test_a_query_selects_nothing_that_the_key_may_not_see_or_query(shared, name):
    scoped = shared.scoped(Resources(vmids=frozenset(GUESTS)))
    answer = await scoped(
        name, **PROD, query=query(*GUESTS, HIDDEN, UNKNOWN), **CALLS[name], dry_run=True
    )
    assert (answer.data["vmids"], answer.data.get("refused")) == (GUESTS, None)
    error = await scoped.refused(name, **PROD, query=query(HIDDEN), **CALLS[name])
    assert error.startswith("query: it selects no guest.")
    only = replace(shared, tools=frozenset({name}))
    error = await only.refused(name, **PROD, query=query(*GUESTS), **CALLS[name])
    assert error.startswith("ExecuteQuery is not granted on prod.")
    rows = replace(shared, tools=frozenset({name, "ExecuteQuery"}))
    assert "guests" in await rows.refused(name, **PROD, query=query(*GUESTS), **CALLS[name])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, "vmids: this argument or query is required."),
        ({"query": query(101), "vmids": [101]}, "query: give it or vmids, not both."),
        ({"query": query(101, select=["name"])}, "its rows have name: they need the column vmid."),
        ({"query": {"from": "guests", "select": ["name as vmid"]}}, "other values than VMIDs"),
        ({"query": {"from": "tasks", "select": ["vmid"]}}, "Narrow it."),
        ({"query": {"from": "nowhere"}}, "nowhere"),
    ],
)
async def test_a_query_that_selects_no_clear_list_is_refused(shared, arguments, error):
    shared.change(row_cap=MOST_GUESTS)
    call = {**PROD, **arguments, **CALLS["ChangeVmState"]}
    assert error in await shared.refused("ChangeVmState", **call)
    assert sent(shared) == []


@pytest.mark.parametrize("name", ["ChangeVmState"])
async def test_consent_to_a_query_is_for_the_guests_that_it_selected(fresh, name):
    state = fresh["prod"].emulated.state
    notes = {"field": "tags", "operator": "CONTAINS", "value": ["chosen"]}
    selecting = {"from": "guests", "where": {"conditions": [notes]}}

    def choose(*vmids):
        for vmid in vmids:
            state.guests[vmid].config["tags"] = "chosen"
            state.guests[vmid].touch()

    choose(*GUESTS[:-1])
    client = replace(fresh, conversation=Changing(change=[lambda: choose(GUESTS[-1])]))
    answer = await client(name, **PROD, query=selecting, **CALLS[name])
    assert answer.text == "The user declined; nothing was changed."
    first, second = client.conversation.questions
    assert (f"{GUESTS[-1]} (" in first, f"{GUESTS[-1]} (" in second) == (False, True)

    unattended = FakeConversation(decision=Decision.CANNOT_ASK)
    client = replace(fresh, approvals=FakeApprovals(), conversation=unattended)
    waits = {"query": selecting, **CALLS[name]}
    assert "waiting for approval" in await client.refused(name, **PROD, **waits)
    state.guests[GUESTS[0]].config["tags"] = ""
    state.guests[GUESTS[0]].touch()
    assert "waiting for approval" in await client.refused(name, **PROD, **waits)
    assert sent(client) == []
    assert (await client(name, **PROD, **waits)).data["success"]
    assert len(sent(client)) == len(GUESTS) - 1


async def test_what_a_query_could_not_read_is_in_the_question(fresh):
    lost = {
        "from": "snapshots",
        "where": {
            "conditions": [
                {"field": "name", "operator": "=", "value": ["same"]},
                {"field": "vmid", "operator": "IN", "value": [*map(str, GUESTS), str(OFFLINE)]},
            ]
        },
        "select": ["vmid"],
    }
    fresh.conversation.decision = Decision.NO
    await fresh.refused("DeleteVmSnapshot", **PROD, query=lost, snapshot_name="same")
    [question] = fresh.conversation.questions
    assert all(f"{vmid} (" in question for vmid in GUESTS)
    assert question.endswith("Offline on prod, so missing here: pve05.")


@EACH
async def test_nothing_more_is_sent_after_a_failure_where_the_call_says_so(fresh, name):
    async def before(_node, vmid):
        raise Unreachable("pve03", "the connection broke")

    passed = watch_writes(fresh, before)
    most = tools()[name].bulk.per_node
    vmids = running_on(fresh, "pve01")
    assert len(vmids) > most
    call = {"vmids": vmids, **CALLS[name], "stop_at_failure": True}
    error = await fresh.refused(name, **PROD, **call)
    assert "Not sent: guest " in error
    assert passed == []
    assert "Not sent: guest " in fresh.audit.events[-1][1].reason


async def test_a_task_that_fails_stops_the_rest_although_the_call_does_not_wait(fresh):
    state, vmids = fresh["prod"].emulated.state, running_on(fresh, "pve01")
    for vmid in vmids:
        set_stopped(state.guests[vmid], state)
        state.guests[vmid].config["net0"] = "virtio,bridge=nowhere"
    call = {"vmids": vmids, "action": "Start"}
    error = await fresh.refused("ChangeVmState", **PROD, **call, stop_at_failure=True)
    first = tools()["ChangeVmState"].bulk.per_node
    assert "bridge 'nowhere' does not exist" in error
    assert "Not sent: guest " in error
    assert len(sent(fresh)) == first < len(vmids)


@EACH_LOSING
async def test_an_approval_is_for_the_same_guests_and_is_used_once(fresh, name):
    approvals, call = FakeApprovals(), CALLS[name]
    conversation = FakeConversation(decision=Decision.CANNOT_ASK)
    client = replace(fresh, approvals=approvals, conversation=conversation)
    assert "waiting for approval" in await client.refused(name, **PROD, vmids=GUESTS, **call)
    [plan] = approvals.approved.values()
    assert all(f"{vmid} (" in " ".join(plan) for vmid in GUESTS)
    assert "waiting for" in await client.refused(name, **PROD, vmids=GUESTS[:-1], **call)
    assert sent(client) == []
    done = await client(name, **PROD, vmids=[*GUESTS[::-1], GUESTS[0]], **call, wait=True)
    assert done.data["success"] is True
    assert len(sent(client)) == len(GUESTS)
    assert len(approvals.approved) == 1  # that of the other guests


@dataclass
class Changing(FakeConversation):
    """Agrees after some time, in which `change` is called."""

    change: list = field(default_factory=list)

    async def ask(self, question, _beside="", _digest=""):
        self.questions.append(question)
        if len(self.questions) == 1:
            for change in self.change:
                change()
            raise Agreed
        return Decision.YES if question == self.questions[0] else Decision.NO


@EACH_LOSING
@pytest.mark.parametrize("changes", [True, False])
async def test_a_consent_that_took_time_counts_for_the_same_plans_only(fresh, name, changes):
    guest = fresh["prod"].emulated.state.guests[GUESTS[1]]

    def protect():
        guest.config["tags"] = "protected"
        guest.touch()

    client = replace(fresh, conversation=Changing(change=[protect] if changes else []))
    answer = await client(name, **PROD, vmids=GUESTS, **CALLS[name])
    first, second = client.conversation.questions
    if changes:
        assert answer.text == "The user declined; nothing was changed."
        assert f"left out: {guest.vmid}." in second
        assert sent(client) == []
    else:
        assert (first, answer.data["success"]) == (second, True)
        assert len(sent(client)) == len(GUESTS)


@EACH
async def test_a_failure_half_way_stops_no_other_and_nothing_is_sent_twice(fresh, name):
    async def before(_node, vmid):
        if vmid == GUESTS[1]:
            raise Unreachable("pve03", "the connection broke")

    passed = watch_writes(fresh, before)
    answer = await fresh(name, **PROD, vmids=GUESTS, **CALLS[name])
    failed = [row for row in answer.data["results"] if not row["success"]]
    assert [row["vmid"] for row in failed] == [GUESTS[1]]
    assert "the connection broke" in failed[0]["error"]
    assert sorted(passed) == sorted({*GUESTS} - {GUESTS[1]})
    outcome = fresh.audit.events[-1][1]
    assert outcome.reason.startswith(f"Not done on {GUESTS[1]}. {GUESTS[1]}: ")
    assert len(outcome.upid.split()) == (len(GUESTS) - 1 if name in TASKS else 0)


@EACH
async def test_a_freeze_half_way_stops_before_the_next_guest(fresh, name):
    freezes = fresh.clusters.freezes
    freeze = Freeze(None, datetime(2027, 1, 31, tzinfo=UTC), "ada", "restore")

    async def freeze_after_one_write():
        await freezes.refuse("prod")
        freezes.freeze = freeze

    fresh["prod"].pve._pool.before_write = freeze_after_one_write
    answer = await fresh(name, **PROD, vmids=GUESTS, **CALLS[name])
    rows = {row["vmid"]: row for row in answer.data["results"]}
    sent = [vmid for vmid in GUESTS if rows[vmid]["success"]]
    assert len(sent) == 1
    for vmid in {*GUESTS} - {*sent}:
        assert rows[vmid]["error"].startswith(f"{freeze.fact} This was not sent.")
    missing = ", ".join(str(vmid) for vmid in GUESTS if vmid not in sent)
    assert fresh.audit.events[-1][1].reason.startswith(f"Not done on {missing}. {missing}: Writes ")


@EACH
async def test_each_guest_of_a_loss_counts_against_the_budget(fresh, name):
    limited = replace(fresh, budgets=FakeBudgets(limit=LOSSES.get(name, 0)))
    before = await limited(name, **PROD, vmids=GUESTS, **CALLS[name], dry_run=True)
    assert "would be refused" not in before.notes
    answer = await limited(name, **PROD, vmids=GUESTS, **CALLS[name])
    assert answer.data["success"]
    assert limited.budgets.used == LOSSES.get(name, 0)


@EACH_LOSING
async def test_a_loss_beyond_the_budget_is_refused_before_anything_is_asked_or_sent(shared, name):
    limited = replace(shared, budgets=FakeBudgets(limit=LOSSES[name] - 1))
    error = await limited.refused(name, **PROD, vmids=GUESTS, **CALLS[name])
    assert error == (
        f"This key may send {LOSSES[name] - 1} writes that lose data a day, each guest counted; 0 "
        f"were sent today, and this needs {LOSSES[name]}."
    )
    dry_run = await limited(name, **PROD, vmids=GUESTS, **CALLS[name], dry_run=True)
    assert f"{error} It would be refused today." in dry_run.notes
    assert (sent(limited), limited.conversation.questions, limited.budgets.used) == ([], [], 0)


@EACH_LOSING
async def test_a_budget_that_another_call_uses_up_half_way_is_kept(fresh, name):
    async def spend_elsewhere(_key_id, _default):
        return Budget(len(GUESTS), 0, datetime(2027, 2, 1, tzinfo=UTC))

    limited = replace(fresh, budgets=FakeBudgets(limit=1))
    limited.budgets.of = spend_elsewhere  # the state before the other call
    answer = await limited(name, **PROD, vmids=GUESTS, **CALLS[name])
    failed = [row["error"] for row in answer.data["results"] if not row["success"]]
    assert len(failed) == LOSSES[name] - 1
    assert all(error.startswith("This key may send ") for error in failed)
    assert (len(sent(limited)), limited.budgets.used) == (len(GUESTS) - len(failed), 1)


@pytest.mark.parametrize("name", ["ChangeVmState"])
async def test_a_call_that_fails_on_every_guest_is_an_error(fresh, name):
    async def before(_node, _vmid):
        raise Unreachable("pve03", "the connection broke")

    watch_writes(fresh, before)
    error = await fresh.refused(name, **PROD, vmids=GUESTS, **CALLS[name])
    assert error.startswith("It succeeded on no guest. 101, 102, 300, 302: ")
    assert fresh.audit.events[-1][1].outcome == "error"


@EACH_TASK
async def test_tasks_that_are_followed_are_bounded_per_node(fresh, name):
    state, peaks, pending = fresh["prod"].emulated.state, {}, set()
    limit, known = tools()[name].bulk.per_node, set(state.tasks)

    async def before(node, vmid):
        busy = [t for upid, t in state.tasks.items() if upid not in known and t.running]
        pending.add((node, vmid))
        ids = {int(task.id) for task in busy if task.node == node}
        ids |= {each for place, each in pending if place == node and started(each) is None}
        peaks[node] = max(peaks.get(node, 0), len(ids))

    def started(vmid):
        new = [t for upid, t in state.tasks.items() if upid not in known]
        return next((task for task in new if task.id == str(vmid)), None)

    passed = watch_writes(fresh, before)
    call = {"vmids": running_on(fresh, "pve01"), **CALLS[name]}
    answer = await fresh(name, **PROD, **call, wait=True)
    assert sorted(passed) == [r["vmid"] for r in answer.data["results"] if r["success"]]
    assert len(passed) > limit
    assert peaks == {"pve01": limit}


async def test_backups_that_are_followed_are_bounded_per_storage(fresh):
    state, peaks = fresh["prod"].emulated.state, []
    known = set(state.tasks)

    async def before(_node, _vmid):
        new = [task for upid, task in state.tasks.items() if upid not in known]
        peaks.append(1 + sum(task.running for task in new))

    watch_writes(fresh, before)
    vmids = [101, 102, 106, 303]  # each on another node
    await fresh("BackupVm", **PROD, vmids=vmids, storage="pbs-main", wait=True)
    assert len(peaks) == len(vmids)
    assert max(peaks) == tools()["BackupVm"].bulk.per_storage == 2


@EACH_TASK
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": "other", "hostname": "other"}, "may be another guest: not changed."),
        ({"tags": "protected"}, "is protected by its tag protected."),
    ],
)
async def test_a_guest_that_changed_during_the_wait_is_left_alone(fresh, name, change, error):
    vmids = running_on(fresh, "pve01")
    fresh.change(protected_tags=("protected",))
    replaced = fresh["prod"].emulated.state.guests[vmids[-1]]

    async def before(_node, _vmid):
        replaced.config.update({n: v for n, v in change.items() if n in replaced.config | TAGS})

    passed = watch_writes(fresh, before)
    answer = await fresh(name, **PROD, vmids=vmids, **CALLS[name], wait=True)
    assert vmids[-1] not in passed
    row = next(row for row in answer.data["results"] if row["vmid"] == vmids[-1])
    assert error in row["error"]


@EACH_TASK
async def test_when_the_wait_has_ended_the_rest_is_sent_without_waiting(fresh, name):
    fresh.change(task_wait_max_seconds=0)
    answer = await fresh(name, **PROD, vmids=GUESTS, **CALLS[name], wait=True)
    assert [row["task_status"] for row in answer.data["results"]] == ["running"] * len(GUESTS)
    assert len(sent(fresh)) == len(GUESTS)
    assert "still running: GetTask" in answer.notes


@EACH
async def test_the_audit_says_which_writes_were_sent_when_the_client_leaves(fresh, name):
    on_node = running_on(fresh, "pve01")
    others = []

    async def before(_node, vmid):
        if vmid != on_node[0]:
            others.append(vmid)
            await anyio.sleep_forever()

    passed = watch_writes(fresh, before)
    call = {**PROD, "vmids": on_node, **CALLS[name]}
    places = tools()[name].bulk.per_node
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: fresh(name, **call))
        with anyio.fail_after(10):
            while not passed or len(others) < places:  # noqa: ASYNC110 - there is no event for it
                await anyio.sleep(0.005)
        group.cancel_scope.cancel()
    (_, intent), (_, outcome) = fresh.audit.events[-2:]
    assert intent.arguments["vmids"] == on_node
    assert outcome.outcome == "cancelled"
    assert len(outcome.upid.split()) == (name in TASKS)
    unsent = [vmid for vmid in on_node[1:] if vmid not in others]
    assert unsent
    assert outcome.reason == (
        f"cancelled by the client. {', '.join(map(str, others))}: Sent, and the call did not wait "
        f"for its end. {', '.join(map(str, unsent))}: Not sent: the call ended before"
    )


def running_on(client, node):
    """Return eight running guests of a node of prod that any bulk write accepts.

    None is managed by HA: its manager moves a guest after the task that was followed has ended.
    """
    state = client["prod"].emulated.state
    guests = [guest for guest in state.guests.values() if guest.node == node and guest.running]
    managed = {int(sid.partition(":")[2]) for sid in state.ha_resources}
    return [guest.vmid for guest in guests if guest.vmid not in {105, 400, *managed}][:8]


@EACH
async def test_a_server_that_stops_sends_no_more_and_says_so(fresh, name):
    async def before(_node, _vmid):
        fresh.closing.set()

    passed = watch_writes(fresh, before)
    fresh.conversation.wants_progress = True
    answer = await fresh(name, **PROD, vmids=running_on(fresh, "pve01"), **CALLS[name])
    rows = answer.data["results"]
    unsent = [row["vmid"] for row in rows if "Not sent: the server is" in row.get("error", "")]
    assert unsent
    assert not {*unsent} & {*passed}
    assert str(unsent[-1]) in fresh.audit.events[-1][1].reason


async def test_a_question_names_every_guest_however_many_and_long_the_names(fresh):
    state = fresh["prod"].emulated.state
    vmids = [g.vmid for g in state.guests.values() if g.running and g.node != "pve05"][:MOST_GUESTS]
    for vmid in vmids:
        guest = state.guests[vmid]
        guest.config["name" if guest.kind == "qemu" else "hostname"] = f"{'n' * 58}-{vmid}"
        guest.touch()
    would = (await fresh("ChangeVmState", **PROD, vmids=vmids, action="Stop", dry_run=True)).data
    fresh.conversation.decision = Decision.NO
    await fresh.refused("ChangeVmState", **PROD, vmids=vmids, action="Stop")
    [question] = fresh.conversation.questions
    assert question == would["would"]
    assert all(f"{vmid} ({'n' * 58}-{vmid})" in question for vmid in vmids)


def test_the_audit_holds_the_tasks_and_failures_of_as_many_guests_as_a_call_takes():
    upid = (
        "UPID:a-node-with-a-long-name:00028CD3:350A00D1:6B0D5484:qmdelsnapshot:999999999:a@pve!b:"
    )
    failures = ", ".join(["999999999"] * MOST_GUESTS)
    event = Event(tool="ChangeVmState", reason=failures, upid=" ".join([upid] * MOST_GUESTS))
    row = event.row(Kind.OUTCOME, datetime.now(UTC))
    assert (row["reason"], row["upid"]) == (event.reason, event.upid)


async def test_the_report_of_a_write_is_in_the_row_of_its_guest_and_in_the_notes(fresh):
    call = {"vmids": [101, 102], "options": ["sockets=3"]}
    preview = (await fresh("UpdateVmConfig", **PROD, **call, dry_run=True)).data
    assert "These are 101 (db-primary), 102 (web-03)." in preview["would"]
    answer = await fresh("UpdateVmConfig", **PROD, **call)
    for row in answer.data["results"]:
        assert "sockets" in row["pending"][0]
    assert offered(answer.data["undo"])[1]["vmids"] == [101, 102]
    assert answer.notes.count("Pending changes take effect when it is stopped") == 1


async def test_progress_of_many_is_one_that_only_goes_up(fresh):
    fresh.conversation.wants_progress = True
    await fresh("BackupVm", **PROD, vmids=GUESTS, storage="pbs-main")
    done = [progress for progress, _, _ in fresh.conversation.progress_reports]
    assert done == sorted(set(done))
    assert 0 < done[-1] < 100
