"""What the wire does when connections fail, and what it never does."""

import asyncio

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
    Unauthenticated,
    UnexpectedAnswer,
    Unreachable,
    deadline,
)
from proxmox_client.transport import KEEPALIVE_EXPIRY, TRIES

pytestmark = pytest.mark.anyio


async def test_a_refused_connection_is_unreachable_and_names_the_host(reaching, closed_host):
    with pytest.raises(Unreachable, match=closed_host) as caught:
        await reaching(closed_host).version()
    assert caught.value.host == closed_host


async def test_the_next_host_is_asked_when_one_refuses_also_for_a_write(
    reaching, closed_host, pveproxy
):
    proxy = await pveproxy()
    client = reaching(closed_host, proxy.host)
    await client.transport.post("/nodes/pve1/qemu/100/status/start")
    await client.version()
    assert proxy.requests == ["POST /nodes/pve1/qemu/100/status/start", "GET /version"]


async def test_the_next_host_is_asked_when_one_is_silent_on_a_read(reaching, pveproxy):
    silent, proxy = await pveproxy("hang"), await pveproxy()
    client = reaching(silent.host, proxy.host, limits=Limits(read_timeout=0.2))
    await client.version()
    await client.version()
    assert (silent.requests, proxy.requests) == (["GET /version"], ["GET /version"] * 2)


async def test_a_single_host_that_is_silent_is_asked_once(reaching, pveproxy):
    proxy = await pveproxy("hang")
    with pytest.raises(Unreachable, match="ReadTimeout"):
        await reaching(proxy.host, limits=Limits(read_timeout=0.1)).version()
    assert proxy.requests == ["GET /version"]


@pytest.mark.parametrize("fault", ["drop", "half"])
async def test_a_read_is_repeated_when_the_connection_breaks(fault, reaching, pveproxy):
    """Quirk 2: pveproxy closes connections whenever it likes."""
    proxy = await pveproxy(fault, "answer")
    assert (await reaching(proxy.host).version()).release == "9.2"
    assert proxy.requests == ["GET /version"] * 2


@pytest.mark.parametrize("fault", ["drop", "half"])
async def test_a_read_that_breaks_again_and_again_is_unreachable(fault, reaching, pveproxy):
    proxy = await pveproxy(fault)
    with pytest.raises(Unreachable, match=proxy.host):
        await reaching(proxy.host).version()
    assert proxy.requests == ["GET /version"] * TRIES


@pytest.mark.parametrize("fault", ["drop", "half", "hang"])
async def test_a_write_is_never_sent_twice(fault, reaching, pveproxy):
    """Quirk 2: a blindly repeated POST may do its work twice."""
    proxy, other = await pveproxy(fault), await pveproxy()
    client = reaching(proxy.host, other.host, limits=Limits(read_timeout=0.2))
    with pytest.raises(Unreachable):
        await client.transport.post("/nodes/pve1/qemu/100/status/start")
    assert proxy.requests == ["POST /nodes/pve1/qemu/100/status/start"]
    assert other.requests == []


async def test_no_read_fails_when_idle_connections_are_closed_unannounced(reaching, pveproxy):
    """Quirk 2: the race between our next request and pveproxy's close."""
    proxy = await pveproxy("answer and close")
    client = reaching(proxy.host)
    for _ in range(50):
        assert (await client.version()).release == "9.2"


def test_connections_are_kept_for_less_time_than_pveproxy_keeps_them():
    """Quirk 2: pveproxy closes them after 5 s."""
    assert KEEPALIVE_EXPIRY < 5


async def test_a_connection_serves_many_requests(reaching, pveproxy):
    proxy = await pveproxy()
    client = reaching(proxy.host)
    for _ in range(10):
        await client.version()
    assert proxy.connections == 1


def test_the_client_waits_longer_than_proxmox_delays_a_401_or_a_proxied_call():
    """Quirk 1: 3 s for a 401, 30 s between nodes."""
    assert Limits().read_timeout > 30


async def test_a_hanging_call_ends_at_the_deadline(reaching, pveproxy):
    proxy = await pveproxy("hang")
    client = reaching(proxy.host)
    with (
        anyio.fail_after(5),
        pytest.raises(DeadlineExceeded, match="GET /version"),
        deadline(0.1),
    ):
        await client.version()


async def test_a_cancelled_call_closes_its_connection_and_gives_its_turn_back(reaching, pveproxy):
    proxy = await pveproxy("hang", "answer")
    client = reaching(proxy.host, limits=Limits(per_cluster=1, per_node=1))
    call = asyncio.create_task(client.node("pve1").time())
    with anyio.fail_after(5):
        await proxy.asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await proxy.gone.wait()
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
async def test_a_node_out_of_reach_is_told_with_its_name(status, reason, client, pve):
    """Quirks 3 and 33: the reason is only in the status line, the body is empty."""
    pve.respond("GET /nodes/pve3/status", status, reason)
    with pytest.raises(NodeUnreachable, match=reason) as caught:
        await client.node("pve3").status()
    assert (caught.value.node, caught.value.status) == ("pve3", status)
    assert len(pve.requests) == 1


