"""HTTP transport: pooled connections, responses read as they arrive, errors as facts."""

import asyncio
import email.utils
import logging
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from http.cookiejar import CookieJar
from typing import NamedTuple, Protocol, Self

import httpx2 as httpx

from pvemcp_bridge import __version__, tls
from pvemcp_bridge.compression import ENCODINGS, decoded
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
from pvemcp_bridge.sse import LONGEST, Event, EventReader, EventTooLong
from pvemcp_bridge.target import Target, origin_of

__all__ = ["HttpResponse", "Transport", "tls_context", "translated_errors"]

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
_DRAIN_SECONDS = 2.0
_REDIRECTS = (301, 302, 307, 308)
_MAX_REDIRECTS = 3
_SECONDS = re.compile(r"[0-9]+")
_LONGEST_WAIT = 999_999.0
# uvicorn closes idle connections after 5 s; close them earlier, so that no request gets lost
_IDLE_SECONDS = 4.0
_MAX_IDLE = 100
_LIMITS = httpx.Limits(keepalive_expiry=_IDLE_SECONDS)


class HttpResponse:
    """HTTP response whose body has not been read yet."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._chunks = decoded(response)
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").lower().startswith("text/event-stream")

    @property
    def is_complete(self) -> bool:
        """Whether the whole body has been read."""
        return self._response.is_closed

    @property
    def retry_after(self) -> float | None:
        """Seconds of `Retry-After`, which holds seconds or a date."""
        value = self.headers.get("retry-after", "").strip()
        if _SECONDS.fullmatch(value):
            return float(value[:6])
        try:
            date = email.utils.parsedate_tz(value)
            seconds = email.utils.mktime_tz(date) - time.time() if date else None
        except (ValueError, OverflowError):  # of a year or a zone with too many digits
            return None
        return None if seconds is None else min(max(0.0, seconds), _LONGEST_WAIT)

    async def text(self) -> str:
        """Read the whole body; raise NoReply if it is not UTF-8 or too long."""
        body = bytearray()
        with translated_errors():
            async for chunk in self._chunks:
                body += chunk
                if len(body) > LONGEST:
                    raise self._too_long()
        try:
            return body.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise NoReply("The server's reply is not UTF-8.", status=self.status) from None

    async def events(self) -> AsyncGenerator[Event]:
        """Yield the events of a stream to its end; raise NoReply if one is too long."""
        reader = EventReader()
        with translated_errors():
            async for chunk in self._chunks:
                try:
                    for event in reader.feed(chunk):
                        yield event
                except EventTooLong:
                    raise self._too_long() from None
        for event in reader.finish():
            yield event

    def _too_long(self) -> NoReply:
        fact = f"The server's reply is longer than {LONGEST >> 20} MiB."
        return NoReply(fact, status=self.status, hint="Ask for less at once.")

    async def drain(self) -> None:
        """Read the rest of the body, so that the connection can serve the next request."""
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for _ in self._chunks:
                    pass
        except (TimeoutError, httpx.RequestError, httpx.StreamError) as error:
            log.debug("A connection was not kept: %r", error)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connection, unless the whole body has been read."""
        await self._response.aclose()


class ConnectionPool:
    """Pool of HTTP clients with one connection each; the one used last is taken first.

    A single client for all requests would scan its connections for each request, which takes longer
    than the request itself when many are in flight.
    """

    def __init__(self, target: Target) -> None:
        self._verify = tls_context(target)
        self.cookies = CookieJar()
        self._idle: deque[tuple[float, httpx.AsyncClient]] = deque()

    def acquire(self) -> httpx.AsyncClient:
        """Return an idle client or a new one; raise ProxyRefused for an unusable proxy setting."""
        if self._idle:
            return self._idle.pop()[1]
        try:
            return httpx.AsyncClient(verify=self._verify, limits=_LIMITS, cookies=self.cookies)
        except (ImportError, ValueError, httpx.InvalidURL):  # SOCKS, or a scheme unknown to httpx
            raise ProxyRefused("The proxy set in the environment is not an HTTP proxy.") from None

    async def release(self, client: httpx.AsyncClient) -> None:
        """Keep a client for the next request; close those that were idle for too long."""
        now = time.monotonic()
        self._idle.append((now, client))
        while len(self._idle) > _MAX_IDLE or self._idle[0][0] < now - _IDLE_SECONDS:
            await self._idle.popleft()[1].aclose()

    async def aclose(self) -> None:
        """Close the idle clients."""
        while self._idle:
            await self._idle.pop()[1].aclose()


class Authorizer(Protocol):
    """Tokens of one request, one after the other while the server refuses them."""

    async def headers(self) -> Mapping[str, str]:
        """Return the header with the current token."""

    async def may_repeat(self, status: int, challenge_header: str) -> bool:
        """Return whether the request may be sent again after this refusal."""


class Account(Protocol):
    """Sign-in of the user; `oauth.account` has it."""

    def attempt(self, *, interactive: bool) -> Authorizer:
        """Begin a request."""

    async def aclose(self) -> None:
        """Stop renewals and sign-ins."""


class _Request(NamedTuple):
    """A request to the endpoint; `read_timeout` in seconds."""

    method: str
    headers: Mapping[str, str]
    content: str | None
    read_timeout: float | None


