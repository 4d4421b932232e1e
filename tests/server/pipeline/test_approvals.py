"""Approvals: calls of real clients without elicitation, decided by an administrator."""

import re
from contextlib import asynccontextmanager

import anyio
import mcp_types as types
import pytest
from mcp.client import Client

from pvemcp_server.access.model import ANY, Caller, Grant, Role
from pvemcp_server.admin import approvals
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.permission import COMMAND_LINE
from pvemcp_server.approvals import APPROVED_LIFE, WAITING_LIFE, PlannedCall
from pvemcp_server.errors import UnknownName, Unrecorded
from pvemcp_server.mcp.elicitation import SilentConversation
from pvemcp_server.store import audit_log
from pvemcp_server.store.columns import utc_now

pytestmark = pytest.mark.anyio

CALL = {"vmid": 101}
DONE = "Delete thing 101."


@pytest.fixture
def administrator(served) -> AdminContext:
    return AdminContext(
        served.app.endpoint.services, by="ada", address="127.0.0.1", authority=COMMAND_LINE
    )


@pytest.fixture(params=["auto", "legacy"])
async def client(request, served):
    async with Client(served.mcp, mode=request.param) as connected:
        yield connected


@asynccontextmanager
async def connected(served, **options):
    async with Client(served.mcp, **options) as client:
        yield client


async def delete(client, **arguments) -> types.CallToolResult:
    return await client.call_tool("DeleteThing", {**CALL, **arguments})


def text_of(result: types.CallToolResult) -> str:
    return result.content[0].text


def number_in(result: types.CallToolResult) -> int:
    assert result.is_error, text_of(result)
    found = re.search(r"waiting for approval, number (\d+)\.", text_of(result))
    assert found, text_of(result)
    return int(found[1])


async def test_a_deletion_waits_for_approval_and_is_done_exactly_once(
    client, administrator, fake_tools, served
):
    waiting = await delete(client)
    number = number_in(waiting)
    assert text_of(waiting).startswith("Nothing was done yet: this call is waiting for approval")
    assert f"It would: {DONE} It waits until 20" in text_of(waiting)
    assert f"approve number {number} on the Approvals page" in text_of(waiting)
    assert "then repeat the identical call" in text_of(waiting)
    assert number_in(await delete(client)) == number
    assert fake_tools.done == []

    await approvals.approve(administrator, number)
    assert fake_tools.done == []
    done = await delete(client)
    assert (done.is_error, fake_tools.done) == (False, [DONE])

    assert number_in(await delete(client)) != number
    assert fake_tools.done == [DONE]


async def test_a_client_with_elicitation_never_sees_an_approval(served, fake_tools):
    async def agree(_context, _params):
        return types.ElicitResult(action="accept", content={"confirm": True})

    async def refuse(_context, _params):
        return types.ElicitResult(action="decline")

    for mode in ("auto", "legacy"):
        for answer in (agree, refuse):
            async with connected(served, mode=mode, elicitation_callback=answer) as client:
                assert "approval" not in text_of(await delete(client))
    assert fake_tools.done == [DONE, DONE]
    assert await served.state.store.approvals.all() == []


async def test_an_approval_is_used_by_one_of_two_servers(served, administrator, fake_tools):
    async with served.twin() as twin, connected(served) as one, connected(twin) as other:
        await approvals.approve(administrator, number_in(await delete(one)))
        results = [await delete(client) for client in (other, one)]
    assert [result.is_error for result in results] == [False, True]
    assert fake_tools.done == [DONE]


async def test_a_declined_call_is_answered_once(served, administrator, fake_tools):
    async with connected(served) as client:
        number = number_in(await delete(client))
        await approvals.decline(administrator, number)
        declined = text_of(await delete(client))
        assert declined.startswith(
            f"Declined by an administrator (approval number {number}); nothing was changed."
        )
        assert number_in(await delete(client)) > number
    assert fake_tools.done == []


async def test_a_plan_that_changes_after_the_approval_is_asked_about_again(
    served, administrator, fake_tools
):
    async with connected(served) as client:
        first = number_in(await delete(client))
        await approvals.approve(administrator, first)
        fake_tools.loses = "Its only backup is lost."
        changed = await delete(client)
        assert number_in(changed) != first
        assert fake_tools.loses in text_of(changed)
        with pytest.raises(UnknownName):
            await approvals.approve(administrator, first)
        fake_tools.loses = ""
        assert number_in(await delete(client)) > number_in(changed)
    assert fake_tools.done == []


