"""The session's own stream after errors, over a transport in memory: renewals and the position."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from pvemcp_bridge import legacy as legacy_module
from pvemcp_bridge.annotations import ToolAnnotations
from pvemcp_bridge.errors import Lost, Silent, Unreachable
from pvemcp_bridge.exchange import Exchange
from pvemcp_bridge.legacy import Legacy
from pvemcp_bridge.messages import request
from pvemcp_bridge.sse import Event

pytestmark = pytest.mark.anyio


@dataclass
class Response:
    """A response: a body, or a stream of events that ends or breaks."""

    status: int = 200
    body: str = ""
    events_: list[str] | None = None
    error: Exception | None = None
    headers: dict = field(default_factory=dict)
    retry_after: float | None = None

    @property
    def is_stream(self) -> bool:
        return self.events_ is not None

    async def text(self) -> str:
        return self.body

    async def events(self):
        for each in self.events_:
            yield Event(b"", id=each)
        if self.error:
            raise self.error
        await asyncio.sleep(0)


class MemoryServer:
    """A transport whose server opens sessions and answers GET with the responses of a script.

    After the last one it stays open, so that a test can wait for `done`.
    """

    def __init__(self, *script) -> None:
        self.script = list(script)
        self.renewal_error: Exception | None = None  # until the last response of the script
        self.cursors: list[tuple[str, str]] = []
        self.sessions = 0
        self.done = asyncio.Event()

    @asynccontextmanager
    async def send(self, method, headers, text="", **_):
        if method == "GET":
            yield await self._stream(headers)
        elif '"initialize"' in text:
            if self.sessions and self.renewal_error:
                raise self.renewal_error
            self.sessions += 1
            body = '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25"}}'
            id_ = '"pvemcp-bridge-renewal"' if self.sessions > 1 else '"open"'
            yield Response(body=body % id_, headers={"mcp-session-id": f"s{self.sessions}"})
        else:
            yield Response(status=202)

    async def _stream(self, headers):
        self.cursors.append((headers["mcp-session-id"], headers.get("last-event-id", "")))
        if not self.script:
            self.done.set()
            await asyncio.Event().wait()
        answer = self.script.pop(0)
        if not self.script:
            self.renewal_error = None
        if isinstance(answer, Exception):
            raise answer
        return answer


async def cursors_of(server: MemoryServer, monkeypatch: pytest.MonkeyPatch):
    """Run a session until the script has ended; return the session and position of each GET."""

    async def deliver(_message):
        pass

    monkeypatch.setattr(legacy_module, "_FIRST_RECONNECT_SECONDS", 0)
    exchange = Exchange(server, ToolAnnotations(), 5, str)
    client = Legacy(exchange, deliver)
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x"}}
    await client.request(request("open", "initialize", params), deliver)
    await client.notify(request(None, "notifications/initialized", {}))
    await asyncio.wait_for(server.done.wait(), 5)
    await client.close()
    return server.cursors


BREAKS = [Lost("broke"), Silent("silent")]
REFUSALS = [Unreachable("away"), Response(429), Response(502), Response(503), Response(504)]


@pytest.mark.parametrize("error", BREAKS, ids=lambda error: type(error).__name__)
async def test_a_stream_that_breaks_is_resumed_after_its_last_event(monkeypatch, error):
    server = MemoryServer(Response(events_=["e1", "e2"], error=error))
    assert await cursors_of(server, monkeypatch) == [("s1", ""), ("s1", "e2")]


@pytest.mark.parametrize("answer", REFUSALS, ids=["unreachable", "429", "502", "503", "504"])
async def test_the_position_outlives_a_server_that_is_not_available(monkeypatch, answer):
    server = MemoryServer(Response(events_=["e1"]), answer)
    assert await cursors_of(server, monkeypatch) == [("s1", ""), ("s1", "e1"), ("s1", "e1")]


@pytest.mark.parametrize("status", [400, 410])
async def test_a_refused_position_is_given_up(monkeypatch, status):
    server = MemoryServer(Response(events_=["e1"]), Response(status))
    assert await cursors_of(server, monkeypatch) == [("s1", ""), ("s1", "e1"), ("s1", "")]


@pytest.mark.parametrize("error", BREAKS, ids=lambda error: type(error).__name__)
async def test_the_stream_survives_a_renewal_that_fails(monkeypatch, error):
    server = MemoryServer(Response(events_=["e1"]), Response(404), Response(404))
    server.renewal_error = error
    cursors = await cursors_of(server, monkeypatch)
    assert cursors == [("s1", ""), ("s1", "e1"), ("s1", "e1"), ("s2", "")]
