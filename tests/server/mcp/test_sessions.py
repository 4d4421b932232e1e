"""Sessions of the handshake eras: ownership, limits, end, and messages of older clients."""

import json
import secrets
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from string import ascii_letters

import anyio
import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.shared.message import SessionMessage

from pvemcp_server.mcp import notifications, session_ids, sessions, sse
from pvemcp_server.mcp.json_rpc import LONGEST_ID, MOST_MESSAGES

pytestmark = pytest.mark.anyio

ACCEPT = {"Accept": "application/json, text/event-stream"}


def message(method, number=None, **params):
    body = {"jsonrpc": "2.0", "method": method, "params": params}
    return body if number is None else {**body, "id": number}


def hello(version="2025-11-25"):
    client = {"name": "test", "version": "1"}
    return message("initialize", 0, protocolVersion=version, capabilities={}, clientInfo=client)


async def begin(served, key=None, version="2025-11-25"):
    """Open a session; return the headers of its further messages."""
    headers = {**ACCEPT, "X-API-Key": key or served.key}
    answer = await served.http.post("/mcp", json=hello(version), headers=headers)
    assert answer.status_code == 200
    headers |= {"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": version}
    ready = message("notifications/initialized")
    assert (await served.http.post("/mcp", json=ready, headers=headers)).status_code == 202
    return headers


def events(text):
    """Return the messages of an event stream."""
    lines = (line.strip() for line in text.splitlines())
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


async def test_a_session_serves_only_the_key_that_opened_it(served):
    headers = await begin(served)
    other = {**headers, "X-API-Key": await served.new_key("other")}
    mine = await served.http.post("/mcp", json=message("tools/list", 1), headers=headers)
    theirs = await served.http.post("/mcp", json=message("tools/list", 1), headers=other)
    assert (mine.status_code, theirs.status_code) == (200, 404)
    assert theirs.json()["error"]["message"].startswith("Session not found: send initialize again")


async def test_a_session_survives_a_new_secret_of_its_key(served):
    headers = await begin(served)
    _, secret = await served.state.access.keys.regenerate(served.key_id)
    await served.state.store.watch.poll()
    old = await served.http.post("/mcp", json=message("tools/list", 1), headers=headers)
    headers["X-API-Key"] = secret
    new = await served.http.post("/mcp", json=message("tools/list", 1), headers=headers)
    assert (old.status_code, new.status_code) == (401, 200)


async def test_what_stays_in_memory_is_small(served):
    """Open a session, which keeps what its client can do, and a stream, which keeps its request."""
    headers = {**ACCEPT, "X-API-Key": served.key}
    for length, number in ((4_000, 5), (1, 1_000)):  # much text, and many values
        text = "x" * length
        large = {"experimental": {f"{text}{each}": {} for each in range(number)}}
        opening = {**hello(), "params": {**hello()["params"], "capabilities": large}}
        session = await served.http.post("/mcp", json=opening, headers=headers)
        listen = {"notifications": {"resourceSubscriptions": [text] * number}}
        stream = await served.modern.send("subscriptions/listen", listen)
        assert (session.status_code, stream.status_code) == (413, 413)


async def test_a_deleted_session_is_not_found(served):
    headers = await begin(served)
    assert (await served.http.delete("/mcp", headers=headers)).status_code == 200
    answer = await served.http.post("/mcp", json=message("tools/list", 1), headers=headers)
    assert answer.status_code == 404


async def test_an_id_has_one_spelling(served):
    headers = await begin(served)
    name = headers["Mcp-Session-Id"]
    others = [
        f"{name}=",
        f"{name}==",
        f"{name}~",
        f"{name[:9]}!{name[9:]}",
        f"{name[:9]}\t{name[9:]}",
    ]
    if name != (standard := name.replace("-", "+").replace("_", "/")):
        others.append(standard)
    if len(name) % 4:  # the last letter has bits that count for nothing
        others += [name[:-1] + letter for letter in ascii_letters if letter != name[-1]]
    for other in others:
        answer = await served.http.post(
            "/mcp", json=message("ping", 1), headers={**headers, "Mcp-Session-Id": other}
        )
        assert answer.status_code == 404, other


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_without_a_session_there_is_nothing_to_get_or_delete(served, method):
    headers = {**ACCEPT, "X-API-Key": served.key}
    answer = await served.http.request(method, "/mcp", headers=headers)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_an_error_names_no_session_that_does_not_exist(served, method):
    headers = {**ACCEPT, "X-API-Key": served.key}
    body = message("tools/list", 1) if method == "POST" else None
    answer = await served.http.request(method, "/mcp", json=body, headers=headers)
    assert 400 <= answer.status_code < 500
    assert "mcp-session-id" not in answer.headers


