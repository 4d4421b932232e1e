"""Malformed requests: each is answered as the client's error, and none fails the server."""

import json
import logging
import random

import pytest

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
RAW = [
    b"",
    b" ",
    b"null",
    b"[]",
    b"{",
    b"{}",
    b'"text"',
    b"1e999",
    b"\xff\xfe",
    b"\x00" * 100,
    b"[" * 5_000,
    b'{"a":' * 5_000,
    b'{"jsonrpc":"2.0","id":' + b"9" * 5_000 + b',"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}',
    b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}',
    b'{"jsonrpc":"2.0","id":{},"method":"tools/list"}',
    b'{"jsonrpc":"2.0","result":{},"id":1}',
]
ODD = [None, True, -1, 0.5, 10**40, "", "\ud800", "\x00", "../..", [], {}, [[]], {"a": {"b": []}}]
METHODS = ["tools/call", "tools/list", "prompts/get", "resources/read", "completion/complete"]
METHODS += ["tasks/get", "tasks/cancel", "subscriptions/listen", "server/discover", "no/such"]


async def post(http, key, body, **headers):
    return await http.post(f"/mcp/{key}", content=body, headers=JSON | headers)


@pytest.mark.parametrize("body", RAW, ids=range(len(RAW)))
async def test_a_malformed_message_is_refused(served, body, caplog):
    for version in ("2026-07-28", "2025-11-25", "2025-03-26", "x", ""):
        headers = {"MCP-Protocol-Version": version, "Mcp-Method": "ping"} if version else {}
        answer = await post(served.http, served.key, body, **headers)
        assert 400 <= answer.status_code < 500, (version, answer.text)
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR and one.exc_info]


async def test_malformed_parameters_are_protocol_errors(served):
    chance = random.Random(7)  # noqa: S311 - the same input in every run
    for _ in range(300):
        method = chance.choice(METHODS)
        names = [
            "name",
            "arguments",
            "uri",
            "cursor",
            "taskId",
            "ref",
            "argument",
            "inputResponses",
        ]
        names += ["requestState", "notifications", "context"]
        params = {name: chance.choice(ODD) for name in chance.sample(names, 3)}
        body = served.modern.message(method, params)
        named = params.get("uri") if method == "resources/read" else params.get("name")
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}
        if isinstance(named, str) and named.isprintable() and named.isascii():
            headers["Mcp-Name"] = named
        if method == "subscriptions/listen" and isinstance(params.get("notifications"), dict):
            continue  # a valid one opens a stream that does not end
        answer = await post(served.http, served.key, json.dumps(body).encode(), **headers)
        assert answer.status_code < 500, (body, answer.text)
        assert answer.json()["jsonrpc"] == "2.0"


async def test_malformed_arguments_are_tool_errors(served, fake_tools):
    for name in fake_tools.tools:
        if name in ("Wait", "Break"):
            continue
        for odd in ODD:
            for argument in ("vmid", "cursor", "fields", "limit", "format", "dry_run", "\ud800"):
                answer = await served.modern.call(name, **{argument: odd})
                assert "result" in answer, (name, argument, odd, answer)
                assert "incident" not in json.dumps(answer), (name, argument, odd, answer)