class Transport:
    """HTTP transport to one server."""

    def __init__(self, target: Target, account: Account | None = None) -> None:
        self._target = target
        self._account = account
        self._headers = {
            "user-agent": f"pvemcp-bridge/{__version__}",
            "accept-encoding": ENCODINGS,
            **target.headers,
        }
        self._pool = ConnectionPool(target)
        self._draining: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._draining:
            task.cancel()
        if self._draining:
            await asyncio.wait(self._draining)
        await self._pool.aclose()
        if self._account:
            await self._account.aclose()

    @asynccontextmanager
    async def send(
        self,
        method: str,
        headers: Mapping[str, str],
        content: str | None = None,
        *,
        read_timeout: float | None,
    ) -> AsyncIterator[HttpResponse]:
        """Send a request and yield the response as soon as its headers are here.

        `read_timeout` is the longest time in seconds without a byte. After an error or a
        cancellation in the body of the `with` statement the connection is closed, which is how the
        server learns of it. Otherwise a background task reads the rest of the response, so that
        the reply does not wait for it.
        """
        client = self._pool.acquire()
        response = None
        try:
            request = _Request(method, headers, content, read_timeout)
            response = HttpResponse(await self._authorized(client, request))
            yield response
        except BaseException:  # also a cancellation
            if response:
                await response.aclose()
            await self._pool.release(client)
            raise
        if response.is_complete:
            await self._pool.release(client)
        else:
            task = asyncio.get_running_loop().create_task(self._drain(response, client))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)

    async def _drain(self, response: HttpResponse, client: httpx.AsyncClient) -> None:
        try:
            await response.drain()
        finally:
            await self._pool.release(client)

    async def _authorized(self, client: httpx.AsyncClient, request: _Request) -> httpx.Response:
        """Send with the token of the account; again, with another one, if the server refuses it.

        A refused request was not processed. Only POST, which carries the client's messages, makes
        the user sign in: streams and the end of a session do not.
        """
        if self._account is None:
            return await self._follow_redirects(client, request)
        attempt = self._account.attempt(interactive=request.method == "POST")
        while True:
            headers = {**request.headers, **await attempt.headers()}
            response = await self._follow_redirects(client, request._replace(headers=headers))
            if response.status_code not in (401, 403):
                return response
            try:
                challenge = response.headers.get("www-authenticate", "")
                if not await attempt.may_repeat(response.status_code, challenge):
                    return response
            except BaseException:  # also a cancellation
                await response.aclose()
                raise
            await response.aclose()

    async def _follow_redirects(
        self, client: httpx.AsyncClient, request: _Request
    ) -> httpx.Response:
        url = self._url
        timeout = httpx.Timeout(request.read_timeout, connect=_CONNECT_SECONDS, pool=None)
        for _ in range(_MAX_REDIRECTS + 1):
            with translated_errors():
                sent = httpx.Request(
                    request.method,
                    url,
                    headers={**self._headers, **request.headers},
                    cookies=self._pool.cookies,
                    content=request.content,
                    extensions={"timeout": timeout.as_dict()},
                )
                response = await client.send(sent, stream=True)
            if response.status_code not in _REDIRECTS:
                return response
            await response.aclose()
            url = _redirect_url(url, response)
        raise Redirected("The server redirects in a circle.", status=response.status_code)

    @cached_property
    def _url(self) -> httpx.URL:
        with translated_errors():
            return httpx.URL(self._target.url)


def _redirect_url(url: httpx.URL, response: httpx.Response) -> httpx.URL:
    with translated_errors():
        location = url.join(response.headers.get("location", ""))
    if origin_of(str(location)) != origin_of(str(url)):
        raise Redirected(
            f"The server redirects to {location.scheme}://{location.host}, another origin; "
            "the key is not sent there.",
            status=response.status_code,
        )
    return location


def tls_context(target: Target) -> ssl.SSLContext:
    if target.url.startswith("https"):
        return tls.context(target.trust) or httpx.create_ssl_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # unused; loading the authorities takes time


@contextmanager
def translated_errors() -> Iterator[None]:
    """Translate the exceptions of httpx to the errors of the bridge."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise _unreachable(error) from error
    except httpx.TimeoutException as error:
        raise Silent("The server sent nothing within the timeout.") from error
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
            return CertificateRefused(f"TLS failed: {_tls_reason(cause)}.", hint=_TLS_HINT)
        if isinstance(cause, socket.gaierror):
            return Unreachable(f"The server's name cannot be resolved: {cause.strerror}.")
    if isinstance(error, httpx.ConnectTimeout):
        return Unreachable(f"The server did not accept a connection in {_CONNECT_SECONDS:.0f} s.")
    if isinstance(error, httpx.ProxyError):
        error_class = Unreachable if str(error).startswith("5") else ProxyRefused
        return error_class(f"The proxy refused the connection: {error}.")
    return Unreachable("The server refused the connection.")


def _tls_reason(error: ssl.SSLError) -> str:
    """Return in words why a handshake failed, without the codes of OpenSSL."""
    if error.reason in _WITHOUT_TLS:
        return "the server does not speak TLS at this port"
    return (error.reason or "the handshake was broken off").replace("_", " ").lower()


_WITHOUT_TLS = frozenset(  # what OpenSSL makes of an answer without TLS, by version
    {"HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "WRONG_VERSION_NUMBER"}
)
_TLS_HINT = "Check that the server speaks HTTPS at this port, or use http://."


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything that it was raised from, nearest first."""
    queue: list[object] = [error]
    seen: set[int] = set()
    while queue:
        cause = queue.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        queue += [cause.__cause__, cause.__context__, *cause.args]
        if isinstance(cause, BaseExceptionGroup):
            queue += cause.exceptions