async def status_of_ping(served, headers, number=1):
    """Return the status of one more message in that session."""
    ping = message("ping", number)
    return (await served.http.post("/mcp", json=ping, headers=headers)).status_code


async def test_last_event_id_is_ignored(served):
    headers = {**await begin(served), "Last-Event-ID": "77"}
    async with served.http.stream("GET", "/mcp", headers=headers) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")


async def test_a_key_at_its_limit_ends_its_longest_idle_session(served, monkeypatch):
    monkeypatch.setattr(sessions, "SESSIONS_PER_KEY", 2)
    other = await begin(served, await served.new_key("other"))
    first, second = await begin(served), await begin(served)
    assert await status_of_ping(served, first) == 200  # so the second is idle for longer
    third = await begin(served)
    of_key = served.app.endpoint.transports.sessions._sessions[served.key_id]
    expected = [session["Mcp-Session-Id"] for session in (first, third)]
    assert [name for _, name in of_key] == expected
    for one in (first, second, third, other):  # an ended one is opened again
        assert await status_of_ping(served, one) == 200
        assert len(of_key) == 2


async def listed(server, headers):
    """List the tools in that session; return the id of the session and their names."""
    answer = await server.http.post("/mcp", json=message("tools/list", 1), headers=headers)
    assert answer.status_code == 200, answer.text
    [result] = events(answer.text)
    names = [tool["name"] for tool in result["result"]["tools"]]
    return answer.headers["mcp-session-id"], names


@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18", "2025-11-25"])
async def test_a_session_outlives_the_process_that_opened_it(serving, version):
    async with serving() as one:
        headers = await begin(one, version=version)
        known = await listed(one, headers)
        async with one.twin() as two:
            assert await listed(two, headers) == known
    assert known[0] == headers["Mcp-Session-Id"]


async def test_an_opened_session_knows_what_its_client_can_do(serving, fake_tools):
    """Call in the new process: it asks the client, and names it in the audit."""
    async with serving() as one:
        begun = hello()
        begun["params"]["capabilities"] = {"elicitation": {}}
        headers = {**ACCEPT, "X-API-Key": one.key}
        answer = await one.http.post("/mcp", json=begun, headers=headers)
        headers["Mcp-Session-Id"] = answer.headers["mcp-session-id"]
        async with one.twin() as two:
            call = message("tools/call", 1, name="DeleteThing", arguments={"vmid": 101})
            with anyio.fail_after(20):
                async with two.http.stream("POST", "/mcp", json=call, headers=headers) as stream:
                    async for line in stream.aiter_lines():
                        if "elicitation/create" in line:
                            question = json.loads(line.removeprefix("data: "))
                            consent = {"action": "accept", "content": {"confirm": True}}
                            reply = {"jsonrpc": "2.0", "id": question["id"], "result": consent}
                            await two.http.post("/mcp", json=reply, headers=headers)
            [*_, entry] = await two.recorded()
    assert fake_tools.done == ["Delete thing 101."]
    assert entry.client == "test 1"


async def test_requests_at_the_same_time_open_a_lost_session_once(serving):
    async with serving() as one:
        headers = await begin(one)
        async with one.twin() as two, anyio.create_task_group() as tasks:
            for number in range(5):  # ids of requests are unique within a session
                tasks.start_soon(status_of_ping, two, headers, number)
        [of_key] = two.app.endpoint.transports.sessions._sessions.values()
        assert [name for _, name in of_key] == [headers["Mcp-Session-Id"]]


