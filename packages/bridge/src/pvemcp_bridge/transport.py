"""HTTP as the carrier needs it: pooled connections, answers read as they come, errors as facts."""

import asyncio
import email.utils
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Self
from urllib.parse import urljoin, urlsplit

import httpx2 as httpx

from pvemcp_bridge import __version__, tls
from pvemcp_bridge.errors import (
    BridgeError,
    CertificateRefused,
    Lost,
    NoReply,
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
_LIMITS = httpx.Limits(
    max_connections=None,  # every request is in flight at once
    max_keepalive_connections=100,
    # uvicorn closes idle connections after 5 s; we do so before, so that no request meets that
    keepalive_expiry=4.0,
)


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

    async def events(self) -> AsyncIterator[Event]:
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
        except (TimeoutError, httpx.TransportError, httpx.StreamError) as error:
            log.debug("A connection was not kept: %r", error)
        finally:
            await self._response.aclose()


class Transport:
    """The connections to one server."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._finishing: set[asyncio.Task[None]] = set()
        self._client = httpx.AsyncClient(
            headers={"user-agent": f"pvemcp-bridge/{__version__}", **target.headers},
            verify=_settings(target),
            limits=_LIMITS,
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._finishing:
            task.cancel()
        await self._client.aclose()

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
        body = None if content is None else content.encode()
        waits = httpx.Timeout(silence, connect=_CONNECT_SECONDS, pool=None)
        response = await self._follow(method, headers, body, waits)
        answer = Answer(response)
        try:
            yield answer
        except BaseException:  # of whatever kind: hanging up is how the server learns of it
            await response.aclose()
            raise
        if not response.is_closed:
            self._finish(answer)

    def _finish(self, answer: Answer) -> None:
        """Lets the end of an answer come by itself; its reply has not waited for it."""
        task = asyncio.get_running_loop().create_task(answer.finish())
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def _follow(
        self, method: str, headers: Mapping[str, str], body: bytes | None, waits: httpx.Timeout
    ) -> httpx.Response:
        url = self._target.url
        for _ in range(_MOST_REDIRECTS + 1):
            with _facts():
                request = self._client.build_request(
                    method, url, headers=headers, content=body, timeout=waits
                )
                response = await self._client.send(request, stream=True)
            if response.status_code not in _REDIRECTS:
                return response
            await response.aclose()
            url = self._redirected(url, response)
        raise Redirected("The server redirects in a circle.", status=response.status_code)

    def _redirected(self, url: str, response: httpx.Response) -> str:
        location = urljoin(url, response.headers.get("location", ""))
        if _origin(location) != _origin(url):
            to = urlsplit(location)
            raise Redirected(
                f"The server redirects to {to.scheme}://{to.hostname}, another origin; "
                "the key is not sent there.",
                status=response.status_code,
            )
        return location


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or default


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
    except (httpx.TransportError, httpx.StreamError, httpx.DecodingError) as error:
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
        return Unreachable(f"The proxy refused: {error}.")
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
