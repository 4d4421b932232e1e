"""The webhook: signed, repeated a few times, and never in the way of a call."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from mcp.client import Client

from proxmox_client import Tls
from pvemcp_server import resolver
from pvemcp_server.admin import approvals
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.permission import COMMAND_LINE
from pvemcp_server.approvals import Webhook
from pvemcp_server.approvals import webhook as webhook_module
from pvemcp_server.approvals.webhook import WAITING_MESSAGES
from pvemcp_server.errors import BadArgument, CallError

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[3] / "docs" / "users" / "approvals.md"
MESSAGE = {"event": "approval.requested", "number": 7}


@dataclass
class Receiver:
    """An HTTP server that records each request and answers with the next status."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)  # 204 once there are no more
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    arrived: anyio.Event = field(default_factory=anyio.Event)
    answers: bool = True
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:  # the sender has given up
            return
        pairs = [line.split(": ", 1) for line in head.splitlines()[1:] if line]
        headers = {name.title(): value for name, value in pairs}
        body = await reader.readexactly(int(headers["Content-Length"]))
        self.requests.append((headers, body))
        if self.answers:
            status = self.statuses.pop(0) if self.statuses else 204
            writer.write(f"HTTP/1.1 {status} X\r\nLocation: {self.url}elsewhere\r\n".encode())
            writer.write(b"Content-Length: 0\r\nConnection: close\r\n\r\n")
        self.arrived.set()


@pytest.fixture
async def receiver(anyio_backend) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with await asyncio.start_server(receiver.serve, "127.0.0.1", 0) as server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?token=t"
        yield receiver
        for writer in receiver.writers:
            writer.close()


@pytest.fixture
def webhook(served) -> Webhook:
    """Return a webhook that pauses for no time between its attempts."""
    return Webhook(served.state.store, pauses=(0, 0))


@asynccontextmanager
async def running(webhook: Webhook):
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(webhook.run, stop)
        yield
        stop.set()


async def notices(served) -> list[str]:
    return [notice.message for notice in await served.state.store.notices.open()]


async def until_notice(served) -> list[str]:
    with anyio.fail_after(20):
        while not (found := await notices(served)):
            await anyio.lowlevel.checkpoint()
    return found


def documented_verification() -> Callable[[str, dict[str, str], bytes], bool]:
    """Return the function with which a receiver verifies a message, as documented."""
    [code] = re.findall(r"```python\n(.+?)```", PAGE.read_text(), re.DOTALL)
    names = {}
    exec(code, names)  # noqa: S102 - our own documentation
    return names["verify"]


async def test_a_waiting_call_is_posted_with_a_signature(served, receiver):
    context = AdminContext(served.app.endpoint.services, by="ada", authority=COMMAND_LINE)
    new = await approvals.set_webhook(context, approvals.WebhookFields(url=receiver.url))
    served.fake_tools.loses = "https://user:secret@example.com/?token=secret is lost."
    async with Client(served.mcp) as client:
        await client.call_tool("DeleteThing", {"vmid": 101})
        await client.call_tool("DeleteThing", {"vmid": 101})  # no second message
        with anyio.fail_after(20):
            await receiver.arrived.wait()
    [(headers, body)] = receiver.requests
    verify = documented_verification()
    assert verify(new.secret, headers, body)
    assert not verify(new.secret, headers, body + b" ")
    assert not verify("another secret", headers, body)
    old = {**headers, "X-Pvemcp-Timestamp": str(int(headers["X-Pvemcp-Timestamp"]) - 600)}
    assert not verify(new.secret, old, body)
    message = json.loads(body)
    [approval] = await approvals.list_approvals(context)
    assert message == {
        "event": "approval.requested",
        "number": approval.number,
        "key": "test",
        "tool": "DeleteThing",
        "cluster": "workshop",
        "plan": ["Delete thing 101.", "https://***@example.com/?*** is lost."],
        "expires_at": approval.expires.isoformat(timespec="seconds"),
        "url": f"{served.state.config.base_url}/admin/approvals#approval-{approval.number}",
    }
    assert "secret" not in body.decode()


async def test_a_message_is_repeated_until_it_is_accepted(served, webhook, receiver):
    await webhook.configure(receiver.url)
    receiver.statuses = [500, 302]
    async with running(webhook):
        webhook.send(MESSAGE)
        with anyio.fail_after(20):
            while len(receiver.requests) < 3:
                await anyio.lowlevel.checkpoint()
    assert await notices(served) == []
    assert len({body for _, body in receiver.requests}) == 1


async def test_a_message_that_is_never_accepted_becomes_a_notice(served, webhook, receiver):
    await webhook.configure(receiver.url)
    receiver.statuses = [302] * 9
    async with running(webhook):
        webhook.send(MESSAGE)
        [notice] = await until_notice(served)
    assert "was not notified of approval 7. The answer was 302. Redirects are not" in notice
    assert len(receiver.requests) == 3
    assert "hook" not in notice


