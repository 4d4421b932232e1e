"""PostgreSQL is away for seconds: calls wait for it, and none is an incident."""

import anyio
import httpx2 as httpx
import pytest
from mcp.client import Client
from sqlalchemy import select

from pvemcp_server.audit import Event, Outcome
from pvemcp_server.audit.reader import Kind
from pvemcp_server.mcp.elicitation import SilentConversation
from pvemcp_server.store import database, records, watch
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import waits

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

STATEMENTS = ["versions", "FROM keys", "FROM roles", "FROM bindings", "FROM freezes"]
READ = {"prompts/list": {}, "resources/list": {}, "tools/list": {}, "server/discover": {}}


async def until_away(served):
    """Wait until the server has noticed that the database is away."""
    while served.state.store.database._away_since is None:
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("GetThing", {"vmid": 101}), ("StartThing", {"vmid": 101})],
    ids=["read", "write"],
)
async def test_a_call_waits_for_a_database_that_is_away(behind_proxy, tool, arguments):
    served, proxy = behind_proxy
    answers = []
    await served.modern.call(tool, **arguments)

    async def call():
        answers.append(await served.modern.call(tool, **arguments))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            proxy.stop()
            tasks.start_soon(call)
            await until_away(served)
            ready = await served.http.get("/readyz")  # while another task waits
            await proxy.start()
        recorded = await served.recorded()
    assert ready.status_code == 200
    assert answers[0]["result"]["isError"] is False
    assert [entry.tool for entry in recorded].count(tool) == 2


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_a_client_connects_while_the_database_is_away(behind_proxy, era):
    served, proxy = behind_proxy
    seen = []

    async def connect():
        async with Client(served.mcp, mode=era) as client:
            seen.extend((await client.list_tools()).tools)
            seen.append(await client.call_tool("GetThing", {"vmid": 101}))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            proxy.stop()
            tasks.start_soon(connect)
            await until_away(served)
            await proxy.start()
    assert seen[-1].is_error is False


@pytest.mark.parametrize(
    "statement", [*STATEMENTS, "INTO audit", "INTO rate_buckets", "INTO claims", "COMMIT"]
)
@pytest.mark.parametrize("tool", ["GetThing", "StartThing"])
async def test_a_connection_lost_at_any_statement_fails_no_call(
    behind_proxy, fake_tools, tool, statement
):
    served, proxy = behind_proxy
    with anyio.fail_after(20):
        await served.state.access.keys.change(served.key_id, role="Administrator")  # caches empty
        await served.state.store.watch.poll()
        proxy.lose_at(statement)
        answer = await served.modern.call(tool, vmid=101)
        recorded = await served.recorded()
    assert answer["result"]["isError"] is False, answer
    assert fake_tools.done == (["Start thing 101."] if tool == "StartThing" else [])
    assert [entry.outcome for entry in recorded if entry.tool == tool] == ["ok"]
    assert await served.state.store.audit_log.verify() == []


@pytest.mark.parametrize("statement", ["INTO audit", "INTO claims"])
async def test_connections_that_are_lost_again_fail_no_call(behind_proxy, fake_tools, statement):
    served, proxy = behind_proxy
    with anyio.fail_after(20):
        await served.state.access.keys.change(served.key_id, role="Administrator")  # caches empty
        await served.state.store.watch.poll()
        proxy.lose_at(statement, times=2)
        answer = await served.modern.call("StartThing", vmid=101)
        recorded = await served.recorded()
    assert proxy.lost == 2
    assert answer["result"]["isError"] is False, answer
    assert fake_tools.done == ["Start thing 101."]
    assert [entry.outcome for entry in recorded if entry.tool == "StartThing"] == ["ok"]


@pytest.mark.parametrize("method", sorted(READ))
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("statement", ["versions", "FROM saved_queries", "FROM clusters"])
async def test_a_connection_lost_at_any_statement_fails_no_list(
    behind_proxy, method, statement, times
):
    served, proxy = behind_proxy
    with anyio.fail_after(20):
        proxy.lose_at(statement, times)
        answer = (await served.modern.send(method, READ[method])).json()
    assert "result" in answer, answer


async def test_what_is_away_for_long_is_not_waited_for(behind_proxy, monkeypatch):
    monkeypatch.setattr(database, "AWAY_SECONDS", -1)
    monkeypatch.setattr(watch, "AWAY_SECONDS", -1)
    served, proxy = behind_proxy
    with anyio.fail_after(20):
        proxy.stop()
        await until_away(served)
        while (ready := await served.http.get("/readyz")).status_code == 200:
            pass  # as the last poll is less than half a second old
        answer = await served.modern.send("tools/list")
    assert ready.json() == {"status": "the state's database does not answer"}
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


async def test_a_request_and_a_call_do_not_make_what_follows_wait(served):
    caller = await served.state.access.authenticator.caller(served.key_id)
    waits.set(False)  # this task begins without, as each task of the server does
    await served.app.endpoint.pipeline.call(caller, "GetThing", {"vmid": 101}, SilentConversation())
    assert waits.get() is False
    transport = httpx.ASGITransport(served.app.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        await client.post("/mcp", headers={"X-API-Key": served.key}, content=b"{}")
    assert waits.get() is False


@pytest.mark.parametrize("statement", ["INTO audit", "COMMIT"])
async def test_each_answer_of_a_user_in_one_call_is_recorded_once(behind_proxy, statement):
    served, proxy = behind_proxy
    log, calls = served.state.store.audit_log, records.audit
    decision = Event(tool="StartThing", outcome=Outcome.ACCEPTED, call_id="0" * 32)
    before = waits.set(True)
    try:
        with anyio.fail_after(20):
            await log.append([decision.row(Kind.DECISION, utc_now())])
            proxy.lose_at(statement)
            await log.append([decision.row(Kind.DECISION, utc_now())])
    finally:
        waits.reset(before)  # the tests of a worker share their task, and so its context
    async with served.state.store.database.reading() as connection:
        query = select(calls.c.at).where(calls.c.call_id == decision.call_id)
        assert len((await connection.scalars(query)).all()) == 2
    assert proxy.lost == 1
