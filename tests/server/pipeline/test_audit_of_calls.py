"""What the audit says of a call: who acts, and what the user decided."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import mcp_types as types
import pytest
from mcp.client import Client

from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.permission import COMMAND_LINE
from pvemcp_server.admin.queries import RunRequest, run_query
from pvemcp_server.admin.tools import Attempt, try_tool
from pvemcp_server.audit import AuditFilter
from pvemcp_server.errors import CallError
from pvemcp_server.pipeline.confirmation import InputRequired
from pvemcp_server.pipeline.pipeline import UnknownTool
from pvemcp_server.store import audit_log
from pvemcp_server.toolkit.call import Call, Decision

pytestmark = pytest.mark.anyio

CLIENT = types.Implementation(name="admin pages,", version="ada")
CALL = {"name": "GetThing", "arguments": {"vmid": 101}}


@pytest.fixture
def administrator(served) -> AdminContext:
    return AdminContext(
        served.app.endpoint.services, by="ada", address="127.0.0.1", authority=COMMAND_LINE
    )


@pytest.mark.parametrize("name", ["GetThing", "NoSuchTool"])
async def test_no_secret_in_an_argument_that_no_tool_has_is_recorded(served, name):
    names = ("token", "api_key", "X-API-Key", "Authorization", "password", "cookie")
    planted = dict.fromkeys(names, "planted") | {"deep": [{name: "planted"} for name in names]}
    await served.modern.call(name, vmid=101, **planted)
    await served.modern.send("tools/call", {"name": name, "arguments": 7, "token": "planted"})
    entries = await served.recorded()
    assert len(entries) == 2
    assert "planted" not in str(entries)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_cannot_pass_for_an_administrator(served, administrator, mode):
    async with Client(f"{served.url}/mcp/{served.key}", mode=mode, client_info=CLIENT) as client:
        await client.call_tool(**CALL)
    attempt = Attempt(key=served.key_id, arguments=CALL["arguments"])
    await try_tool(administrator, served.app.endpoint.pipeline, CALL["name"], attempt)
    called, tried = await served.recorded()
    assert tried.client == called.client == "admin pages, ada"
    assert tried.key_id == called.key_id == served.key_id
    assert (tried.acting, called.acting) == ("ada", None)
    found = await served.app.endpoint.services.audit.find(AuditFilter(text="ada"))
    assert [entry.seq for entry in found] == [tried.seq]
    assert await served.app.endpoint.services.audit.verify() == []


async def test_every_call_of_the_admin_pages_names_its_administrator(served, administrator):
    pipeline = served.app.endpoint.pipeline
    await try_tool(administrator, pipeline, "GetThing", Attempt(arguments={"vmid": 101}))
    await try_tool(administrator, pipeline, "GetThing", Attempt(arguments={"vmid": "x"}))
    await try_tool(administrator, pipeline, "DeleteThing", Attempt(arguments={"vmid": 101}))
    with pytest.raises(CallError):
        await run_query(administrator, pipeline, RunRequest(query={}))
    entries = await served.recorded()
    assert len(entries) >= 4
    assert {entry.acting for entry in entries} == {"ada"}


async def test_exports_show_the_acting_administrator(served, administrator):
    attempt = Attempt(arguments={"vmid": 101})
    await try_tool(administrator, served.app.endpoint.pipeline, "GetThing", attempt)
    await served.recorded()
    audit = served.app.endpoint.services.audit
    assert '"acting": "ada"' in "".join([line async for line in audit.export_json()])
    header, *_ = [line async for line in audit.export_csv()]
    assert "acting" in header.split(",")


@dataclass
class Answering:
    """A conversation whose user decides in one way."""

    decision: Decision
    client: str = "test"
    wants_progress: bool = False

    async def ask(self, _question: str, _beside: str = "", _digest: str = "") -> Decision:
        return self.decision


@pytest.mark.parametrize(
    ("decision", "kinds"),
    [
        (Decision.YES, [("decision", "accepted"), ("intent", "ok")]),
        (Decision.NO, [("decision", "declined"), ("call", "error")]),
        (Decision.NOT_TICKED, [("decision", "declined"), ("call", "error")]),
        (Decision.DISMISSED, [("decision", "no answer"), ("call", "error")]),
        (Decision.NO_ANSWER, [("decision", "no answer"), ("call", "error")]),
        (Decision.CANNOT_ASK, [("decision", "waiting"), ("call", "waiting")]),
    ],
)
async def test_the_users_decision_is_an_entry_of_its_own(served, decision, kinds):
    caller = await served.state.access.authenticator.caller(served.key_id)
    arguments = {"vmid": 101}
    await served.app.endpoint.pipeline.call(caller, "DeleteThing", arguments, Answering(decision))
    entries = await served.recorded()
    assert [(entry.kind.value, entry.outcome) for entry in entries] == kinds
    for entry in entries:
        assert (entry.tool, entry.key_id, entry.arguments) == (
            "DeleteThing",
            served.key_id,
            arguments,
        )
    if decision is not Decision.CANNOT_ASK:
        assert entries[0].reason == "Delete thing 101."


async def test_nothing_is_deleted_when_the_decision_cannot_be_recorded(
    served, fake_tools, monkeypatch
):
    async def failing(*_args):
        raise OSError("the disk is full")

    monkeypatch.setattr(audit_log.AuditLog, "append", failing)
    caller = await served.state.access.authenticator.caller(served.key_id)
    result = await served.app.endpoint.pipeline.call(
        caller, "DeleteThing", {"vmid": 101}, Answering(Decision.YES)
    )
    assert "cannot be recorded" in result.blocks[0]
    assert fake_tools.done == []


async def test_a_call_that_asks_its_user_first_is_recorded(served):
    class Asking(Answering):
        async def ask(self, question: str, _beside: str = "", _digest: str = "") -> Decision:
            raise InputRequired(types.InputRequiredResult(request_state=question))

    caller = await served.state.access.authenticator.caller(served.key_id)
    with pytest.raises(InputRequired):
        await served.app.endpoint.pipeline.call(
            caller, "DeleteThing", {"vmid": 101}, Asking(Decision.YES)
        )
    [entry] = await served.recorded()
    assert (entry.kind.value, entry.outcome, entry.tool) == ("call", "waiting", "DeleteThing")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("GetThing", {"vmid": 101}),
        ("GetThing", {"vmid": "wrong"}),
        ("ListThings", {"fields": ["wrong"]}),
        ("Nothing", {}),
    ],
)
async def test_a_client_that_leaves_at_any_moment_hides_no_call(
    served, monkeypatch, name, arguments
):
    """Cancel at each await in turn, also while an error is explained; each call is one entry."""
    explain = Call.explain

    async def explain_slowly(call, error):
        await asyncio.sleep(0)
        return await explain(call, error)

    monkeypatch.setattr(Call, "explain", explain_slowly)
    caller = await served.state.access.authenticator.caller(served.key_id)
    for steps in range(1, 8):
        call = asyncio.create_task(
            served.app.endpoint.pipeline.call(caller, name, arguments, Answering(Decision.NO))
        )
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        with suppress(asyncio.CancelledError, UnknownTool):
            await call
    assert [entry.tool for entry in await served.recorded()] == [name] * 7