async def test_a_receiver_that_does_not_answer_delays_no_call(served, receiver):
    receiver.answers = False
    await served.app.endpoint.services.approvals.webhook.configure(receiver.url)
    async with Client(served.mcp) as client:
        for vmid in range(101, 111):
            with anyio.fail_after(5):
                result = await client.call_tool("DeleteThing", {"vmid": vmid})
            assert "waiting for approval" in result.content[0].text


async def test_a_receiver_that_answers_slowly_is_given_up(served, receiver, monkeypatch):
    monkeypatch.setattr(webhook_module, "TIMEOUT_SECONDS", 0.2)
    receiver.answers = False
    context = AdminContext(served.app.endpoint.services, by="ada", authority=COMMAND_LINE)
    await approvals.set_webhook(context, approvals.WebhookFields(url=receiver.url))
    with pytest.raises(CallError, match="No answer: TimeoutError"):
        await approvals.send_test(context)


async def test_a_receiver_whose_head_never_ends_is_given_up(webhook, endless_head, monkeypatch):
    url, authority = endless_head
    trusted = Tls(ca_pem=authority).context()
    monkeypatch.setattr(Tls, "context", lambda _: trusted)
    await webhook.configure(f"{url}/hook")
    with anyio.fail_after(5), pytest.raises(CallError, match="No answer: RemoteProtocolError"):
        await webhook.post(await webhook.configured(), MESSAGE)


async def test_the_number_of_messages_that_wait_is_bounded(webhook, caplog):
    for _ in range(WAITING_MESSAGES + 1):
        webhook.send(MESSAGE)
    assert "Notice of approval 7 dropped" in caplog.text


async def test_without_a_webhook_nothing_is_sent(served, webhook):
    async with running(webhook):
        webhook.send(MESSAGE)
        with anyio.fail_after(20):
            while webhook._messages.qsize():
                await anyio.lowlevel.checkpoint()
    assert await notices(served) == []


REFUSED = (
    *("http://169.254.169.254/latest", "http://[fe80::1]/", "http://100.100.100.200/"),
    *("http://[::ffff:169.254.169.254]/", "https://2852039166/", "http://[fd00:ec2::254]:80/"),
    *("ftp://hooks.example/", "https://", "hooks.example", "https://a:b@hooks.example/"),
    *("https://hooks.example/#x", "https://hooks.example:port/", "https://[::1", "https://a b/"),
    *("http://169。254。169。254/", "http://[fe80::1%25eth0]/", "http://①69.254.169.254/"),
)


async def test_an_address_that_is_no_receiver_is_refused(webhook):
    for url in REFUSED:
        with pytest.raises(BadArgument, match=r"^url: "):
            await webhook.configure(url)
    assert await webhook.configured() is None


async def test_a_name_that_resolves_to_a_metadata_address_later_gets_nothing(
    served, webhook, receiver, monkeypatch
):
    await webhook.configure(receiver.url.replace("127.0.0.1", "localhost"))

    def resolve(*_args, **_options):
        return [(2, 1, 6, "", ("169.254.169.254", 80))]

    monkeypatch.setattr(resolver.socket, "getaddrinfo", resolve)
    async with running(webhook):
        webhook.send(MESSAGE)
        [notice] = await until_notice(served)
    assert "link-local" in notice
    assert receiver.requests == []


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "silent"])
async def test_a_message_is_sent_to_an_address_that_was_checked(
    served, webhook, receiver, monkeypatch, silent
):
    port = int(re.findall(r":(\d+)/", receiver.url)[0])
    await webhook.configure(receiver.url.replace("127.0.0.1", "localhost"))
    resolved = []

    def resolve(name, *_args, **_options):
        resolved.append(name)
        # nothing listens on the first one
        return [(2, 1, 6, "", (address, port)) for address in ("127.255.255.254", "127.0.0.1")]

    connect = anyio.connect_tcp

    async def connect_tcp(remote_host, **options):
        if silent and remote_host == "127.255.255.254":
            await anyio.sleep_forever()
        return await connect(remote_host, **options)

    monkeypatch.setattr(resolver.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(anyio, "connect_tcp", connect_tcp)
    monkeypatch.setattr(webhook_module, "CONNECT_SECONDS", 0.05)
    await webhook.post(await webhook.configured(), MESSAGE)
    assert resolved == ["localhost"]
    [(headers, _)] = receiver.requests
    assert headers["Host"] == f"localhost:{port}"


async def test_a_test_message_reports_what_the_receiver_answers(served, receiver):
    context = AdminContext(served.app.endpoint.services, by="ada", authority=COMMAND_LINE)
    with pytest.raises(CallError, match="There is no webhook"):
        await approvals.send_test(context)
    shown = await approvals.set_webhook(context, approvals.WebhookFields(url=receiver.url))
    assert receiver.url.startswith(f"{shown.receiver}/")
    assert (await approvals.send_test(context)).receiver == shown.receiver
    receiver.statuses = [401]
    with pytest.raises(CallError, match="The answer was 401"):
        await approvals.send_test(context)
    assert json.loads(receiver.requests[0][1])["event"] == "test"
    await approvals.remove_webhook(context)
    assert await served.app.endpoint.services.approvals.webhook.configured() is None