async def test_a_session_of_another_key_is_not_opened_after_a_restart(serving):
    async with serving() as one:
        headers = await begin(one)
        other = {**headers, "X-API-Key": await one.new_key("other")}
        async with one.twin() as two:
            assert await status_of_ping(two, other) == 404
            assert await status_of_ping(two, {**headers, "Mcp-Session-Id": "0" * 32}) == 404
            assert await status_of_ping(two, headers) == 200


async def test_a_session_that_the_sdk_ended_is_opened_again(served):
    headers = await begin(served)
    transports = served.app.endpoint.transports.sessions.manager._server_instances
    for transport in list(transports.values()):
        await transport.terminate()
    assert await status_of_ping(served, headers) == 200


async def test_an_opened_session_gets_notifications_again(serving):
    async with serving() as one:
        headers = await begin(one)
        async with one.twin() as two:
            with anyio.fail_after(20):
                async with two.http.stream("GET", "/mcp", headers=headers) as stream:
                    await two.state.access.keys.change(two.key_id, role="Read-only")
                    await two.state.store.watch.poll()
                    async for line in stream.aiter_lines():
                        if "tools/list_changed" in line:
                            break


@pytest.mark.parametrize("size", [100, 6_000])
async def test_a_handshake_opens_a_session_also_if_its_id_would_be_too_long(served, size):
    begun = hello()
    begun["params"]["capabilities"] = {"experimental": {"x": {"y": secrets.token_hex(size)}}}
    headers = {**ACCEPT, "X-API-Key": served.key}
    answer = await served.http.post("/mcp", json=begun, headers=headers)
    assert answer.status_code == 200
    assert len(answer.headers["mcp-session-id"]) <= session_ids.LONGEST
    headers["Mcp-Session-Id"] = answer.headers["mcp-session-id"]
    assert await status_of_ping(served, headers) == 200


async def test_a_key_with_all_sessions_in_use_gets_no_more(served, monkeypatch):
    monkeypatch.setattr(sessions, "SESSIONS_PER_KEY", 1)
    used = await begin(served)
    async with served.http.stream("GET", "/mcp", headers=used) as stream:
        assert stream.status_code == 200
        headers = {**ACCEPT, "X-API-Key": served.key}
        refused = await served.http.post("/mcp", json=hello(), headers=headers)
        assert refused.status_code == 503
        assert (
            await status_of_ping(served, await begin(served, await served.new_key("other"))) == 200
        )
        assert await status_of_ping(served, used) == 200


async def test_a_session_has_the_current_rights(served):
    headers = await begin(served)
    await served.state.access.keys.change(served.key_id, role="Read-only")
    await served.state.store.watch.poll()
    answer = await served.http.post("/mcp", json=message("tools/list", 1), headers=headers)
    assert "DeleteThing" not in answer.text


@pytest.fixture(params=["streamable HTTP", "HTTP+SSE", "2026-07-28"])
def open_stream(request, served):
    """Return how to open a stream with the administrator's key, one for each transport."""

    @asynccontextmanager
    async def opened():
        arguments = {"headers": {**ACCEPT, "X-API-Key": served.key}}
        method, path = "GET", "/sse"
        if request.param == "streamable HTTP":
            path, arguments = "/mcp", {"headers": await begin(served)}
        if request.param == "2026-07-28":
            listen = "subscriptions/listen", {"notifications": {"promptsListChanged": True}}
            headers = {**served.modern.headers(*listen), "X-API-Key": served.key}
            method, path = "POST", "/mcp"
            arguments = {"json": served.modern.message(*listen), "headers": headers}
        with anyio.fail_after(20):
            async with served.http.stream(method, path, **arguments) as stream:
                assert stream.status_code == 200
                yield stream

    return opened


async def regenerate(keys, key_id):
    await keys.regenerate(key_id)


async def exclude_address(keys, key_id):
    await keys.change(key_id, allow_from=["10.9.9.0/24"])


async def disable(keys, key_id):
    await keys.change(key_id, enabled=False)


