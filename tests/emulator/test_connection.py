"""Connections: the limits and responses of pveproxy, and malformed requests."""

import asyncio
import gc
import ssl
from contextlib import suppress

import pytest

from proxmox_client.emulator import ConnectionLimits, Emulator, Scenario
from proxmox_client.emulator.http.listener import Listener

pytestmark = pytest.mark.anyio


class RawConnection:
    """A TCP connection to a node, for raw bytes."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, data):
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def response(self):
        """Read one response: status line, headers and body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return status, headers, await self.reader.readexactly(int(headers["content-length"]))

    async def read_to_end(self):
        """Read until the server closes the connection."""
        async with asyncio.timeout(10):
            return await self.reader.read()


@pytest.fixture
async def connect(lab):
    """Return a function that connects to the first node, with or without TLS."""
    connections = []

    async def open_connection(*, tls=True):
        host, port = lab.hosts[0].split(":")
        context = ssl.create_default_context(cadata=lab.ca_pem) if tls else None
        connection = RawConnection(*await asyncio.open_connection(host, int(port), ssl=context))
        connections.append(connection)
        return connection

    yield open_connection
    for connection in connections:
        connection.writer.close()


def request(lab, path="/version", method="GET", extra=""):
    name, secret = lab.token
    token = f"Authorization: PVEAPIToken={name}={secret}\r\n"
    return f"{method} /api2/json{path} HTTP/1.1\r\nHost: pve\r\n{token}{extra}\r\n"


async def test_a_connection_serves_several_requests(lab, connect):
    connection = await connect()
    for _ in range(3):
        await connection.send(request(lab))
        status, headers, _ = await connection.response()
        assert (status, headers["connection"]) == ("HTTP/1.1 200 OK", "keep-alive")


async def test_responses_have_server_and_cache_headers(lab, connect):
    connection = await connect()
    await connection.send(request(lab))
    _, headers, _ = await connection.response()
    assert headers["server"] == "pve-api-daemon/3.0"
    assert headers["content-type"] == "application/json;charset=utf-8"
    assert (headers["cache-control"], headers["pragma"]) == ("max-age=0", "no-cache")


async def test_an_error_is_in_the_status_line_and_closes_the_connection(lab, connect):
    connection = await connect()
    await connection.send(request(lab, "/storage/nope"))
    status, headers, body = await connection.response()
    assert status == "HTTP/1.1 500 storage 'nope' does not exist"
    assert headers["connection"] == "close"
    assert body == b'{"data":null,"message":"storage \'nope\' does not exist\\n"}'
    assert await connection.read_to_end() == b""


async def test_a_failed_sign_in_has_no_body(lab, connect):
    connection = await connect()
    await connection.send("GET /api2/json/version HTTP/1.1\r\nHost: pve\r\n\r\n")
    status, headers, body = await connection.response()
    assert (status, body) == ("HTTP/1.1 401 No ticket", b"")
    assert "content-type" not in headers


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PATCH"])
async def test_other_methods_are_not_implemented(lab, connect, method):
    connection = await connect()
    await connection.send(request(lab, method=method))
    head = (await connection.reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith(f"HTTP/1.1 501 method '{method}' not available\r\n")


async def test_plain_http_is_redirected_to_https(connect):
    connection = await connect(tls=False)
    await connection.send("GET / HTTP/1.1\r\nHost: pve\r\n\r\n")
    answer = (await connection.read_to_end()).decode()
    assert answer.startswith("HTTP/1.0 301 ")
    assert "Location: https://" in answer


async def test_a_large_body_is_compressed_if_accepted(admin, lab):
    assert (await admin.request("GET", "/cluster/resources")).headers["content-encoding"] == "gzip"
    admin.http.headers["accept-encoding"] = "identity"
    plain = await admin.request("GET", "/cluster/resources")
    assert "content-encoding" not in plain.headers
    assert len(plain.content) == int(plain.headers["content-length"])


POST = b"POST /api2/json/version HTTP/1.1\r\nHost: a\r\n"
HOSTILE = {
    "no HTTP at all": b"\x00\x01\x02 hello\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost pve\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a huge header": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    "a line that does not end": b"GET /" + b"a" * 20_000,
    "a line break inside a header": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nb\r\n\r\n",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
async def test_malformed_requests_are_refused_and_the_server_survives(lab, connect, admin, data):
    connection = await connect()
    await connection.send(data)
    answer = await connection.read_to_end()
    assert answer == b"" or answer.split(b" ")[1][:1] in (b"4", b"5")
    assert (await admin.get("/version"))["release"] == "9.2"


async def test_too_many_headers_are_refused(lab, connect):
    connection = await connect()
    await connection.send(request(lab, extra="".join(f"X-{n}: 1\r\n" for n in range(70))))
    status, _, _ = await connection.response()
    assert status.startswith("HTTP/1.1 501 ")


async def test_a_chunked_body_is_refused(lab, connect):
    connection = await connect()
    await connection.send(request(lab, method="POST", extra="Transfer-Encoding: chunked\r\n"))
    status, _, _ = await connection.response()
    assert status.startswith("HTTP/1.1 501 ")


async def test_a_body_over_the_limit_is_refused_unread(lab, connect):
    connection = await connect()
    await connection.send(request(lab, method="POST", extra="Content-Length: 9000000\r\n"))
    status, _, _ = await connection.response()
    assert status == "HTTP/1.1 501 for data too large"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", "{"),
        ("application/json", "[1,2]"),
        ("application/json", '"text"'),
        ("application/json", "\udcff"),
    ],
)
async def test_json_other_than_an_object_is_refused(admin, content_type, body):
    response = await admin.http.post(
        "/api2/json/pools",
        content=body.encode("utf-8", "surrogateescape"),
        headers={"content-type": content_type},
    )
    assert response.status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/nodes/%00/status",
        "/nodes//status",
        "/%2e%2e/version",
        "/nodes/" + "x" * 3000,
    ],
)
async def test_odd_paths_are_api_errors(admin, path):
    response = await admin.http.get(f"/api2/json{path}")
    assert response.status_code in (400, 404, 500, 501)


