"""Transport: retries, host rotation, limits, encoding and connection errors."""

import asyncio
import gzip
import zlib
from functools import cache
from itertools import pairwise

import anyio
import httpx2 as httpx
import pytest

from proxmox_client import (
    ApiToken,
    BadParameters,
    Client,
    DeadlineExceeded,
    Limits,
    NodeUnreachable,
    NotFound,
    ProxmoxError,
    ResponseError,
    Unauthenticated,
    UnexpectedAnswer,
    Unreachable,
    deadline,
    json_decoder,
    requester,
)
from proxmox_client.auth import BackupServerToken, Ticket
from proxmox_client.limits import FairSemaphore
from proxmox_client.transport import _LONG_BODY, KEEPALIVE_EXPIRY, MAX_ANSWER, MAX_ATTEMPTS

from .conftest import ENDLESS

pytestmark = pytest.mark.anyio


async def test_a_refused_connection_names_the_host(socket_client, closed_host):
    with pytest.raises(Unreachable, match=closed_host) as caught:
        await socket_client(closed_host).version()
    assert caught.value.host == closed_host


async def test_a_refused_connection_moves_reads_and_writes_to_the_next_host(
    socket_client, closed_host, pveproxy
):
    proxy = await pveproxy()
    client = socket_client(closed_host, proxy.host)
    await client.transport.post("/nodes/pve1/qemu/100/status/start")
    await client.version()
    assert proxy.requests == ["POST /nodes/pve1/qemu/100/status/start", "GET /version"]


async def test_a_read_timeout_moves_to_the_next_host(socket_client, pveproxy):
    hanging, proxy = await pveproxy("hang"), await pveproxy()
    client = socket_client(hanging.host, proxy.host, limits=Limits(read_timeout=0.2))
    await client.version()
    await client.version()
    assert (hanging.requests, proxy.requests) == (["GET /version"], ["GET /version"] * 2)


async def test_a_read_timeout_of_a_single_host_is_not_retried(socket_client, pveproxy):
    proxy = await pveproxy("hang")
    with pytest.raises(Unreachable, match="ReadTimeout"):
        await socket_client(proxy.host, limits=Limits(read_timeout=0.1)).version()
    assert proxy.requests == ["GET /version"]


@pytest.mark.parametrize("fault", ["drop", "half"])
async def test_a_read_is_retried_after_a_broken_connection(fault, socket_client, pveproxy):
    # Quirk 2: pveproxy closes connections at any time.
    proxy = await pveproxy(fault, "answer")
    assert (await socket_client(proxy.host).version()).release == "9.2"
    assert proxy.requests == ["GET /version"] * 2


@pytest.mark.parametrize("fault", ["drop", "half"])
async def test_a_read_is_unreachable_after_all_attempts(fault, socket_client, pveproxy):
    proxy = await pveproxy(fault)
    with pytest.raises(Unreachable, match=proxy.host):
        await socket_client(proxy.host).version()
    assert proxy.requests == ["GET /version"] * MAX_ATTEMPTS


@pytest.mark.parametrize("fault", ["drop", "half", "hang"])
async def test_a_write_is_never_sent_twice(fault, socket_client, pveproxy):
    # Quirk 2: a repeated POST may be carried out twice.
    proxy, other = await pveproxy(fault), await pveproxy()
    client = socket_client(proxy.host, other.host, limits=Limits(read_timeout=0.2))
    with pytest.raises(Unreachable):
        await client.transport.post("/nodes/pve1/qemu/100/status/start")
    assert proxy.requests == ["POST /nodes/pve1/qemu/100/status/start"]
    assert other.requests == []


async def test_reads_survive_the_unannounced_close_of_idle_connections(socket_client, pveproxy):
    # Quirk 2: the race between our next request and pveproxy's close.
    proxy = await pveproxy("answer and close")
    client = socket_client(proxy.host)
    for _ in range(50):
        assert (await client.version()).release == "9.2"


def test_idle_connections_expire_before_pveproxy_closes_them():
    # Quirk 2: pveproxy closes them after 5 s.
    assert KEEPALIVE_EXPIRY < 5


async def test_connections_are_reused(socket_client, pveproxy):
    proxy = await pveproxy()
    client = socket_client(proxy.host)
    for _ in range(10):
        await client.version()
    assert proxy.connections == 1