async def remove(keys, key_id):
    await keys.remove(key_id)


@pytest.mark.parametrize("revoke", [regenerate, exclude_address, disable, remove])
async def test_a_revoked_key_loses_its_streams(served, open_stream, revoke):
    async with open_stream() as stream:
        await revoke(served.state.access.keys, served.key_id)
        assert b"list_changed" not in await stream.aread()
        assert served.app.endpoint.active_requests.streams() == []


async def test_a_stream_outlives_changes_that_still_admit_it(served, open_stream):
    keys, bus = served.state.access.keys, served.app.endpoint.notifications
    await keys.create("other")
    async with open_stream():
        await keys.change(served.key_id, role="Read-only", allow_from=["127.0.0.0/8"])
        await keys.regenerate((await keys.get("other")).id)
        await served.state.store.watch.poll()
        await bus.refresh()
        (stream,) = served.app.endpoint.active_requests.streams()
        assert not stream._closing.is_set()


async def test_an_expired_key_loses_its_streams(served, monkeypatch):
    monkeypatch.setattr(notifications, "POLL_SECONDS", 0.1)
    headers = await begin(served)
    with anyio.fail_after(20):
        async with served.http.stream("GET", "/mcp", headers=headers) as stream:
            soon = datetime.now(UTC) + timedelta(seconds=1)
            await served.state.access.keys.change(served.key_id, expires=soon)
            assert await stream.aread() == b""


async def test_a_failed_check_of_a_revoked_key_is_retried(served, monkeypatch):
    bus = served.app.endpoint.notifications
    admits, failures = bus.admits, ["the database is away"]

    async def failing(caller):
        if failures:
            raise OSError(failures.pop())
        return await admits(caller)

    monkeypatch.setattr(bus, "admits", failing)
    monkeypatch.setattr(notifications, "RETRY_SECONDS", 0)
    headers = await begin(served)
    with anyio.fail_after(20):
        async with served.http.stream("GET", "/mcp", headers=headers) as stream:
            await served.state.access.keys.change(served.key_id, enabled=False)
            assert await stream.aread() == b""


async def test_the_sse_endpoint_event_repeats_a_key_from_the_path(served):
    with anyio.fail_after(20):
        async with served.http.stream("GET", f"/sse/{served.key}", headers=ACCEPT) as stream:
            lines = stream.aiter_lines()
            address = await first_data(lines)
            assert address.startswith(f"/sse/{served.key}/messages?session_id=")
            sent = await served.http.post(address, json=hello("2024-11-05"))
            assert sent.status_code == 202


async def test_the_sse_endpoint_event_has_no_key_from_a_header(served):
    headers = {**ACCEPT, "X-API-Key": served.key}
    with anyio.fail_after(20):
        async with served.http.stream("GET", "/sse", headers=headers) as stream:
            lines = stream.aiter_lines()
            address = await first_data(lines)
            assert address.startswith("/sse/messages?session_id=")
            other = {"X-API-Key": await served.new_key("other")}
            assert (await served.http.post(address, json=hello())).status_code == 401
            sent = await served.http.post(address, json=hello(), headers=other)
            assert sent.status_code == 404


async def test_calls_over_http_and_sse_are_limited(serving, fake_tools):
    async with serving(concurrent_calls_per_key=1) as served:
        address = sse_client(f"{served.url}/sse/{served.key}")
        async with Client(address, mode="legacy") as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "Wait")
            with anyio.fail_after(20):
                await fake_tools.started.wait()
                second = await client.call_tool("GetThing", {"vmid": 101})
            fake_tools.release.set()
    assert second.is_error is True
    assert second.content[0].text.startswith("This key has 1 call running already.")


async def first_data(lines):
    """Return the first data; the caller keeps `lines`: the stream is closed with its iterator."""
    async for line in lines:
        if line.startswith("data: "):
            return line.removeprefix("data: ")
    raise AssertionError("the stream ended")


