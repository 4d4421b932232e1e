"""HTTP as the carrier needs it: pooled connections, answers read as they come, errors as facts."""

import asyncio
import email.utils
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from http.cookiejar import CookieJar
from typing import Self

import httpx2 as httpx

from pvemcp_bridge import __version__, tls
from pvemcp_bridge.errors import (
    BridgeError,
    CertificateRefused,
    Lost,
    NoReply,
    ProxyRefused,
    Redirected,
    Silent,
    Unreachable,
)
from pvemcp_bridge.sse import Event, EventReader
from pvemcp_bridge.target import Target

__all__ = ["Answer", "Transport"]

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
_REST_SECONDS = 2.0
_REDIRECTS = (301, 302, 307, 308)
_MOST_REDIRECTS = 3
# uvicorn closes idle connections after 5 s; we do so before, so that no request meets that
_IDLE_SECONDS = 4.0
_MOST_IDLE = 100
_LIMITS = httpx.Limits(keepalive_expiry=_IDLE_SECONDS)


class Answer:
    """An HTTP answer whose body is still to be read."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._chunks = response.aiter_bytes()
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").lower().startswith("text/event-stream")

    @property
    def is_whole(self) -> bool:
        """Whether all of it has been read."""
        return self._response.is_closed

    @property
    def retry_after(self) -> float | None:
        """The seconds that the server asks to wait, given as seconds or as a date."""
        value = self.headers.get("retry-after", "").strip()
        if value.isdigit():
            return float(value[:6])
        date = email.utils.parsedate_tz(value)
        return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None

    async def text(self) -> str:
        """The whole body."""
        with _facts():
            body = await self._response.aread()
        try:
            return body.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise NoReply("The server's reply is not UTF-8.", status=self.status) from None

    async def events(self) -> AsyncGenerator[Event]:
        """The events of a stream, to its end."""
        reader = EventReader()
        with _facts():
            async for chunk in self._chunks:
                for event in reader.feed(chunk):
                    yield event
        for event in reader.finish():
            yield event

    async def finish(self) -> None:
        """Reads what is left, so that the connection serves the next request too."""
        try:
            async with asyncio.timeout(_REST_SECONDS):
                async for _ in self._chunks:
                    pass
        except (TimeoutError, httpx.RequestError, httpx.StreamError) as error:
            log.debug("A connection was not kept: %r", error)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Hangs up, unless all of it has come."""
        await self._response.aclose()


class Connections:
    """A client of one connection for each request in flight, the one used last first.

    One client for all would look at each of its connections whenever one of them is needed, which
    takes longer than the request itself when many are in flight.
    """

    def __init__(self, target: Target) -> None:
        self._verify = _settings(target)
        self.cookies = CookieJar()
        self._idle: deque[tuple[float, httpx.AsyncClient]] = deque()

    def take(self) -> httpx.AsyncClient:
        """A client that nobody uses."""
        if self._idle:
            return self._idle.pop()[1]
        try:
            return httpx.AsyncClient(verify=self._verify, limits=_LIMITS, cookies=self.cookies)
        except (ImportError, ValueError, httpx.InvalidURL):  # SOCKS, or nothing httpx knows
            raise ProxyRefused("The proxy named in the environment is no HTTP proxy.") from None

    async def give_back(self, client: httpx.AsyncClient) -> None:
        """Keeps a client for the next request, and none for too long."""
        now = time.monotonic()
        self._idle.append((now, client))
        while len(self._idle) > _MOST_IDLE or self._idle[0][0] < now - _IDLE_SECONDS:
            await self._idle.popleft()[1].aclose()

    async def aclose(self) -> None:
        """Closes those that nobody uses."""
        while self._idle:
            await self._idle.pop()[1].aclose()


