"""The wire to one cluster: hosts, retries, turns, deadlines and typed answers."""

import ssl
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

import httpx2 as httpx
import msgspec
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from proxmox_client.auth import ApiToken, Password
from proxmox_client.circuit_breaker import Silence
from proxmox_client.deadlines import bounded
from proxmox_client.errors import (
    BadParameters,
    TlsError,
    UnexpectedAnswer,
    Unreachable,
)
from proxmox_client.hosts import Ring
from proxmox_client.json_decoder import Envelope, decode
from proxmox_client.limits import Limits, Turns
from proxmox_client.paths import node_of, place_of
from proxmox_client.refusals import refusal
from proxmox_client.session import Ticket, open_session
from proxmox_client.tls import Tls

T = TypeVar("T")

Parameter = str | int | float | bool | Sequence[str] | None
Parameters = dict[str, Parameter]
# what carries requests; tests put their own in its place
Wire = httpx.AsyncBaseTransport

# pveproxy closes an idle connection after 5 s
KEEPALIVE_EXPIRY = 3.0
# how often a request is tried that may be repeated; once per host if there are more
TRIES = 4
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "pvemcp-client"}
# pveproxy drops the connection in the middle of a larger body
MAX_BODY = 512 * 1024


class Reply(NamedTuple):
    """An answer as it came."""

    status: int
    reason: str
    body: bytes


class Line:
    """The connections to one cluster, whichever of its hosts answers, for all accounts.

    It uses httpx's transport without its client: no cookie of one account can reach another, no
    proxy or netrc of the environment comes between us and Proxmox, and a call costs a third less.
    """

    def __init__(
        self, hosts: Sequence[str], tls: Tls, limits: Limits, wire: Wire | None = None
    ) -> None:
        self.limits = limits
        self.turns = Turns(limits)
        self.silence = Silence(limits.read_timeout)
        self._ring = Ring(hosts)
        self._wire = wire or _wire(tls, limits)
        timeout = httpx.Timeout(limits.read_timeout, connect=limits.connect_timeout)
        self._extensions = {"timeout": timeout.as_dict()}

    async def aclose(self) -> None:
        """Close all connections."""
        await self._wire.aclose()

    async def send(
        self, method: str, path: str, form: str, headers: Mapping[str, str], *, safe: bool
    ) -> Reply:
        """Send; what is `safe` to repeat goes out again, to the next host if there is one."""
        try:
            return await self._send_once(method, path, form, headers)
        except _Failed as failed:
            if not self._repeatable(failed, safe=safe):
                raise failed.unreachable() from failed.error
        # most requests go well at once, and never pay for what follows
        tries = AsyncRetrying(
            retry=retry_if_exception(partial(self._repeatable, safe=safe)),
            stop=stop_after_attempt(max(TRIES, len(self._ring)) - 1),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            reraise=True,
        )
        try:
            return await tries(self._send_once, method, path, form, headers)
        except _Failed as failed:
            raise failed.unreachable() from failed.error

    def _repeatable(self, failed: BaseException, *, safe: bool) -> bool:
        if not isinstance(failed, _Failed) or not (safe or failed.before_sending):
            return False
        # who is silent, or shows a wrong certificate, will do so again
        return len(self._ring) > 1 or not failed.lasting

    async def _send_once(
        self, method: str, path: str, form: str, headers: Mapping[str, str]
    ) -> Reply:
        host = self._ring.current
        request = self._built(method, f"https://{host}/api2/json{path}", form, headers)
        try:
            response = await self._wire.handle_async_request(request)
            try:
                body = await response.aread()
            finally:
                await response.aclose()
        except httpx.RequestError as error:
            self._ring.failed(host)
            raise _Failed(str(host), error) from error
        reason = bytes(response.extensions.get("reason_phrase", b""))
        return Reply(response.status_code, reason.decode(errors="replace"), body)

    def _built(self, method: str, url: str, form: str, headers: Mapping[str, str]) -> httpx.Request:
        sent = {**_HEADERS, **headers}
        if method in ("GET", "DELETE"):
            asked = f"{url}?{form}" if form else url
            return httpx.Request(method, asked, headers=sent, extensions=self._extensions)
        body = form.encode()
        if len(body) > MAX_BODY:
            message = f"{len(body)} bytes of parameters are more than the {MAX_BODY} Proxmox takes"
            raise BadParameters(413, "", message)
        sent["Content-Type"] = "application/x-www-form-urlencoded"
        return httpx.Request(method, url, headers=sent, content=body, extensions=self._extensions)