def test_the_read_timeout_exceeds_proxmox_own_delays():
    # Quirk 1: 3 s for a 401, 30 s between nodes.
    assert Limits().read_timeout > 30


async def test_a_hanging_call_stops_at_the_deadline(socket_client, pveproxy):
    proxy = await pveproxy("hang")
    client = socket_client(proxy.host)
    with (
        anyio.fail_after(5),
        pytest.raises(DeadlineExceeded, match="GET /version"),
        deadline(0.1),
    ):
        await client.version()


async def test_a_cancelled_call_closes_its_connection_and_frees_its_slot(socket_client, pveproxy):
    proxy = await pveproxy("hang", "answer")
    client = socket_client(proxy.host, limits=Limits(per_cluster=1, per_node=1))
    call = asyncio.create_task(client.node("pve1").time())
    with anyio.fail_after(5):
        await proxy.request_received.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await proxy.disconnected.wait()
        await client.version()


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (595, "Connection refused"),
        (595, "No route to host"),
        (596, "Connection timed out"),
        (597, "Broken pipe"),
        (599, "Too many redirections"),
    ],
)
async def test_an_unreachable_node_is_named(status, reason, client, pve):
    # Quirks 3 and 33: the reason is only in the status line, the body is empty.
    pve.respond("GET /nodes/pve3/status", status, reason)
    with pytest.raises(NodeUnreachable, match=reason) as caught:
        await client.node("pve3").status()
    assert (caught.value.node, caught.value.status) == ("pve3", status)
    assert len(pve.requests) == 1