async def test_a_batch_of_2025_03_26_is_answered_message_by_message(served):
    headers = await begin(served, version="2025-03-26")
    batch = [
        message("tools/list", 1),
        message("notifications/progress", progressToken=1, progress=1),
        message("tools/call", 2, name="GetThing", arguments={"vmid": 101}),
        message("no/such/method", 3),
    ]
    answer = await served.http.post("/mcp", json=batch, headers=headers)
    assert answer.headers["content-type"] == "text/event-stream"
    first, second, third = events(answer.text)
    assert (first["id"], second["id"], third["id"]) == (1, 2, 3)
    assert "tools" in first["result"]
    assert second["result"]["content"][0]["text"].startswith('{"data"')
    assert third["error"]["code"] == -32601


async def test_a_batch_counts_as_many_calls_as_it_has_messages(serving, fake_tools):
    async with serving(calls_per_minute_per_key=10) as served:
        headers = await begin(served, version="2025-03-26")
        start = {"name": "StartThing", "arguments": {"vmid": 101}}
        batch = [message("tools/call", number, **start) for number in range(1, 21)]
        answer = await served.http.post("/mcp", json=batch, headers=headers)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert fake_tools.done == []


async def test_a_batch_of_notifications_is_accepted_without_an_answer(served):
    headers = await begin(served, version="2025-03-26")
    batch = [message("notifications/cancelled", requestId=9)] * 2
    answer = await served.http.post("/mcp", json=batch, headers=headers)
    assert (answer.status_code, answer.content) == (202, b"")


@pytest.mark.parametrize(
    "batch",
    [[], [1], [hello()], [message("ping", n) for n in range(MOST_MESSAGES + 1)]],
    ids=["empty", "no messages", "initialize", "too many"],
)
async def test_an_invalid_batch_is_refused(served, batch):
    headers = await begin(served, version="2025-03-26")
    answer = await served.http.post("/mcp", json=batch, headers=headers)
    assert answer.status_code == 400


async def test_later_revisions_refuse_batches(served):
    headers = await begin(served, version="2025-11-25")
    answer = await served.http.post("/mcp", json=[message("ping", 1)], headers=headers)
    assert answer.status_code == 400


async def test_a_question_without_a_decision_is_a_refusal(served, fake_tools):
    async def refuses(_context, _params):
        return types.ErrorData(code=-32603, message="the window was closed")

    await served.state.settings.change({"unconfirmed_destructive": "allow"}, by="test")
    async with Client(served.mcp, mode="legacy", elicitation_callback=refuses) as client:
        result = await client.call_tool("DeleteThing", {"vmid": 101})
    assert (result.is_error, fake_tools.done) == (True, [])
    assert "gave no decision; nothing was changed" in result.content[0].text


async def test_a_stream_that_is_not_read_bounds_what_its_key_posts(served, fake_tools, monkeypatch):
    monkeypatch.setattr(sse, "MOST_UNANSWERED", 4)
    # few answers of this size fill the buffers of the connection
    thing = type(fake_tools.things[0])
    fake_tools.things[:] = [thing(vmid=100 + n, name="x" * 1_000) for n in range(20)]
    await served.state.settings.change({"calls_per_minute_per_key": 10_000}, by="test")
    unanswered = served.app.endpoint.transports.sse.unanswered

    async def posts(address, number):
        for _ in range(number):
            body = message("tools/call", 1, name="ListThings", arguments={})
            answer = await served.http.post(address, json=body)
            if answer.status_code != 202:
                return answer
        return answer

    with anyio.fail_after(30):
        async with served.http.stream("GET", f"/sse/{served.key}", headers=ACCEPT) as stream:
            lines = stream.aiter_lines()
            address = await first_data(lines)
            assert (await served.http.post(address, json=hello("2024-11-05"))).status_code == 202
            refused = await posts(address, 5_000)
            assert refused.status_code == 429
            assert "wait for their answers to be read" in refused.text
            other = await served.new_key("other")
            async with served.http.stream("GET", f"/sse/{other}", headers=ACCEPT) as another:
                place = await first_data(another.aiter_lines())
                assert (await served.http.post(place, json=hello())).status_code == 202
            async for _line in lines:  # read, until all is answered
                if not unanswered[served.key_id]:
                    break
            assert (await posts(address, 1)).status_code == 202
        while unanswered:  # noqa: ASYNC110 - there is no event for it: a stream ended
            await anyio.sleep(0.01)