class _Failed(Exception):
    """A request that got no whole answer from `host`."""

    def __init__(self, host: str, error: httpx.RequestError) -> None:
        super().__init__(host)
        self.host = host
        self.error = error

    @property
    def before_sending(self) -> bool:
        """Whether surely nothing was sent."""
        return isinstance(self.error, httpx.ConnectError | httpx.ConnectTimeout)

    @property
    def lasting(self) -> bool:
        """Whether the same host would fail in the same way."""
        return isinstance(self.error, httpx.TimeoutException) or self.tls is not None

    @property
    def tls(self) -> ssl.SSLError | None:
        """What was wrong with the certificate or the handshake, if that was it."""
        return _tls_cause(self.error) if isinstance(self.error, httpx.ConnectError) else None

    def unreachable(self) -> Unreachable:
        """The same for our callers."""
        if self.tls is not None:
            return TlsError(self.host, str(self.tls.args[-1] if self.tls.args else self.tls))
        if isinstance(self.error, httpx.TimeoutException):
            return Unreachable(self.host, f"no answer in time ({type(self.error).__name__})")
        silent = "no connection" if self.before_sending else "the connection broke"
        return Unreachable(self.host, str(self.error) or silent)


class Transport:
    """Typed requests of one account over a line."""

    def __init__(self, line: Line, auth: ApiToken | Password) -> None:
        self.line = line
        self._session = open_session(auth, self._sign_in)

    async def get(self, path: str, answer: type[T], /, **parameters: Parameter) -> T:
        """GET, decoded as `answer`."""
        return (await self.get_page(path, answer, **parameters)).data

    async def get_page(self, path: str, answer: type[T], /, **parameters: Parameter) -> Envelope[T]:
        """GET, with the number of rows there are beyond this page."""
        return _read(path, await self.request("GET", path, parameters), answer)

    async def post(self, path: str, /, **parameters: Parameter) -> Any:
        """POST; most answer with the UPID of a task."""
        return await self.ask("POST", path, **parameters)

    async def delete(self, path: str, /, **parameters: Parameter) -> Any:
        """DELETE."""
        return await self.ask("DELETE", path, **parameters)

    async def ask(self, method: str, path: str, /, **parameters: Parameter) -> Any:
        """Any request, decoded as plain values."""
        return _read(path, await self.request(method, path, parameters), Any).data

    async def request(self, method: str, path: str, parameters: Mapping[str, Parameter]) -> Reply:
        """Ask once it is our turn, and raise what is not a success."""
        form = urlencode(fields(parameters))
        line, what = self.line, f"{method} {path}"
        async with bounded(line.limits.timeout, what), line.turns.turn(node_of(path)):
            place = place_of(path) if method == "GET" else None  # a write is worth any wait
            async with line.silence.heeded(place, what) if place else nullcontext():
                return _success(path, await self._authorised(method, path, form))

    async def _authorised(self, method: str, path: str, form: str) -> Reply:
        safe = method == "GET"
        headers = await self._session.headers(method)
        reply = await self.line.send(method, path, form, headers, safe=safe)
        # a write is never sent twice, not even after a 401
        if reply.status == 401 and self._session.forget(headers) and safe:
            headers = await self._session.headers(method)
            reply = await self.line.send(method, path, form, headers, safe=safe)
        return reply

    async def _sign_in(self, form: Mapping[str, str]) -> Ticket:
        path = "/access/ticket"
        # a code of the second factor is good for one try only
        safe = "tfa-challenge" not in form
        reply = await self.line.send("POST", path, urlencode(form), {}, safe=safe)
        return _read(path, _success(path, reply), Ticket).data


def fields(parameters: Mapping[str, Parameter]) -> list[tuple[str, str]]:
    """Parameters as form fields: without None, booleans as 0/1, sequences repeated."""
    found: list[tuple[str, str]] = []
    for name, value in parameters.items():
        if isinstance(value, bool):
            found.append((name, str(int(value))))
        elif isinstance(value, str | int | float):
            found.append((name, str(value)))
        elif value is not None:
            found.extend((name, item) for item in value)
    return found


def _wire(tls: Tls, limits: Limits) -> Wire:
    pool = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=limits.per_cluster,
        keepalive_expiry=KEEPALIVE_EXPIRY,
    )
    return httpx.AsyncHTTPTransport(verify=tls.context(), limits=pool, trust_env=False)


def _success(path: str, reply: Reply) -> Reply:
    if reply.status >= 300:
        raise refusal(path, reply.status, reply.reason, reply.body)
    return reply


def _read(path: str, reply: Reply, answer: type[T]) -> Envelope[T]:
    try:
        return decode(reply.body, answer)
    except (msgspec.MsgspecError, ValueError) as error:
        message = f"The answer of {path} is not understood: {error}"
        raise UnexpectedAnswer(reply.status, reply.reason, message) from error


def _tls_cause(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error beneath, unless it is only a connection that ended."""
    ended = ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return None if isinstance(error, ended) else error
        error = error.__cause__ or error.__context__
    return None