async def test_another_call_on_the_cluster_sees_what_waits_and_not_itself(
    served, administrator, fake_tools
):
    async with connected(served) as client:
        number = number_in(await delete(client))
    service = administrator.services.approvals
    [waiting] = await service.waiting()
    role = Role(1, "r", "", ())

    async def seen(cluster, arguments):
        caller = Caller(waiting.key_id, "k", role)
        call = PlannedCall(caller, "", "DeleteThing", cluster, arguments, (), {}, ())
        return [each.id for each in await service.others(call)]

    assert await seen(waiting.cluster, {"vmid": 102}) == [number]
    assert await seen(waiting.cluster, CALL) == []
    assert await seen("elsewhere", {"vmid": 102}) == []


async def test_an_approval_is_for_its_arguments_and_its_key_only(served, administrator, fake_tools):
    other_key = await served.new_key("other", role="Administrator")
    async with (
        connected(served) as client,
        Client(f"{served.url}/mcp/{other_key}") as other,
    ):
        number = number_in(await delete(client))
        await approvals.approve(administrator, number)
        assert number_in(await delete(client, vmid=102)) != number
        assert number_in(await delete(other)) != number
        assert not (await delete(client, format="Csv")).is_error  # no option changes the plan
    assert fake_tools.done == [DONE]


async def test_an_approval_is_void_once_the_role_is_narrowed(served, administrator, fake_tools):
    access = served.state.access
    await access.roles.create("Mine", [Grant(frozenset({ANY}))])
    secret = await served.new_key("mine", role="Mine")
    async with Client(f"{served.url}/mcp/{secret}") as client:
        number = number_in(await delete(client))
        await approvals.approve(administrator, number)
        await access.roles.change("Mine", grants=[Grant(frozenset({"DeleteThing"}))])
        await served.state.store.watch.poll()
        again = await delete(client)
        assert number_in(again) != number
        assert f"Approval {number} does not count: the configuration, or the key, " in text_of(
            again
        )
    assert fake_tools.done == []


async def test_an_approval_is_void_for_another_proxmox_account(served, administrator, fake_tools):
    clusters = served.state.access.clusters
    await clusters.create("lab", ["pve1"], token_id="a@pve!one", secret="s")
    async with connected(served) as client:
        number = number_in(await delete(client))
        await approvals.approve(administrator, number)
        await clusters.bind("lab", "default", key=served.key_id)
        await served.state.store.watch.poll()
        assert number_in(await delete(client)) != number
    assert fake_tools.done == []


async def test_lifetimes_end(served, administrator, fake_tools):
    service = served.app.endpoint.services.approvals
    async with connected(served) as client:
        number = number_in(await delete(client))
        service._clock = lambda: utc_now() + WAITING_LIFE
        with pytest.raises(UnknownName):
            await approvals.approve(administrator, number)
        later = number_in(await delete(client))
        assert later != number
        await approvals.approve(administrator, later)
        service._clock = lambda: utc_now() + WAITING_LIFE + APPROVED_LIFE
        assert number_in(await delete(client)) != later
    assert fake_tools.done == []


async def test_the_answer_says_why_an_earlier_approval_does_not_count(
    served, administrator, fake_tools
):
    service = served.app.endpoint.services.approvals
    other_key = await served.new_key("other", role="Administrator")

    async def why_not(client) -> str:
        answer = text_of(await delete(client))
        number = re.search(r"number (\d+)\. (.*)It would: ", answer)
        assert number, answer
        return number[2]

    async with connected(served) as client, Client(f"{served.url}/mcp/{other_key}") as other:
        first = number_in(await delete(client))
        assert await why_not(client) == ""
        await approvals.approve(administrator, first)
        assert await why_not(other) == "", "it is of another key, which is not named"
        assert not (await delete(client)).is_error
        used = await why_not(client)
        assert re.fullmatch(
            rf"Approval {first} does not count: it was used at 20\S+Z, and each counts once\. ",
            used,
        )
        assert await why_not(client) == used  # as long as it waits
        assert await why_not(other) == ""

        second = number_in(await delete(client))
        await approvals.approve(administrator, second)
        fake_tools.loses = "Its only backup is lost."
        changed = f"Approval {second} does not count: the plan has changed since. "
        assert [await why_not(client) for _ in range(2)] == [changed, changed]

        third = number_in(await delete(client))
        await approvals.approve(administrator, third)
        service._clock = lambda: utc_now() + APPROVED_LIFE
        expired = await why_not(client)
        assert re.fullmatch(rf"Approval {third} does not count: it expired at 20\S+Z\. ", expired)