async def test_a_cancelled_request_of_http_sse_is_not_counted_any_longer(
    serving, fake_tools, monkeypatch
):
    monkeypatch.setattr(sse, "MOST_UNANSWERED", 3)
    async with serving(concurrent_calls_per_key=10) as served:
        unanswered = served.app.endpoint.transports.sse.unanswered

        async def open_calls(number):
            while unanswered[served.key_id] != number:  # noqa: ASYNC110 - there is no event for it
                await anyio.sleep(0.002)

        async with served.http.stream("GET", f"/sse/{served.key}", headers=ACCEPT) as stream:
            lines = stream.aiter_lines()
            address = await first_data(lines)

            async def post(body):
                return (await served.http.post(address, json=body)).status_code

            def call(number):
                return message("tools/call", number, name="Wait", arguments={})

            def cancel(number):
                return message("notifications/cancelled", requestId=number)

            with anyio.fail_after(20):
                assert await post(hello("2024-11-05")) == 202
                await post(message("notifications/initialized"))
                for number in (1, 2, 3, 3, 3):  # a client may use an id twice
                    assert await post(call(number)) == 202
                    await open_calls(1)
                    assert await post(cancel(number)) == 202
                    await open_calls(0)
                for number in (1, 2, 3):
                    assert await post(call(number)) == 202
                await open_calls(3)
                assert await post(message("ping", 4)) == 429
                assert await post({"jsonrpc": "2.0", "id": 1, "result": {}}) == 202
                assert await post(cancel(1)) == 202
                await open_calls(2)
                assert await post(message("ping", 4)) == 202


async def test_an_answer_counts_until_its_connection_took_it():
    counter = sse.Counter()
    requests = sse._Requests(counter, "key")
    sending, receiving = anyio.create_memory_object_stream(0)
    writer = sse._Writer(requests)
    outgoing = sse._Outgoing(sending, writer)

    def of(kind, number, **content):
        return SessionMessage(kind(jsonrpc="2.0", id=number, **content))

    async with anyio.create_task_group() as tasks:
        for number in (1, 2, 3):
            requests.begin(of(types.JSONRPCRequest, number, method="ping"))
            tasks.start_soon(outgoing.send, of(types.JSONRPCResponse, number, result={}))
        for left in (2, 1, 0):
            await receiving.receive()
            await anyio.wait_all_tasks_blocked()
            assert counter["key"] == left + 1
            assert receiving.statistics().tasks_waiting_send == 0  # only one answer is held
            writer.written()
            assert counter["key"] == left
        await receiving.aclose()
    requests.begin(of(types.JSONRPCRequest, 4, method="ping"))
    with pytest.raises(anyio.BrokenResourceError):
        await outgoing.send(of(types.JSONRPCResponse, 4, result={}))
    assert not counter["key"]
    sending.close()


async def test_no_transport_takes_a_long_id(served):
    headers = await begin(served)
    batching = await begin(served, version="2025-03-26")
    modern = ACCEPT | {
        "X-API-Key": served.key,
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/list",
    }
    async with served.http.stream("GET", f"/sse/{served.key}", headers=ACCEPT) as stream:
        lines = stream.aiter_lines()
        address = await first_data(lines)
        for number, status in (
            ("x" * LONGEST_ID, 200),
            ("x" * (LONGEST_ID + 1), 400),
            (10**LONGEST_ID, 400),
        ):
            body = message("tools/list", number)
            newer = served.modern.message("tools/list", {}) | {"id": number}
            for path, sent, own in (
                ("/mcp", body, headers),
                ("/mcp", [body], batching),
                ("/mcp", newer, modern),
                (address, body, {}),
            ):
                answer = await served.http.post(path, json=sent, headers=own)
                assert answer.status_code == (202 if (path, status) == (address, 200) else status)
                assert (f"at most {LONGEST_ID} characters" in answer.text) == (status == 400)


