"""Attacks on tokens and sessions through a running server."""

import logging

import anyio
import pytest

from pvemcp_server.audit.mask import mask_text
from pvemcp_server.mcp import sessions
from pvemcp_server.store.key_format import new_id

from .connected import CLIENT, code_for, connect, granted
from .test_scopes import call, opened

pytestmark = pytest.mark.anyio
SECONDS = 10


@pytest.fixture
def tokens(served):
    return served.app.endpoint.services.oauth.tokens


@pytest.fixture
def alice(served, tokens):
    """Return how to connect a user, with the tokens of the client."""

    async def connected(path="/mcp", **options):
        options = {"name": new_id(), "subject": new_id(), "scopes": ("pve:destroy",)} | options
        connection = await connect(served.state.store, **options)
        return connection, await granted(tokens, connection, f"{served.url}{path}")

    return connected


@pytest.mark.parametrize("kind", ["modern", "legacy", "sse"])
async def test_a_revocation_in_another_process_ends_streams(served, alice, kind):
    _, given = await alice("/sse" if kind == "sse" else "/mcp")
    bearer = {"Authorization": f"Bearer {given.access_token}"}
    method, path, content = "GET", "/mcp", None
    if kind == "modern":
        method, modern = "POST", served.modern
        bearer |= modern.headers("subscriptions/listen")
        params = {"notifications": {"toolsListChanged": True}}
        content = modern.message("subscriptions/listen", params)
    elif kind == "legacy":
        bearer |= await opened(served, given.access_token, "2025-11-25")
    else:
        path = "/sse"
    with anyio.fail_after(SECONDS):
        async with (
            served.twin() as twin,
            served.http.stream(method, path, headers=bearer, json=content) as stream,
        ):
            assert stream.status_code == 200
            form = {"client_id": CLIENT, "token": given.refresh_token}
            assert (await twin.http.post("/oauth/revoke", data=form)).status_code == 200
            await stream.aread()  # until the server ends it


async def test_a_session_answers_only_to_its_own_user_and_client(served, alice):
    connection, mine = await alice()
    _, further = await alice(subject=connection.subject)
    _, of_another_user = await alice()
    _, of_another_client = await alice(subject=connection.subject, client_id="another")
    headers = await opened(served, mine.access_token, "2025-11-25")
    listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    expected = {mine: 200, further: 200, of_another_user: 404, of_another_client: 404}
    for presented, status in expected.items():
        headers["Authorization"] = f"Bearer {presented.access_token}"
        answer = await served.http.post("/mcp", json=listed, headers=headers)
        assert answer.status_code == status


async def test_the_end_of_a_connection_leaves_its_session_to_the_newer_one(served, alice):
    connection, mine = await alice()
    _, further = await alice(subject=connection.subject)
    headers = await opened(served, mine.access_token, "2025-11-25")
    listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    with anyio.fail_after(SECONDS):
        async with served.http.stream("GET", "/mcp", headers=headers) as stream:
            assert stream.status_code == 200
            headers["Authorization"] = f"Bearer {further.access_token}"
            await served.http.post("/mcp", json=listed, headers=headers)
            await served.state.store.keys.remove(connection.id)
            await stream.aread()  # until the server ends it
            answer = await served.http.post("/mcp", json=listed, headers=headers)
            assert answer.status_code == 200


async def test_the_calls_of_a_user_are_limited_together_whatever_connection_sends_them(
    served, alice, fake_tools
):
    connection, one = await alice()
    _, other = await alice(subject=connection.subject, client_id="another")
    _, bob = await alice()

    async def answered(given, name="GetThing"):
        headers = {"Authorization": f"Bearer {given.access_token}"}
        sent = {"name": name, "arguments": {}}
        headers |= served.modern.headers("tools/call", sent)
        return await served.http.post(
            "/mcp", json=served.modern.message("tools/call", sent), headers=headers
        )

    await served.state.settings.change({"concurrent_calls_per_key": 1}, by="ada")
    try:
        with anyio.fail_after(SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answered, one, "Wait")
                await fake_tools.started.wait()
                statuses = [(await answered(each)).status_code for each in (other, bob)]
                fake_tools.release.set()
    finally:
        await served.state.settings.change({"concurrent_calls_per_key": 8}, by="ada")
    assert statuses == [429, 200]


async def test_the_sessions_of_a_user_are_limited_together_and_stay_those_of_their_connection(
    served, alice, monkeypatch
):
    monkeypatch.setattr(sessions, "SESSIONS_PER_KEY", 1)
    connection, one = await alice()
    _, other = await alice(subject=connection.subject, client_id="another")
    held = served.app.endpoint.transports.sessions
    before = len(held.manager._server_instances)
    listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    for given in (one, other, one):
        headers = await opened(served, given.access_token, "2025-11-25")
        foreign = other if given is one else one
        stolen = headers | {"Authorization": f"Bearer {foreign.access_token}"}
        assert (await served.http.post("/mcp", json=listed, headers=stolen)).status_code == 404
        assert (await served.http.post("/mcp", json=listed, headers=headers)).status_code == 200
        assert len(held._sessions[connection.subject]) == 1
        assert len(held.manager._server_instances) == before + 1  # the SDK has ended the others


async def test_an_ended_connection_ends_its_running_call(served, alice, tokens, fake_tools):
    connection, given = await alice()
    headers = await opened(served, given.access_token, "2025-11-25")
    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:

            async def wait():
                message = call("Wait") | {"params": {"name": "Wait", "arguments": {}}}
                answers.append(await served.http.post("/mcp", json=message, headers=headers))

            answers = []
            tasks.start_soon(wait)
            await fake_tools.started.wait()
            await tokens.end(connection.id)
            await fake_tools.cancelled.wait()
    assert "rights of this key changed" in answers[0].text


async def test_an_approval_outlives_a_refresh_of_the_token(served, alice, tokens):
    _, given = await alice()
    authenticator = served.state.access.authenticator
    resource = f"{served.url}/mcp"
    before = await authenticator.authenticate_token(given.access_token, "", resource)
    renewed = await tokens.refresh(given.refresh_token, client_id=CLIENT)
    after = await authenticator.authenticate_token(renewed.access_token, "", resource)
    assert (before.digest, before.version) == (after.digest, after.version)
    assert before.token != after.token


async def test_no_secret_of_oauth_is_in_logs_answers_or_the_audit(served, alice, tokens, caplog):
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    connection, given = await alice()
    code, _ = await code_for(tokens, connection, f"{served.url}/mcp")
    secrets = [code, given.access_token, given.refresh_token]
    answers = []
    with caplog.at_level(logging.DEBUG):
        for secret in secrets:
            paths = (f"/oauth/token?x={secret}", f"/mcp/{secret}", f"/oauth/{secret}")
            answers += [await served.http.get(path) for path in paths]
            form = {"client_id": CLIENT, "grant_type": "refresh_token"}
            form["refresh_token"] = secret[:-1]
            answers.append(await served.http.post("/oauth/token", data=form))
    ours = [each for each in caplog.records if not each.name.startswith("http")]
    seen = "\n".join(each.getMessage() for each in ours)
    seen += "\n".join(answer.text + str(answer.headers) for answer in answers)
    seen += "\n".join(map(str, await served.recorded()))
    for secret in secrets:
        assert secret.split("_")[3][:20] not in seen
        assert secret not in mask_text(f"see {secret} there")
