"""MCP server over real sockets with faults on demand.

It answers like a small server of both eras. `fail(method, fault, times)` lets a fault answer the
next messages of a method; a fault is a coroutine function of a `Call`.
"""

import asyncio
import contextlib
import itertools
import json
import socket
import sys
from collections import deque
from dataclasses import dataclass, field

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
REASONS = {200: "OK", 202: "Accepted", 404: "Not Found", 405: "Method Not Allowed"}
TOOLS = [
    {"name": "look", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
    {"name": "set", "inputSchema": {"type": "object"}, "annotations": {"idempotentHint": True}},
    {"name": "destroy", "inputSchema": {"type": "object"}},
]


def _integer(digits):
    return int(digits) if len(digits) < 4000 else digits


@dataclass
class Call:
    """HTTP request, with methods to answer it."""

    server: "FaultServer"
    method: str
    path: str
    headers: dict
    raw: bytes
    reader: asyncio.StreamReader = field(repr=False)
    writer: asyncio.StreamWriter = field(repr=False)

    @property
    def message(self):
        return json.loads(self.raw, parse_int=_integer) if self.raw else {}

    @property
    def name(self):
        """JSON-RPC method, or the HTTP method if there is none."""
        return self.message.get("method") or (self.method if self.method != "POST" else "response")

    @property
    def modern(self):
        return VERSION_KEY in (self.message.get("params") or {}).get("_meta", {})

    @property
    def id(self):
        return self.message.get("id")

    async def answer(self, status, body=b"", headers=None, content_type="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = {"content-length": len(body), "content-type": content_type} | (headers or {})
        await self._head(status, head)
        self.writer.write(body)
        await self.writer.drain()

    async def result(self, result, headers=None):
        await self.answer(200, {"jsonrpc": "2.0", "id": self.id, "result": result}, headers)

    async def stream(self, headers=None):
        """Start a stream of events."""
        base = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        await self._head(200, base | (headers or {}))

    async def event(self, message=None, *, event_id="", raw=None):
        data = json.dumps(message) if message is not None else ""
        head = f"id: {event_id}\n" if event_id else ""
        await self.piece(raw or f"{head}data: {data}\n\n".encode())

    async def piece(self, data):
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self.writer.drain()

    async def end(self):
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    def drop(self):
        """Break the connection without an answer."""
        self.writer.transport.abort()

    async def hung_up(self):
        """Wait until the client closes the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1024):
                pass

    async def _head(self, status, headers):
        reason = REASONS.get(status, "Status")
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{n}: {v}" for n, v in headers.items())]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        await self.writer.drain()


class FaultServer:
    """The server; `calls` holds all requests in order."""

    def __init__(self, host="127.0.0.1", tls=None):
        self.host = host
        self.port = 0
        self._reserve_port()
        self.tls = tls
        self.calls = []
        self.connections = 0
        self.sessions = set()
        self.call_added = asyncio.Condition()
        self._faults = {}
        self._numbers = itertools.count(1)
        self._server = None
        self._tasks = set()

    @property
    def url(self):
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}/mcp"

    async def start(self):
        self._server = await asyncio.start_server(
            self._connected, sock=self._socket, ssl=self.tls, limit=1 << 26
        )

    async def stop(self):
        """Stop like a killed process: connections break, sessions are forgotten."""
        self._server.close()
        self.release_port()
        self._reserve_port()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.sessions.clear()

    def _reserve_port(self):
        """Bind the port without listening, so that no other process takes it in between."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        if sys.platform != "win32":  # there it would let other processes take the port
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((self.host, self.port))
        self.port = self._socket.getsockname()[1]

    def release_port(self):
        self._socket.close()

    def reset(self):
        """Forget recorded calls and pending faults."""
        self.calls.clear()
        self._faults.clear()

    async def restart(self):
        await self.stop()
        await self.start()

    def fail(self, method, fault, times=1):
        self._faults.setdefault(method, deque()).extend([fault] * times)

    def names(self):
        return [call.name for call in self.calls]

    def of(self, name):
        return [call for call in self.calls if call.name == name]

    async def until(self, name, count=1):
        """Wait for the count-th call of a name and return it."""
        async with self.call_added:
            await self.call_added.wait_for(lambda: len(self.of(name)) >= count)
        return self.of(name)[count - 1]

    async def _connected(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        self.connections += 1
        try:
            while call := await self._read(reader, writer):
                async with self.call_added:
                    self.calls.append(call)
                    self.call_added.notify_all()
                faults = self._faults.get(call.name)
                await (faults.popleft() if faults else respond)(call)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the bridge hung up, or the server stops
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _read(self, reader, writer):
        first = await reader.readexactly(1)
        if first == b"\x16":  # TLS; web servers without TLS answer like this
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return None
        head = first + await reader.readuntil(b"\r\n\r\n")
        request, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = request.split(" ")
        pairs = (line.split(":", 1) for line in lines if line)
        headers = {name.lower(): value.strip() for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Call(self, method, path, headers, body, reader, writer)

    def new_session(self):
        name = f"session-{next(self._numbers)}"
        self.sessions.add(name)
        return name


async def respond(call):
    """Answer like a server without a fault."""
    if call.method == "GET":
        await call.answer(405)
    elif call.method == "DELETE":
        call.server.sessions.discard(call.headers.get("mcp-session-id"))
        await call.answer(200)
    elif call.name == "initialize":
        result = {
            "protocolVersion": call.message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fault", "version": "1"},
        }
        await call.result(result, {"mcp-session-id": call.server.new_session()})
    elif not call.modern and call.headers.get("mcp-session-id") not in call.server.sessions:
        error = {"code": -32600, "message": "Session not found"}
        await call.answer(404, {"jsonrpc": "2.0", "id": None, "error": error})
    elif call.id is None or call.name == "response":
        await call.answer(202)
    else:
        await call.result(outcome(call))


def outcome(call):
    name = call.name
    if name == "tools/list":
        return {"tools": TOOLS}
    if name == "tools/call":
        text = json.dumps(call.message["params"].get("arguments", {}))
        return {"content": [{"type": "text", "text": text}]}
    if name == "server/discover":
        return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    return {}


def status(code, body=b"", headers=None, content_type="text/plain"):
    """Return a fault that answers with this HTTP status."""

    async def fault(call):
        await call.answer(code, body, headers, content_type)

    return fault


async def drop(call):
    """Break the connection once the request is here."""
    call.drop()


async def silent(call):
    """Leave the request without an answer."""
    await call.hung_up()


async def ends_without_reply(call):
    """Answer with a stream that ends in good order without the reply."""
    await call.stream()
    await call.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}})
    await call.end()


@contextlib.asynccontextmanager
async def running(**options):
    server = FaultServer(**options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
        server.release_port()