async def test_an_id_in_progress_is_refused_within_its_session(served, fake_tools):
    headers = await begin(served, version="2025-03-26")
    other = await begin(served)
    call = message("tools/call", 5, name="Wait", arguments={})
    ping = message("ping", 5)
    answers = []

    async def wait():
        answers.append(await served.http.post("/mcp", json=call, headers=headers))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await fake_tools.started.wait()
            for body in (ping, ping | {"id": "5"}):
                refused = await served.http.post("/mcp", json=body, headers=headers)
                assert (refused.status_code, "same id" in refused.text) == (400, True)
            batch = [message("ping", 6), ping]
            mixed = await served.http.post("/mcp", json=batch, headers=headers)
            first, second = events(mixed.text)
            assert (first["id"], "same id" in second["error"]["message"]) == (6, True)
            assert (await served.http.post("/mcp", json=ping, headers=other)).status_code == 200
            fake_tools.release.set()
        assert answers[0].status_code == 200
        assert (await served.http.post("/mcp", json=ping, headers=headers)).status_code == 200


async def test_http_sse_takes_no_revision_without_a_handshake(served):
    # they hold no session, so their streams and sizes would not be bounded here
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    listen = {"method": "subscriptions/listen", "params": {"_meta": meta}}
    ping = {"method": "ping"}
    headers = {"Content-Type": "application/json"}
    async with served.http.stream("GET", f"/sse/{served.key}", headers=ACCEPT) as stream:
        address = await first_data(stream.aiter_lines())
        for version, message in (
            (None, listen),
            ("2025-11-25", listen),
            ("2026-07-28", ping),
            ("x", ping),
        ):
            own = headers | ({"MCP-Protocol-Version": version} if version else {})
            body = {"jsonrpc": "2.0", "id": 1, **message}
            answer = await served.http.post(address, json=body, headers=own)
            assert (answer.status_code, "HTTP+SSE takes" in answer.text) == (400, True)


@pytest.mark.parametrize("odd", [{"id": 1, "error": "SECRET"}, {"id": 1, "result": "SECRET"}])
async def test_no_text_of_a_malformed_message_is_logged(served, caplog, odd):
    async with served.http.stream("GET", f"/sse/{served.key}", headers=ACCEPT) as stream:
        address = await first_data(stream.aiter_lines())
        for path in (address, f"/mcp/{served.key}"):
            body = {"jsonrpc": "2.0", **odd}
            headers = await begin(served)
            assert (await served.http.post(path, json=body, headers=headers)).status_code == 400
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("path", ["/mcp", "/sse/messages?session_id=" + 32 * "0"])
@pytest.mark.parametrize(
    "odd",
    [
        {"id": None, "method": "ping"},
        {"id": 1.5, "method": "ping"},
        {"id": True, "method": "ping"},
        {"id": [1], "method": "ping"},
        {"id": 1, "method": 5},
        {"id": 1, "method": "ping", "params": [1]},
        {"id": 1},
        {"jsonrpc": "1.0", "id": 1, "method": "ping"},
    ],
    ids=str,
)
async def test_an_invalid_message_is_refused(served, path, odd):
    headers = await begin(served)
    answer = await served.http.post(path, json={"jsonrpc": "2.0", **odd}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32600)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000], ids=lambda b: b[:3].hex())
async def test_invalid_json_is_a_parse_error(served, body):
    headers = {**await begin(served), "Content-Type": "application/json"}
    answer = await served.http.post("/mcp", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32700)


async def test_a_batch_for_an_unknown_session_gets_404(served):
    headers = {**await begin(served, version="2025-03-26"), "Mcp-Session-Id": "gone"}
    batch = [message("ping", 1), message("ping", 2)]
    answer = await served.http.post("/mcp", json=batch, headers=headers)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].startswith("Session not found: send initialize again")


async def test_a_session_has_no_tasks(served):
    headers = await begin(served)
    asked = message("tasks/get", 1, taskId="x")
    answer = await served.http.post("/mcp", json=asked, headers=headers)
    assert events(answer.text)[0]["error"]["code"] == -32601