async def test_a_corrupt_gzip_body_is_unreachable():
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Broken())

    class Broken(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield b"this is not gzip"

    transport = httpx.MockTransport(answer)
    client = Client(["pve1"], ApiToken("a@pve!b", "c"), http_transport=transport)
    with pytest.raises(Unreachable, match="pve1:8006"):
        await client.version()


async def test_a_success_of_another_shape_is_an_unexpected_answer(client, pve):
    pve.respond("GET /version", 200, "OK", b'{"data":["a list"]}')
    with pytest.raises(UnexpectedAnswer, match="/version"):
        await client.version()


async def test_a_web_page_is_no_answer_of_proxmox(client, pve):
    pve.respond("GET /version", 200, "OK", b"<html>a proxy's page</html>")
    with pytest.raises(Unreachable, match=r"a web page answers, not Proxmox \(status 200\)"):
        await client.version()


async def test_a_redirect_is_not_followed(client, pve):
    # Quirk 4: pveproxy answers plain HTTP with 301.
    pve.respond("GET /version", 301, "Moved Permanently")
    with pytest.raises(Exception, match="Moved Permanently"):
        await client.version()
    assert pve.lines == ["GET /version"]


async def test_a_body_above_the_limit_of_pveproxy_is_not_sent(client, pve):
    # Quirk 4: pveproxy resets the connection in the middle of more than 512 KiB.
    with pytest.raises(BadParameters, match="524288"):
        await client.transport.post("/nodes/pve1/qemu", description="x" * 524_288)
    assert pve.requests == []


async def test_bodies_are_forms_with_a_content_length(client, pve):
    # Quirk 4: no chunked request bodies.
    pve.answer("POST /pools")
    await client.transport.post("/pools", poolid="prod", comment="Prüfung & Co")
    request = pve.requests[0]
    assert request.headers["content-length"] == str(len(request.content))
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert "transfer-encoding" not in request.headers
    assert request.content == b"poolid=prod&comment=Pr%C3%BCfung+%26+Co"


async def test_parameters_are_encoded_for_proxmox(client, pve):
    # Quirks 14 and 17: Proxmox rejects "true", stores null as text, and wants lists repeated.
    pve.answer("POST /nodes/pve1/qemu/100/agent/exec")
    await client.transport.post(
        "/nodes/pve1/qemu/100/agent/exec", command=["ls", "-l"], a=True, b=False, c=None, d=5
    )
    assert pve.requests[0].content == b"command=ls&command=-l&a=1&b=0&d=5"


async def test_volumes_and_task_ids_are_encoded_in_the_path(client, pve):
    # Quirk 16.
    upid = "UPID:pve1:000002CD:000E132A:6B02ABF1:qmsnapshot:100:mcp@pve!full:"
    encoded = (
        "UPID%3Apve1%3A000002CD%3A000E132A%3A6B02ABF1%3Aqmsnapshot%3A100%3Amcp%40pve%21full%3A"
    )
    pve.answer("DELETE /nodes/pve1/storage/local/content/local%3Aiso%2Fa%20b.iso", upid)
    pve.answer(f"GET /nodes/pve1/tasks/{encoded}/status", {"upid": upid, "status": "running"})
    task = await client.storage("pve1", "local").delete("local:iso/a b.iso")
    assert (await task.status()).running


async def test_the_json_formatter_is_used(client, pve):
    # Quirk 28: the extjs formatter answers 200 and puts errors into the body.
    pve.answer("GET /version", {"version": "9.2.11"})
    await client.version()
    assert pve.requests[0].url.path == "/api2/json/version"


async def test_the_token_is_sent_in_the_authorization_header(client, pve):
    # Quirk 9.
    pve.answer("GET /version", {"version": "9.2.11"})
    await client.version()
    expected = "PVEAPIToken=mcp@pve!full=0f0e0d0c-secret"
    assert pve.requests[0].headers["authorization"] == expected


async def test_a_rejected_token_is_not_retried(client, pve):
    # Quirks 9 and 30: the text of a 401 is only in the status line.
    pve.respond("GET /version", 401, "token 'full' access expired")
    with pytest.raises(Unauthenticated, match="token 'full' access expired"):
        await client.version()
    assert len(pve.requests) == 1


async def test_a_write_may_return_null(client, pve):
    # Quirk 19: data may be null.
    pve.answer("PUT /cluster/options", None)
    assert await client.transport.request_data("PUT", "/cluster/options", keyboard="de") is None


async def test_concurrent_requests_are_limited_per_node_and_cluster():
    running: dict[str, int] = {"pve1": 0, "pve2": 0, "pve3": 0}
    peak: dict[str, int] = {"pve1": 0, "pve2": 0, "pve3": 0, "all": 0}
    release = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        node = request.url.path.split("/")[4]
        running[node] += 1
        peak[node] = max(peak[node], running[node])
        peak["all"] = max(peak["all"], sum(running.values()))
        if peak["all"] == 3:
            release.set()
        await release.wait()
        running[node] -= 1
        return httpx.Response(200, json={"data": {"time": 1}})

    client = Client(
        ["pve1"],
        ApiToken("a@pve!b", "c"),
        limits=Limits(per_cluster=3, per_node=2),
        http_transport=httpx.MockTransport(answer),
    )
    with anyio.fail_after(5):
        async with asyncio.TaskGroup() as group:
            for node in ("pve1", "pve2", "pve3") * 4:
                group.create_task(client.node(node).time())
    assert max(peak["pve1"], peak["pve2"], peak["pve3"]) <= 2
    assert peak["all"] == 3


async def test_recorded_metrics_need_no_slot_of_their_node():
    """Read a node's series, which any host has, while reads of the node take all of its slots."""

    async def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/rrddata"):
            await asyncio.sleep(60)
        return httpx.Response(200, json={"data": []})

    client = Client(
        ["pve1"],
        ApiToken("a@pve!b", "c"),
        limits=Limits(per_node=1),
        http_transport=httpx.MockTransport(answer),
    )
    hanging = asyncio.create_task(client.node("pve2").time())
    await asyncio.sleep(0)
    with anyio.fail_after(1):
        assert await client.node("pve2").rrd("hour") == []
    hanging.cancel()


async def test_requesters_get_slots_of_a_node_in_turn():
    """Send many reads at once for one: the few of another one do not wait for all of them."""
    order: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        order.append(request.url.path.split("/")[6])
        await asyncio.sleep(0)
        return httpx.Response(200, json={"data": {"status": "running"}})

    client = Client(["pve1"], ApiToken("a@pve!b", "c"), http_transport=httpx.MockTransport(answer))
    cancelled = []
    async with asyncio.TaskGroup() as group:
        requester.set("many")
        for vmid in range(100, 200):
            task = group.create_task(client.qemu("pve1", vmid).status())
            cancelled += [task] if vmid >= 150 else []
        await asyncio.sleep(0)
        for task in cancelled:  # those that wait no more cost no turn
            task.cancel()
        requester.set("few")
        for vmid in (900, 901):
            group.create_task(client.qemu("pve1", vmid).status())
    assert len(order) == 52
    assert max(order.index(vmid) for vmid in ("900", "901")) < 10


async def test_a_cancelled_request_gives_its_turn_back():
    semaphore = FairSemaphore(1)

    async def hold() -> None:
        async with semaphore:
            await asyncio.sleep(0)

    async with semaphore:
        waiting = [asyncio.create_task(hold()) for _ in range(3)]
        await asyncio.sleep(0)
    waiting[0].cancel()  # it has the slot already, and has not run since
    await asyncio.wait(waiting, timeout=5)
    assert [task.cancelled() for task in waiting] == [True, False, False]
    async with asyncio.timeout(5), semaphore:
        pass


async def test_a_missing_object_is_not_found(client, pve):
    pve.answer_error("GET /pools", 500, "pool 'nope' does not exist")
    with pytest.raises(NotFound, match="pool 'nope' does not exist"):
        await client.pool("nope")


async def test_accounts_of_a_cluster_share_connections_and_limits(socket_client, pveproxy):
    proxy = await pveproxy()
    client = socket_client(proxy.host)
    other = client.signed_in_as(ApiToken("ro@pve!ro", "other"))
    await client.version()
    await other.version()
    assert proxy.connections == 1
    assert client.transport.pool.limiter is other.transport.pool.limiter


async def test_each_account_sends_its_own_token(client, pve):
    pve.answer("GET /version", {"version": "9.2.11"})
    other = client.signed_in_as(ApiToken("ro@pve!ro", "other"))
    for account in (client, other, client):
        await account.version()
    tokens = [request.headers["authorization"] for request in pve.requests]
    assert tokens[1] == "PVEAPIToken=ro@pve!ro=other"
    assert tokens[0] == tokens[2] != tokens[1]


class Endless(httpx.AsyncByteStream):
    """A body without an end, in pieces; `sent` counts them."""

    def __init__(self, piece: bytes) -> None:
        self.piece = piece
        self.sent = 0

    async def __aiter__(self):
        while True:
            self.sent += 1
            yield self.piece


@cache
def zipped_blanks() -> bytes:
    """Return what becomes four times the longest answer."""
    return gzip.compress(b" " * MAX_ANSWER * 4, 1)


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_an_answer_is_read_up_to_a_size_and_asked_for_once(method, status, encoding):
    body = Endless(zipped_blanks() if encoding == "gzip" else b" " * (MAX_ANSWER // 8))
    requests = []

    def answer(request):
        requests.append(request)
        return httpx.Response(status, headers={"Content-Encoding": encoding}, stream=body)

    transport = httpx.MockTransport(answer)
    client = Client(["a", "b"], ApiToken("a@pve!b", "secret"), http_transport=transport)
    with pytest.raises(UnexpectedAnswer, match="/version is longer than 32 MiB"):
        await (client.version() if method == "get" else client.transport.post("/version"))
    assert (len(requests), body.sent) == (1, 1 if encoding == "gzip" else 9)


OK = gzip.compress(b'{"data":{"version":"9.1.1"}}')
MIB = bytes(1 << 20)
HOSTILE = {
    "tiny chunks": ("identity", [b" "] * 99_000),
    "coded twice": ("gzip, gzip", [gzip.compress(OK + MIB)]),
    "another coding": ("deflate", [zlib.compress(b"{}")]),
    "more after the end": ("gzip", [OK + MIB]),
    "more after the end, later": ("gzip", [OK, *[MIB] * 64]),
    "blocks without content": (
        "gzip",
        [gzip.compress(b"", 0)[:10], *[b"\0\0\0\xff\xff" * 200_000] * 64],
    ),
}
"""Codings and pieces that cost more time or memory than their content."""


@pytest.mark.parametrize("case", HOSTILE)
async def test_an_answer_costs_no_more_than_its_content(case):
    coding, pieces = HOSTILE[case]
    sent = []

    class Body(httpx.AsyncByteStream):
        async def __aiter__(self):
            for piece in pieces:
                sent.append(len(piece))
                yield piece

    def answer(_):
        return httpx.Response(200, headers={"Content-Encoding": coding}, stream=Body())

    client = Client(["a"], ApiToken("a@pve!b", "c"), http_transport=httpx.MockTransport(answer))
    with pytest.raises((Unreachable, UnexpectedAnswer)):
        await client.transport.post("/version")
    assert sum(sent) < MAX_ANSWER + 2 * len(MIB)
    assert len(sent) < 2_000


@pytest.mark.parametrize("case", ENDLESS)
async def test_a_head_that_never_ends_does_not_stop_the_event_loop(socket_client, pveproxy, case):
    client = socket_client((await pveproxy("answer", case)).host)
    await client.version()  # also on a connection that was used before
    async with asyncio.timeout(5):
        with pytest.raises(Unreachable, match="does not begin within 16 KiB"):
            await client.transport.post("/version")


@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_nested_without_end_is_an_error_of_proxmox(status):
    body = b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=body))
    async with Client(["a"], ApiToken("a@pve!b", "secret"), http_transport=transport) as client:
        with pytest.raises(ResponseError):
            await client.version()


ALL_GUESTS = ("start", "shutdown", "suspend", "migrate")  # of /cluster/bulk-action/guest


@pytest.mark.parametrize("vms", [{}, {"vms": []}, {"vms": None}, {"vms": ""}])
async def test_a_bulk_action_for_every_guest_never_leaves_the_client(socket_client, pveproxy, vms):
    proxy = await pveproxy()
    transport = socket_client(proxy.host).transport
    for action in ALL_GUESTS:
        paths = (f"/cluster/bulk-action/guest/{action}", f"//cluster/bulk%2Daction/guest/{action}")
        for path in paths:
            with pytest.raises(BadParameters, match="every guest of the cluster"):
                await transport.post(path, target="pve2", **vms)
    assert proxy.requests == []
    await transport.post("/cluster/bulk-action/guest/migrate", target="pve2", vms=[100])
    assert proxy.requests == ["POST /cluster/bulk-action/guest/migrate"]


SECRET = "81d0e450-162c-6fea-2868-9a7fd090dc5d"
COOKIE = Ticket(username="a@pve", ticket=f"PVE:a@pve:66::{SECRET}", csrf_token=f"66:{SECRET}")


@pytest.mark.parametrize("status", [200, 301, 400, 403, 500, 596])
@pytest.mark.parametrize(
    "auth",
    [ApiToken("a@pve!b", SECRET), BackupServerToken("a@pbs!b", SECRET), COOKIE],
    ids=lambda auth: type(auth).__name__,
)
async def test_a_host_that_repeats_a_secret_does_not_have_it_shown(auth, status):
    def echo(request: httpx.Request) -> httpx.Response:
        sent = "; ".join(request.headers.values())
        assert SECRET in sent
        body = {"data": {"text": sent}, "message": sent, "errors": {"x": sent}}
        return httpx.Response(status, json=body, extensions={"reason_phrase": sent.encode()})

    transport = httpx.MockTransport(echo)
    async with Client(["a"], auth, http_transport=transport) as client:
        for method in ("GET", "PUT"):
            try:
                said = str(await client.transport.request_data(method, "/x"))
            except ProxmoxError as error:
                said = f"{error!r} {vars(error)} {error}"
            assert SECRET not in said


async def test_the_host_that_a_request_names_may_be_in_the_answer():
    def echo(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"data": f"PVE:ada@{request.headers['host']}:1"})

    async with Client(
        ["a"], ApiToken("a@pve!b", SECRET), http_transport=httpx.MockTransport(echo)
    ) as client:
        _, response = await client.transport.pool.send_once("/x", "", host_header="pve.example.org")
    assert b"PVE:ada@pve.example.org:1" in response.body


async def test_long_answers_of_a_cluster_leave_turns_for_other_tasks(monkeypatch):
    turns, seen = 0, []
    body = b'{"data": [0%s]}' % (b", 0" * _LONG_BODY)

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def decode(*arguments):
        seen.append(turns)
        return json_decoder.decode(*arguments)

    monkeypatch.setattr("proxmox_client.transport.decode", decode)
    answers = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    async with (
        Client(["pve"], ApiToken("a@pve!b", "c"), http_transport=answers) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(others)
        await asyncio.gather(*(client.transport.get("/x", list[int]) for _ in range(8)))
        tasks.cancel_scope.cancel()
    assert len(seen) == 8
    assert all(after - before > 3 for before, after in pairwise(seen)), "of one request"