async def test_an_answer_that_cannot_be_unpacked_is_unreachable():
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Broken())

    class Broken(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield b"this is not gzip"

    client = Client(["pve1"], ApiToken("a@pve!b", "c"), wire=httpx.MockTransport(answer))
    with pytest.raises(Unreachable, match="pve1:8006"):
        await client.version()


async def test_an_answer_that_is_not_json_is_told_as_unexpected(client, pve):
    pve.respond("GET /version", 200, "OK", b"<html>a proxy's page</html>")
    with pytest.raises(UnexpectedAnswer, match="/version"):
        await client.version()


async def test_a_redirect_is_not_followed(client, pve):
    """Quirk 4: plain HTTP is answered with 301; nothing of ours ever goes there."""
    pve.respond("GET /version", 301, "Moved Permanently")
    with pytest.raises(Exception, match="Moved Permanently"):
        await client.version()
    assert pve.lines == ["GET /version"]


async def test_a_body_beyond_what_pveproxy_takes_is_refused_here(client, pve):
    """Quirk 4: pveproxy resets the connection in the middle of more than 512 KiB."""
    with pytest.raises(BadParameters, match="524288"):
        await client.transport.post("/nodes/pve1/qemu", description="x" * 524_288)
    assert pve.requests == []


async def test_bodies_have_a_length_and_are_forms(client, pve):
    """Quirk 4: no chunked request bodies."""
    pve.answer("POST /pools")
    await client.transport.post("/pools", poolid="prod", comment="Prüfung & Co")
    request = pve.requests[0]
    assert request.headers["content-length"] == str(len(request.content))
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert "transfer-encoding" not in request.headers
    assert request.content == b"poolid=prod&comment=Pr%C3%BCfung+%26+Co"


async def test_booleans_are_0_and_1_and_absent_values_are_not_sent(client, pve):
    """Quirks 14 and 17: "true" is refused, null is stored as text, lists are repeated."""
    pve.answer("POST /nodes/pve1/qemu/100/agent/exec")
    await client.transport.post(
        "/nodes/pve1/qemu/100/agent/exec", command=["ls", "-l"], a=True, b=False, c=None, d=5
    )
    assert pve.requests[0].content == b"command=ls&command=-l&a=1&b=0&d=5"


async def test_volumes_and_task_ids_go_into_the_path_encoded(client, pve):
    """Quirk 16."""
    upid = "UPID:pve1:000002CD:000E132A:6B02ABF1:qmsnapshot:100:mcp@pve!full:"
    encoded = (
        "UPID%3Apve1%3A000002CD%3A000E132A%3A6B02ABF1%3Aqmsnapshot%3A100%3Amcp%40pve%21full%3A"
    )
    pve.answer("DELETE /nodes/pve1/storage/local/content/local%3Aiso%2Fa%20b.iso", upid)
    pve.answer(f"GET /nodes/pve1/tasks/{encoded}/status", {"upid": upid, "status": "running"})
    task = await client.storage("pve1", "local").delete("local:iso/a b.iso")
    assert (await task.status()).running


async def test_the_json_formatter_is_asked_that_says_failures_in_the_status(client, pve):
    """Quirk 28: the extjs one says 200 and puts failures into the body."""
    pve.answer("GET /version", {"version": "9.2.11"})
    await client.version()
    assert pve.requests[0].url.path == "/api2/json/version"


async def test_the_token_is_sent_as_proxmox_wants_it(client, pve):
    """Quirk 9."""
    pve.answer("GET /version", {"version": "9.2.11"})
    await client.version()
    expected = "PVEAPIToken=mcp@pve!full=0f0e0d0c-secret"
    assert pve.requests[0].headers["authorization"] == expected


async def test_a_refused_token_is_not_tried_again(client, pve):
    """Quirks 9 and 30: the text of a 401 is only in the status line."""
    pve.respond("GET /version", 401, "token 'full' access expired")
    with pytest.raises(Unauthenticated, match="token 'full' access expired"):
        await client.version()
    assert len(pve.requests) == 1


async def test_an_empty_success_of_a_write_is_fine(client, pve):
    """Quirk 19: data may be null."""
    pve.answer("PUT /cluster/options", None)
    assert await client.transport.ask("PUT", "/cluster/options", keyboard="de") is None


async def test_no_more_requests_run_at_once_than_a_node_and_a_cluster_may_get():
    running: dict[str, int] = {"pve1": 0, "pve2": 0, "pve3": 0}
    most: dict[str, int] = {"pve1": 0, "pve2": 0, "pve3": 0, "all": 0}
    release = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        node = request.url.path.split("/")[4]
        running[node] += 1
        most[node] = max(most[node], running[node])
        most["all"] = max(most["all"], sum(running.values()))
        if most["all"] == 3:
            release.set()
        await release.wait()
        running[node] -= 1
        return httpx.Response(200, json={"data": {"time": 1}})

    client = Client(
        ["pve1"],
        ApiToken("a@pve!b", "c"),
        limits=Limits(per_cluster=3, per_node=2),
        wire=httpx.MockTransport(answer),
    )
    with anyio.fail_after(5):
        async with asyncio.TaskGroup() as group:
            for node in ("pve1", "pve2", "pve3") * 4:
                group.create_task(client.node(node).time())
    assert max(most["pve1"], most["pve2"], most["pve3"]) <= 2
    assert most["all"] == 3


async def test_missing_things_are_not_found(client, pve):
    pve.refuse("GET /pools", 500, "pool 'nope' does not exist")
    with pytest.raises(NotFound, match="pool 'nope' does not exist"):
        await client.pool("nope")


async def test_accounts_of_one_cluster_share_its_connections_and_limits(reaching, pveproxy):
    proxy = await pveproxy()
    client = reaching(proxy.host)
    other = client.signed_in_as(ApiToken("ro@pve!ro", "other"))
    await client.version()
    await other.version()
    assert proxy.connections == 1
    assert client.transport.line.turns is other.transport.line.turns


async def test_each_account_is_itself(client, pve):
    pve.answer("GET /version", {"version": "9.2.11"})
    other = client.signed_in_as(ApiToken("ro@pve!ro", "other"))
    for one in (client, other, client):
        await one.version()
    sent = [request.headers["authorization"] for request in pve.requests]
    assert sent[1] == "PVEAPIToken=ro@pve!ro=other"
    assert sent[0] == sent[2] != sent[1]
