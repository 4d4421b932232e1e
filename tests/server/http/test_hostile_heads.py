"""No value of a header costs much time, whatever reads it: a head is a stranger's."""

from time import process_time

import anyio
import pytest
from anyio.streams.buffered import BufferedByteStream

from pvemcp_server.http.credentials import keep_own_cookies

pytestmark = pytest.mark.anyio

LONG = 60_000
SECONDS = 0.5  # of CPU; a quadratic reading takes at least ten times as long
PATHS = ("/mcp", "/healthz", "/admin/sign-in", "/admin/static/style.css")
HEADERS = (
    *("Accept", "Authorization", "Content-Type", "Cookie", "Host", "If-Modified-Since"),
    *("If-None-Match", "Origin", "Range", "X-API-Key", "X-Forwarded-For", "X-Forwarded-Proto"),
)
PREFIXES = {"Authorization": "Bearer ", "Cookie": "pvemcp_session=", "Range": "bytes="}
PIECES = ("\\", '\\"', 'a\\"', "a=b;", "0-1,", "pvemcp_AAAAAAAA_", "%ff", "(", "  a")


@pytest.fixture(scope="module")
async def served(anyio_backend, module_serving):
    """Start a server with all of the product's routes, and limits beyond these tests."""
    async with module_serving(calls_per_minute_per_address=10**6) as server:
        yield server


@pytest.mark.parametrize("header", HEADERS)
async def test_a_long_value_of_a_header_costs_little_time(served, header):
    host, port = served.url.removeprefix("http://").split(":")
    costs = {}
    for path in PATHS:
        async with await anyio.connect_tcp(host, int(port)) as stream:
            for piece in PIECES:
                value = f'{PREFIXES.get(header, "")}"{piece * (LONG // len(piece))}"'
                head = "" if header == "Host" else "Host: localhost\r\n"
                began = process_time()
                request = f"GET {path} HTTP/1.1\r\n{head}{header}: {value}\r\n\r\n"
                await stream.send(request.encode())
                status = await _status(BufferedByteStream(stream))
                assert 200 <= status < 500
                costs[path, piece] = process_time() - began
    assert {case: cost for case, cost in costs.items() if cost > SECONDS} == {}


async def _status(stream: BufferedByteStream) -> int:
    """Read a whole answer."""
    answer = await stream.receive_until(b"\r\n\r\n", 65536)
    fields = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:])
    await stream.receive_exactly(int(fields.get(b"content-length", b"0")))
    return int(answer.split()[1])


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"pvemcp_session=a-b_c.d~; other=x", b"pvemcp_session=a-b_c.d~"),
        (b"a=1;__Host-pvemcp_device=v;b", b"__Host-pvemcp_device=v"),
        (b'pvemcp_sign_in="QUJD="', b'pvemcp_sign_in="QUJD="'),
        (b'pvemcp_session="\\\\\\"', b""),
        (b'xpvemcp_session=a; pvemcp=a; messages="\\054"', b""),
    ],
)
def test_cookies_of_others_are_dropped(sent, kept):
    scope = {"headers": [(b"accept", b"*/*"), (b"cookie", sent)]}
    keep_own_cookies(scope)
    assert scope["headers"] == [(b"accept", b"*/*"), (b"cookie", kept)]
