"""Fixtures: a client over an in-memory transport, and TLS servers that follow a script."""

import asyncio
import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxmox_client import ApiToken, Client, Limits, Password, Tls

TOKEN = ApiToken("mcp@pve!full", "0f0e0d0c-secret")


@pytest.fixture
async def fast_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Return the clock of the event loop, which jumps to the next timer instead of waiting."""
    loop: Any = asyncio.get_running_loop()
    now, select = loop.time(), loop._selector.select

    def jump(timeout: float | None = None) -> Any:
        nonlocal now
        now += timeout or 0.0
        return select(0)

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(loop._selector, "select", jump)
    return loop.time


@dataclass
class FakePve:
    """Prepared answers by request line; any other request gets 501, like an unknown path."""

    answers: dict[str, list[httpx.Response]] = field(default_factory=dict)
    requests: list[httpx.Request] = field(default_factory=list)

    def answer(self, line: str, data: Any = None, **more: Any) -> None:
        """Queue an answer to `METHOD /path`; the last one is repeated."""
        body = json.dumps({"data": data, **more}).encode()
        self.respond(line, 200, "OK", body)

    def respond(self, line: str, status: int, reason: str = "", body: bytes = b"") -> None:
        """Queue a raw response."""
        response = httpx.Response(
            status, content=body, extensions={"reason_phrase": reason.encode()}
        )
        self.answers.setdefault(line, []).append(response)

    def answer_error(self, line: str, status: int, message: str, **more: Any) -> None:
        """Queue an error with its message in the status line and in the body, like Proxmox."""
        body = json.dumps({"data": None, "message": f"{message}\n", **more}).encode()
        self.respond(line, status, message, body)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.raw_path.decode().partition("?")[0].removeprefix("/api2/json")
        queue = self.answers.get(f"{request.method} {path}")
        if not queue:
            missing = f"Method '{request.method} {path}' not implemented".encode()
            return httpx.Response(501, extensions={"reason_phrase": missing})
        return queue.pop(0) if len(queue) > 1 else queue[0]

    @property
    def lines(self) -> list[str]:
        """The requests with their parameters: `GET /version`, `POST /x a=1`."""
        return [self._line(request) for request in self.requests]

    @staticmethod
    def _line(request: httpx.Request) -> str:
        path, _, query = request.url.raw_path.decode().partition("?")
        form = query or request.content.decode()
        return f"{request.method} {path.removeprefix('/api2/json')} {form}".rstrip()


@pytest.fixture
def pve() -> FakePve:
    return FakePve()


@pytest.fixture
def client_as(pve: FakePve) -> Callable[..., Client]:
    """Create a client of `pve` for an account."""

    def make(
        auth: ApiToken | Password = TOKEN, *hosts: str, limits: Limits | None = None
    ) -> Client:
        transport = httpx.MockTransport(pve)
        names = hosts or ("pve1",)
        return Client(names, auth, limits=limits or Limits(), http_transport=transport)

    return make


@pytest.fixture
def client(client_as: Callable[..., Client]) -> Client:
    return client_as()


@pytest.fixture(scope="session")
def exchanges(pve_recordings: Any) -> dict[str, list[dict[str, Any]]]:
    """Load recorded exchanges by version."""
    return {
        path.stem.removeprefix("exchanges-"): [
            json.loads(line) for line in path.read_text().splitlines()
        ]
        for path in sorted(pve_recordings.glob("exchanges-*.jsonl"))
    }


@dataclass(frozen=True)
class Certificate:
    """A node's certificate, signed by a CA without keyUsage like older Proxmox CAs."""

    ca_pem: str
    chain: Path
    fingerprint: str

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain)
        return context


def _signed(name: str, key, issuer: x509.Name, issuer_key, extension) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(extension, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> Certificate:
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "PVE Cluster CA")])
    ca = _signed("PVE Cluster CA", ca_key, ca_name, ca_key, x509.BasicConstraints(True, None))
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("pve1")]
    leaf = _signed("pve1", key, ca_name, ca_key, x509.SubjectAlternativeName(names))
    chain = tmp_path_factory.mktemp("tls") / "pveproxy.pem"
    chain.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + leaf.public_bytes(serialization.Encoding.PEM)
    )
    ca_pem = ca.public_bytes(serialization.Encoding.PEM).decode()
    return Certificate(ca_pem, chain, leaf.fingerprint(hashes.SHA256()).hex(":").upper())


ENDLESS = {
    "informational": b"HTTP/1.1 100\n\n" * 1_000,
    "header": b"X-A: b\r\n" * 1_000,
    "bytes": b"H",
}
"""Heads that never end, by their action; what is not their beginning may follow it."""


class Pveproxy:
    """A TLS server that follows a script with one action per request; the last one is repeated.

    Actions: "answer", "answer and close" (without notice, as after 5 s idle), "drop" (no answer),
    "half" (of a body), "hang" (until the client disconnects), and heads of ENDLESS.
    """

    def __init__(self) -> None:
        self.script = ["answer"]
        self.requests: list[str] = []
        self.connections = 0
        self.disconnected = asyncio.Event()
        self.request_received = asyncio.Event()
        self.host = ""
        self._writers: list[asyncio.StreamWriter] = []

    def hang_up(self) -> None:
        """Abort all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while await self._serve_request(reader, writer):
                pass
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            self.disconnected.set()
        finally:
            writer.transport.abort()

    async def _serve_request(self, reader, writer) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        length = next((int(x[15:]) for x in lines if x.lower().startswith("content-length:")), 0)
        await reader.readexactly(length)
        self.requests.append(lines[0].removesuffix(" HTTP/1.1").replace("/api2/json", ""))
        self.request_received.set()
        return await self._perform(reader, writer)

    async def _perform(self, reader, writer) -> bool:
        action = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if action == "hang":
            await reader.read()
            self.disconnected.set()
        if action in ("hang", "drop"):
            return False
        while action in ENDLESS:
            writer.write(ENDLESS[action])
            await writer.drain()
            await asyncio.sleep(0)
        body = b'{"data":{"version":"9.2.11","release":"9.2"}}'
        content = body[:10] if action == "half" else body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + content)
        await writer.drain()
        return action == "answer"


@pytest.fixture
async def pveproxy(certificate: Certificate) -> AsyncIterator[Callable[..., Any]]:
    """Provide a function that starts a server: `await pveproxy("drop", "answer")`."""
    async with AsyncExitStack() as stack:

        async def start(*script: str) -> Pveproxy:
            proxy = Pveproxy()
            proxy.script = list(script) or ["answer"]
            server = await asyncio.start_server(
                proxy.serve, "127.0.0.1", 0, ssl=certificate.context()
            )
            stack.push_async_callback(server.wait_closed)
            stack.callback(proxy.hang_up)
            stack.callback(server.close)
            proxy.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            return proxy

        yield start


@pytest.fixture
async def closed_host() -> str:
    """Return an address with a closed port."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return f"127.0.0.1:{port}"


@pytest.fixture
async def plain_host() -> AsyncIterator[str]:
    """Start a server that answers every request in plain HTTP."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()


@pytest.fixture
async def socket_client(certificate: Certificate) -> AsyncIterator[Callable[..., Client]]:
    """Provide a function that creates a client of real sockets, with the certificate pinned."""
    async with AsyncExitStack() as stack:

        def make(*hosts: str, tls: Tls | None = None, limits: Limits | None = None) -> Client:
            trust = tls or Tls(fingerprints={certificate.fingerprint})
            client = Client(hosts, TOKEN, tls=trust, limits=limits or Limits())
            stack.push_async_callback(client.aclose)
            return client

        yield make
