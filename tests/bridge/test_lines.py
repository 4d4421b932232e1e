"""Lines: malformed ones get an error, all others pass unchanged in any size and form."""

import asyncio
import json

import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"nonsense\n", -32700),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"\n', -32700),
        (b'{"id": 1, "method": "ping", "params": {"x": NaN}}\n', -32700),
        (b"\xff\xfe\n", -32700),
        (b"[" * 100_000 + b"\n", -32700),
        (b"[]\n", -32600),
        (b"7\n", -32600),
        (b'"ping"\n', -32600),
        (b"{}\n", -32600),
        (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}\n', -32600),
        (b'{"jsonrpc": "2.0", "id": [1], "method": "ping"}\n', -32600),
        (b'{"jsonrpc": "2.0", "id": true, "method": "ping"}\n', -32600),
    ],
)
async def test_a_malformed_line_gets_an_error_and_the_next_line_works(shared_bridge, line, code):
    shared_bridge.write(line)
    reply = await shared_bridge.read()
    assert reply["error"]["code"] == code
    assert reply["id"] is None
    assert "result" in await shared_bridge.reply(shared_bridge.request("tools/list"))


async def test_a_message_without_a_method_gets_an_error_with_its_id(shared_bridge):
    shared_bridge.write(b'{"jsonrpc": "2.0", "id": "x", "methud": "ping"}\n')
    reply = await shared_bridge.read()
    assert (reply["id"], reply["error"]["code"]) == ("x", -32600)


@pytest.mark.parametrize(
    "raw",
    [
        "0",
        "-7",
        "9007199254740993",
        "1" * 10_000,
        "1.50",
        "1e2",
        '""',
        '"1"',
        '"a\\u00e9\\ud83d\\ude00\\n"',
        '"' + "x" * 100_000 + '"',
    ],
    ids=["zero", "negative", "wide", "huge", "float", "power", "empty", "text", "escapes", "long"],
)
async def test_ids_are_returned_exactly_as_sent(shared_stateless, shared_server, faults, raw):
    meta = json.dumps({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}})
    line = f'{{"jsonrpc":"2.0","id":{raw},"method":"ping","params":{meta}}}'
    shared_server.fail("ping", faults.status(200, b"no json"))
    shared_stateless.write(line)
    assert (await shared_stateless.read_line()).startswith(
        f'{{"jsonrpc":"2.0","id":{raw},"error"'.encode()
    )

    async def echo(call):
        assert call.raw == line.encode()
        await call.answer(200, f'{{"id" : {raw}, "result": {{"n": 1.0e5}}}}'.encode())

    shared_server.fail("ping", echo)
    shared_stateless.write(line)
    assert (
        await shared_stateless.read_line()
        == f'{{"id" : {raw}, "result": {{"n": 1.0e5}}}}\n'.encode()
    )


async def test_a_reply_over_several_lines_is_joined_to_one(shared_bridge, shared_server):
    async def pretty(call):
        body = {"jsonrpc": "2.0", "id": call.id, "result": {"text": "a\u2028b"}}
        await call.answer(200, json.dumps(body, indent=2, ensure_ascii=False).encode())

    shared_server.fail("tools/call", pretty)
    assert (await shared_bridge.reply(shared_bridge.call("destroy")))["result"] == {
        "text": "a\u2028b"
    }


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
async def test_events_are_read_in_any_chunks_and_line_ends(shared_bridge, shared_server, line_end):
    async def byte_by_byte(call):
        body = json.dumps({"jsonrpc": "2.0", "id": call.id, "result": {"text": "grün"}}, indent=1)
        lines = [":hello", "event: message", *(f"data: {x}" for x in body.split("\n")), "", ""]
        data = line_end.join(line.encode() for line in lines)
        await call.stream()
        for byte in data:
            await call.piece(bytes([byte]))
        await call.end()

    shared_server.fail("tools/call", byte_by_byte)
    assert (await shared_bridge.reply(shared_bridge.call("destroy")))["result"] == {"text": "grün"}