async def test_an_idle_connection_is_closed(lab):
    limits = ConnectionLimits(idle_seconds=0.05)
    async with Emulator(Scenario.cluster("lab"), limits=limits) as pve:
        cluster = pve["lab"]
        host, port = cluster.hosts[0].split(":")
        context = ssl.create_default_context(cadata=cluster.ca_pem)
        connection = RawConnection(*await asyncio.open_connection(host, int(port), ssl=context))
        await connection.send(request(cluster))
        await connection.response()
        assert await connection.read_to_end() == b""
        connection.writer.close()


async def test_a_connection_closes_after_the_request_limit(lab):
    async with Emulator(Scenario.cluster("lab"), limits=ConnectionLimits(requests=2)) as pve:
        cluster = pve["lab"]
        host, port = cluster.hosts[0].split(":")
        context = ssl.create_default_context(cadata=cluster.ca_pem)
        connection = RawConnection(*await asyncio.open_connection(host, int(port), ssl=context))
        endings = []
        for _ in range(2):
            await connection.send(request(cluster))
            _, headers, _ = await connection.response()
            endings.append(headers["connection"])
        assert endings == ["keep-alive", "close"]
        connection.writer.close()


@pytest.mark.parametrize("ending", ["stop", "node-down"])
async def test_disconnects_at_any_time_leak_nothing(ending):
    async with Emulator(Scenario.cluster("lab")) as pve:
        cluster = pve["lab"]
        host, port = cluster.hosts[0].split(":")
        context = ssl.create_default_context(cadata=cluster.ca_pem)
        writers = []
        for number in range(30):
            tls = context if number % 3 else None
            reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
            writers.append(writer)
            if number % 3 == 1:
                writer.write(request(cluster, "/cluster/resources").encode()[: number * 7])
            if number % 3 == 2:
                writer.write(request(cluster, "/cluster/resources").encode())
                await reader.read(number * 10)
            if number % 2:
                writer.transport.abort()
            else:
                writer.close()
        if ending == "node-down":
            await cluster.node_down("pve1")
            await cluster.node_up("pve1")
        async with asyncio.timeout(10):
            connection = RawConnection(*await asyncio.open_connection(host, int(port), ssl=context))
            await connection.send(request(cluster))
            assert (await connection.response())[0] == "HTTP/1.1 200 OK"
            connection.writer.close()
        for writer in writers:  # a TLS connection waits up to 30 s for the other side to end it
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
    gc.collect()


@pytest.mark.parametrize(
    ("address", "port", "refusal"),
    [("127.0.0.1", 65_536, OverflowError), ("192.0.2.1", 0, OSError)],
)
def test_a_port_that_cannot_be_bound_leaves_no_socket_open(address, port, refusal):
    listener = Listener(None, None, ConnectionLimits())
    with pytest.raises(refusal):
        listener.start(address, port)
    with pytest.raises(OSError, match="Bad file descriptor"):
        _ = listener.port
