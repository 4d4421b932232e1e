"""Small parts of the door, each with inputs that nobody has chosen kindly."""

import asyncio
from time import monotonic

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvemcp_server.config import Config
from pvemcp_server.http.client_address import client_address, networks
from pvemcp_server.http.credentials import take_key
from pvemcp_server.http.exchange import HttpExchange
from pvemcp_server.http.hosts import Hosts
from pvemcp_server.pipeline.sanitize import Cleaner, clean_line
from pvemcp_server.store.key_format import new_id, new_secret

pytestmark = pytest.mark.anyio
KEY = new_secret(new_id())
PATHS = st.lists(st.sampled_from(["mcp", "sse", KEY, "x", "", "messages", ".well-known", "a b"]))


def scope(path, headers=(), query=""):
    return {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
    }


@given(PATHS, st.sampled_from([b"x-api-key", b"authorization"]), st.booleans())
def test_wherever_the_key_was_it_is_nowhere_afterwards(parts, header, in_query):
    value = KEY.encode() if header == b"x-api-key" else b"Bearer " + KEY.encode()
    headers = [(header, value)] if parts[:1] in (["mcp"], ["sse"]) else []
    seen = scope("/" + "/".join(parts), headers, f"key={KEY}" if in_query else "")
    presented = take_key(seen)
    assert KEY not in repr(seen)
    assert KEY not in repr(presented)
    assert seen["raw_path"].isascii()


@pytest.mark.parametrize(
    ("path", "secret", "rest"),
    [
        ("/mcp", "", "/mcp"),
        ("/mcp/", "", "/mcp"),
        ("/mcp/abc", "abc", "/mcp"),
        ("/mcp/abc/", "abc", "/mcp"),
        ("/sse/abc", "abc", "/sse"),
        ("/sse/abc/messages", "abc", "/sse/messages"),
        ("/sse/messages", "", "/sse/messages"),
        ("/mcp/abc/more", "abc", "/mcp/more"),
        ("/other/abc", "", "/other/abc"),
        ("/.well-known/x/mcp/abc", "", "/.well-known/x"),
    ],
)
def test_a_key_in_the_path_is_the_segment_after_the_endpoint(path, secret, rest):
    seen = scope(path)
    presented = take_key(seen)
    assert (presented.secret if presented else "") == secret
    assert (seen["path"], seen["raw_path"]) == (rest, rest.encode())


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "nonsense", "nonsense"),
        ("::1", "198.51.100.1", "::1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1:4711, 10.0.0.2:80", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
    ],
)
def test_only_trusted_proxies_are_believed_about_the_clients_address(peer, forwarded, found):
    headers = [(b"x-forwarded-for", forwarded.encode())]
    seen = {"client": (peer, 1), "headers": headers}
    assert client_address(seen, networks(["10.0.0.0/8"])) == found


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("pve.example", True),
        ("PVE.example:443", True),
        ("public.example", True),
        ("evil.example", False),
        ("pve.example.evil.example", False),
        ("", False),
        ("[::1", False),
        ("1.2.3.4.evil.example", False),
    ],
)
def test_a_host_is_known_by_configuration_or_as_an_address(host, known):
    config = Config(public_url="https://public.example/pve", allowed_hosts=("pve.example",))
    assert Hosts.of(config).knows_host(host) is known


@given(st.text())
def test_cleaned_text_keeps_what_can_be_seen(text):
    visible = Cleaner(10_000).value(text, "n")
    assert visible.encode().decode() == visible
    assert not any(0x202A <= ord(c) <= 0x202E or 0xE0000 <= ord(c) <= 0xE007F for c in visible)
    assert [c for c in visible if c.isalnum()] == [c for c in text if c.isalnum()]


@given(st.text())
def test_a_cleaned_line_is_one_line(text):
    assert len(clean_line(text, 50).splitlines()) <= 1


@pytest.mark.parametrize("work", ["read", "send"])
async def test_a_client_that_keeps_us_waiting_is_given_up_when_somebody_looks(work):
    async def never(*_):
        await anyio.sleep_forever()

    ended = anyio.Event()
    wires = []

    async def exchange():
        wires.append(HttpExchange(never, never))
        try:
            await (wires[0].read() if work == "read" else wires[0].send(START))
        except anyio.get_cancelled_exc_class():
            ended.set()
            raise

    task = asyncio.create_task(exchange())
    await anyio.wait_all_tasks_blocked()
    wires[0].look_after(monotonic())
    assert wires[0].given_up is False
    wires[0].look_after(monotonic() + 61)
    with anyio.fail_after(20):
        await ended.wait()
    assert wires[0].given_up is True
    assert (await asyncio.gather(task, return_exceptions=True))[0] is not None
    await wires[0].finish()


START = {"type": "http.response.start", "status": 200, "headers": []}


async def test_a_closed_stream_sees_its_client_leave_and_is_completed():
    sent = []

    async def receive():
        await anyio.sleep_forever()

    async def send(message):
        sent.append(message)

    exchange = HttpExchange(receive, send, is_stream=True)
    await exchange.send(START)
    exchange.close()
    with anyio.fail_after(20):
        assert await exchange.receive() == {"type": "http.disconnect"}
    await exchange.finish()
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
