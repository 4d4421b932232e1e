"""The webhook: a signed POST for each new approval, sent in the background."""

import asyncio
import hmac
import json
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

import anyio
import httpx2 as httpx

from proxmox_client import Tls
from proxmox_client.hosts import Host
from proxmox_client.plain_http import PlainTransport
from proxmox_client.responses import limited_head
from pvemcp_server.errors import BadArgument, CallError
from pvemcp_server.link_local import checked_addresses
from pvemcp_server.store import Store
from pvemcp_server.store.records import WebhookRecord

TIMESTAMP: Final = "X-Pvemcp-Timestamp"
SIGNATURE: Final = "X-Pvemcp-Signature"
PAUSES: Final = (1.0, 5.0, 25.0, 60.0)  # seconds between the attempts
TIMEOUT_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 3.0  # to one address: the next one may answer
WAITING_MESSAGES: Final = 100
WORKERS: Final = 4
URL_CHARACTERS: Final = 2_000
PORTS: Final = {"https": 443, "http": 80}
NOTICE: Final = "webhook"
_WRONG: Final = "must begin with https:// or http:// and a host, in ASCII."
Message = Mapping[str, Any]
log = logging.getLogger(__name__)


class Undelivered(CallError):
    """The receiver did not accept a message."""


class Webhook:
    """Sends messages to the configured URL; a call that has something to report never waits.

    Each message is tried len(PAUSES) + 1 times, at most WORKERS messages at a time. What cannot be
    delivered becomes a notice.
    """

    def __init__(self, store: Store, *, pauses: tuple[float, ...] = PAUSES) -> None:
        self.pauses = pauses
        self._store = store
        self._messages: asyncio.Queue[Message] = asyncio.Queue(WAITING_MESSAGES)

    async def configure(self, url: str) -> tuple[WebhookRecord, str]:
        """Set the URL; return the webhook and the new secret that its messages are signed with."""
        receiver, secret = await _receiver_of(url), secrets.token_urlsafe(32)
        return await self._store.webhooks.replace(receiver, url, secret), secret

    async def configured(self) -> WebhookRecord | None:
        """Return the webhook, if there is one."""
        return await self._store.webhooks.find()

    def send(self, message: Message) -> None:
        """Send a message in the background; drop it if too many wait already."""
        try:
            self._messages.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("Notice of approval %s dropped: too many wait", message.get("number"))

    async def run(self, stop: anyio.Event) -> None:
        """Deliver messages until `stop` is set; those that wait then are dropped."""
        async with anyio.create_task_group() as tasks:
            for _ in range(WORKERS):
                tasks.start_soon(self._work)
            await stop.wait()
            tasks.cancel_scope.cancel()

    async def post(self, webhook: WebhookRecord, message: Message) -> None:
        """Send a message once; raise Undelivered with the reason, BadArgument for its address."""
        opened = await self._store.webhooks.opened(webhook)
        if opened is None:  # removed by another process
            return
        url, secret = opened
        addresses = await _addresses_of(url)
        body = json.dumps(message).encode()
        headers = {"Content-Type": "application/json", **signature(secret, body, int(time.time()))}
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):  # in total, however slowly it answers
                status = await _post(httpx.URL(url), addresses, body, headers)
        except (httpx.HTTPError, TimeoutError) as error:
            raise Undelivered(f"No answer: {type(error).__name__}.") from error
        if not 200 <= status < 300:
            redirect = " Redirects are not followed." if 300 <= status < 400 else ""
            raise Undelivered(f"The answer was {status}.{redirect}")

    async def _work(self) -> None:
        while True:
            message = await self._messages.get()
            try:
                await self._deliver(message)
            except Exception:
                log.exception("Notice of approval %s was not delivered", message.get("number"))

    async def _deliver(self, message: Message) -> None:
        """Try until the receiver accepts the message; a failure of all attempts is a notice."""
        for pause in (*self.pauses, None):
            webhook = await self.configured()
            if webhook is None:
                return
            try:
                await self.post(webhook, message)
            except CallError as error:
                if pause is None or isinstance(error, BadArgument):
                    await self._record_failure(webhook, message, error)
                    return
                await anyio.sleep(pause)
            else:
                return

    async def _record_failure(
        self, webhook: WebhookRecord, message: Message, error: CallError
    ) -> None:
        receiver = webhook.receiver
        text = f"{receiver} was not notified of approval {message['number']}. {error}"
        await self._store.notices.record(NOTICE, receiver[:128], text)


def signature(secret: str, body: bytes, timestamp: int) -> dict[str, str]:
    """Return the headers that prove who sent the body, and when."""
    digest = hmac.digest(secret.encode(), f"{timestamp}.".encode() + body, "sha256").hex()
    return {TIMESTAMP: str(timestamp), SIGNATURE: f"sha256={digest}"}


async def _post(
    url: httpx.URL, addresses: list[str], body: bytes, headers: Mapping[str, str]
) -> int:
    """Post to the first address that can be connected to; return the status.

    The name is not resolved again, or it could lead to an address that was not checked. It is in
    the Host header, and the certificate has to be valid for it.
    """
    # nothing of the environment: neither a proxy nor passwords of ~/.netrc
    async with httpx.AsyncClient(
        trust_env=False,
        verify=Tls().context(),
        mounts={"http://": PlainTransport()},
        follow_redirects=False,
        headers={**headers, "Host": url.netloc.decode()},
        timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS),
    ) as http:
        failure: httpx.RequestError = httpx.ConnectError("the host has no address")
        for address in addresses:
            target = url.copy_with(host=address)
            name = {"sni_hostname": url.raw_host.decode()}
            try:
                with limited_head():
                    request = http.stream("POST", target, content=body, extensions=name)
                    async with request as response:
                        return response.status_code  # the body is not read
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure


async def _receiver_of(url: str) -> str:
    """Return scheme, host and port of the URL; raise BadArgument as `_addresses_of` does."""
    await _addresses_of(url)
    return f"{httpx.URL(url).scheme}://{_parsed(url)}"


async def _addresses_of(url: str) -> list[str]:
    """Return the addresses of the URL's host; raise BadArgument when one of them is refused."""
    return await checked_addresses(str(_parsed(url)), argument="url")


def _parsed(url: str) -> Host:
    """Return the host and port of the URL; raise BadArgument for what no receiver's URL can be."""
    try:
        parts = httpx.URL(url)
        host = Host.parse(f"{_host_of(parts)}:{parts.port or PORTS.get(parts.scheme, 0)}")
    except (httpx.InvalidURL, ValueError):
        raise BadArgument("url", _WRONG) from None
    if not url.isascii() or parts.scheme not in PORTS or len(url) > URL_CHARACTERS:
        raise BadArgument("url", _WRONG)
    if parts.userinfo or parts.fragment:
        raise BadArgument("url", "must have neither a user nor a fragment.")
    return host


def _host_of(url: httpx.URL) -> str:
    host = url.raw_host.decode()
    return f"[{host}]" if ":" in host else host