async def test_an_event_without_a_blank_line_at_the_end_counts(shared_bridge, shared_server):
    async def abrupt(call):
        data = json.dumps({"jsonrpc": "2.0", "id": call.id, "result": {"kept": True}})
        await call.stream()
        await call.piece(f"data: {data}".encode())
        await call.end()

    shared_server.fail("tools/call", abrupt)
    assert (await shared_bridge.reply(shared_bridge.call("destroy")))["result"] == {"kept": True}


@pytest.mark.parametrize("streamed", [False, True], ids=["body", "stream"])
async def test_messages_of_twenty_megabytes_pass_both_ways(shared_bridge, shared_server, streamed):
    large = "é" * 3_400_000  # six bytes each in the JSON of both ends

    async def mirror(call):
        result = {"jsonrpc": "2.0", "id": call.id, "result": call.message["params"]["arguments"]}
        if not streamed:
            await call.answer(200, result)
            return
        await call.stream()
        await call.event(result)
        await call.end()

    shared_server.fail("tools/call", mirror)
    number = shared_bridge.call("destroy", {"large": large})
    assert (await shared_bridge.reply(number))["result"]["large"] == large


async def test_a_slow_client_gets_all_lines_whole_and_in_order(bridge, server):
    sizes = [10, 300_000, 10, 10, 5_000, 10] * 20
    sent = asyncio.Event()

    async def talk(call):
        await call.stream()
        for number, size in enumerate(sizes):
            params = {"progress": number, "message": "x" * size}
            await call.event(
                {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
            )
        await call.event({"jsonrpc": "2.0", "id": call.id, "result": {}})
        await call.end()
        sent.set()

    await bridge.open()
    server.fail("tools/call", talk)
    bridge.process._transport.get_pipe_transport(1).pause_reading()
    number = bridge.call("destroy")
    async with asyncio.timeout(20):
        await sent.wait()
    bridge.process._transport.get_pipe_transport(1).resume_reading()
    notes = [(await bridge.read())["params"] for _ in sizes]
    assert [note["progress"] for note in notes] == list(range(len(sizes)))
    assert [len(note["message"]) for note in notes] == sizes
    assert (await bridge.reply(number))["result"] == {}


async def test_each_message_of_a_batch_gets_a_reply(bridge, server):
    await bridge.open()
    entries = [{"jsonrpc": "2.0", "id": n, "method": "tools/list"} for n in ("a", "b")]
    if bridge.modern:
        meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
        entries = [entry | {"params": {"_meta": meta}} for entry in entries]
    bridge.send([*entries, {"no": "message"}])
    replies = [await bridge.read() for _ in range(3)]
    assert {reply["id"] for reply in replies} == {"a", "b", None}


async def test_cancelling_an_unknown_request_does_no_harm(bridge):
    for number in ([1], {"a": 1}, None, True, "unknown"):
        bridge.notify("notifications/cancelled", {"requestId": number})
    await bridge.open()
    assert await bridge.end() == ([], 0)


async def test_blank_lines_and_a_byte_order_mark_are_ignored(bridge):
    bridge.write(b"\xef\xbb\xbf\n  \r\n")
    await bridge.open()
    assert await bridge.end() == ([], 0)


async def test_a_line_with_byte_order_mark_and_crlf_is_read(bridge, server):
    await bridge.open()
    meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
    params = meta if bridge.modern else {}
    message = json.dumps({"jsonrpc": "2.0", "id": "w", "method": "ping", "params": params})
    bridge.write(b"\xef\xbb\xbf" + message.encode() + b"\r\n")
    assert await bridge.read_line() == b'{"jsonrpc": "2.0", "id": "w", "result": {}}\n'
    assert server.of("ping")[0].raw == message.encode()


async def test_the_last_line_needs_no_line_end(stateless, server):
    meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": meta})
    stateless.write(line.encode())
    rest, code = await stateless.end()
    assert [reply["id"] for reply in rest] == [1]
    assert code == 0