async def test_a_refusal_is_no_approval_that_does_not_count(served, administrator):
    async with connected(served) as client:
        number = number_in(await delete(client))
        await approvals.decline(administrator, number)
        assert "Declined by an administrator" in text_of(await delete(client))
        assert "does not count" not in text_of(await delete(client))


async def test_request_decision_and_use_are_in_the_audit(served, administrator):
    async with connected(served) as client:
        number = number_in(await delete(client))
        await approvals.approve(administrator, number)
        await delete(client)
        other = number_in(await delete(client))
        await approvals.decline(administrator, other)
        await delete(client)
    entries = await served.recorded()
    stored = [entry for entry in entries if entry.kind.value != "call"]
    assert [(entry.kind.value, entry.outcome, entry.acting) for entry in stored] == [
        ("decision", "waiting", None),
        ("decision", "accepted", "ada"),
        ("decision", "used", None),
        ("intent", "ok", None),
        ("decision", "waiting", None),
        ("decision", "declined", "ada"),
    ]
    calls = [entry.outcome for entry in entries if entry.kind.value == "call"]
    assert calls == ["waiting", "waiting", "error"]
    requested, decided, used, *_ = stored
    assert requested.reason == decided.reason == f"Approval {number}: {DONE}"
    assert used.reason == f"Approval {number}, given by ada, was used: {DONE}"
    assert {entry.tool for entry in entries} == {"DeleteThing"}
    assert {entry.key_id for entry in entries} == {served.key_id}
    assert decided.arguments == CALL


async def test_a_call_that_is_cancelled_while_it_is_recorded_waits_and_is_recorded(
    served, monkeypatch
):
    caller = await served.state.access.authenticator.caller(served.key_id)
    pipeline, append = served.app.endpoint.pipeline, audit_log.AuditLog.append

    with anyio.CancelScope() as client:

        async def cancelled(*args):
            client.cancel()
            await append(*args)

        with monkeypatch.context() as patch:
            patch.setattr(audit_log.AuditLog, "append", cancelled)
            await pipeline.call(caller, "DeleteThing", CALL, SilentConversation())
    [approval] = await served.state.store.approvals.waiting(utc_now())
    requests = [entry for entry in await served.recorded() if entry.kind.value == "decision"]
    assert [entry.reason for entry in requests] == [f"Approval {approval.id}: {DONE}"]


async def test_what_cannot_be_recorded_neither_waits_nor_is_approved(
    served, administrator, fake_tools, monkeypatch
):
    async def failing(*_args):
        raise OSError("the disk is full")

    async with connected(served) as client:
        number = number_in(await delete(client))
        with monkeypatch.context() as patch:
            patch.setattr(audit_log.AuditLog, "append", failing)
            with pytest.raises(Unrecorded):
                await approvals.approve(administrator, number)
            assert "cannot be recorded" in text_of(await delete(client))
        assert await approvals.list_approvals(administrator)
        assert await served.state.store.approvals.waiting(utc_now()) == []
        assert number_in(await delete(client)) != number
    assert fake_tools.done == []


async def test_a_rotation_makes_open_approvals_void_and_the_call_is_asked_about_again(
    served, client, administrator
):
    services = administrator.services
    waiting = number_in(await delete(client))
    approved = number_in(await delete(client, vmid=102))
    await approvals.approve(administrator, approved)
    await services.store.vault.rotate()
    states = {each.number: each.state for each in await approvals.list_approvals(administrator)}
    assert states == {waiting: "void", approved: "void"}
    with pytest.raises(UnknownName):
        await approvals.approve(administrator, waiting)
    again = number_in(await delete(client, vmid=102))
    assert again not in states
    await approvals.approve(administrator, again)
    assert not (await delete(client, vmid=102)).is_error