class Transport:
    """The way to one server and back."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._headers = {
            "user-agent": f"pvemcp-bridge/{__version__}",
            "accept-encoding": "gzip, deflate",
            **target.headers,
        }
        self._connections = Connections(target)
        self._finishing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._finishing:
            task.cancel()
        if self._finishing:
            await asyncio.wait(self._finishing)
        await self._connections.aclose()

    @asynccontextmanager
    async def send(
        self,
        method: str,
        headers: Mapping[str, str],
        content: str | None = None,
        *,
        silence: float | None,
    ) -> AsyncIterator[Answer]:
        """Sends a request and gives the answer once its headers are here; hangs up on an error."""
        client = self._connections.take()
        answer = None
        try:
            answer = Answer(await self._follow(client, method, headers, content, silence))
            yield answer
        except BaseException:  # of whatever kind: hanging up is how the server learns of it
            if answer:
                await answer.aclose()
            await self._connections.give_back(client)
            raise
        if answer.is_whole:
            await self._connections.give_back(client)
        else:
            self._finish(answer, client)

    def _finish(self, answer: Answer, client: httpx.AsyncClient) -> None:
        """Lets the end of an answer come by itself; its reply has not waited for it."""
        task = asyncio.get_running_loop().create_task(self._finished(answer, client))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def _finished(self, answer: Answer, client: httpx.AsyncClient) -> None:
        try:
            await answer.finish()
        finally:
            await self._connections.give_back(client)

    async def _follow(
        self,
        client: httpx.AsyncClient,
        method: str,
        headers: Mapping[str, str],
        content: str | None,
        silence: float | None,
    ) -> httpx.Response:
        url = self._url
        for _ in range(_MOST_REDIRECTS + 1):
            with _facts():
                request = self._request(method, url, headers, content, silence)
                response = await client.send(request, stream=True)
            if response.status_code not in _REDIRECTS:
                return response
            await response.aclose()
            url = _redirected(url, response)
        raise Redirected("The server redirects in a circle.", status=response.status_code)

    def _request(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        content: str | None,
        silence: float | None,
    ) -> httpx.Request:
        timeout = httpx.Timeout(silence, connect=_CONNECT_SECONDS, pool=None)
        return httpx.Request(
            method,
            url,
            headers={**self._headers, **headers},
            cookies=self._connections.cookies,
            content=content,
            extensions={"timeout": timeout.as_dict()},
        )

    @cached_property
    def _url(self) -> httpx.URL:
        with _facts():
            return httpx.URL(self._target.url)


def _redirected(url: httpx.URL, response: httpx.Response) -> httpx.URL:
    with _facts():
        location = url.join(response.headers.get("location", ""))
    if _origin(location) != _origin(url):
        raise Redirected(
            f"The server redirects to {location.scheme}://{location.host}, another origin; "
            "the key is not sent there.",
            status=response.status_code,
        )
    return location


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _settings(target: Target) -> ssl.SSLContext:
    if target.url.startswith("https"):
        return tls.context(target.trust) or httpx.create_ssl_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used; loading authorities takes time


@contextmanager
def _facts() -> Iterator[None]:
    """Turns what httpx raises into what it means for the request."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise _unreachable(error) from error
    except httpx.TimeoutException as error:
        raise Silent("The server was silent for too long.") from error
    except (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise BridgeError(f"The request cannot be sent: {error}.") from error
    except (httpx.RequestError, httpx.StreamError) as error:
        raise Lost("The connection broke before the reply came.") from error


def _unreachable(error: httpx.TransportError) -> Unreachable:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = cause.verify_message if hasattr(cause, "verify_message") else cause.args[-1]
            return CertificateRefused(f"The server's certificate is not trusted: {reason}.")
        if isinstance(cause, ssl.SSLError):
            return CertificateRefused(f"TLS failed: {cause.reason or cause}.", hint=_TLS_HINT)
        if isinstance(cause, socket.gaierror):
            return Unreachable(f"The server's name cannot be resolved: {cause.strerror}.")
    if isinstance(error, httpx.ConnectTimeout):
        return Unreachable(f"The server did not accept a connection in {_CONNECT_SECONDS:.0f} s.")
    if isinstance(error, httpx.ProxyError):
        kind = Unreachable if str(error).startswith("5") else ProxyRefused
        return kind(f"The proxy refused: {error}.")
    return Unreachable("The server refused the connection.")


_TLS_HINT = "Check that the server speaks HTTPS at this port, or use http://."


def _causes(error: BaseException) -> Iterator[BaseException]:
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__, *one.args]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
