"""The wire to one cluster: hosts, retries, turns, deadlines and typed answers."""

import ssl
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

import httpx2 as httpx
import msgspec
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from proxmox_client.auth import ApiToken, Password
from proxmox_client.deadlines import bounded
from proxmox_client.decoding import Envelope, decode
from proxmox_client.errors import (
    BadParameters,
    TlsError,
    UnexpectedAnswer,
    Unreachable,
)
from proxmox_client.hosts import Ring
from proxmox_client.limits import Limits, Turns
from proxmox_client.paths import node_of
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
# pveproxy drops the connection in the middle of a larger body
MAX_BODY = 512 * 1024


class Reply(NamedTuple):
    """An answer as it came."""

    status: int
    reason: str
    body: bytes


class Line:
    """The connections to one cluster, whichever of its hosts answers, for all accounts."""

    def __init__(
        self, hosts: Sequence[str], tls: Tls, limits: Limits, wire: Wire | None = None
    ) -> None:
        self.limits = limits
        self.turns = Turns(limits)
        self._ring = Ring(hosts)
        self._http = httpx.AsyncClient(
            transport=wire or _wire(tls, limits),
            timeout=httpx.Timeout(limits.read_timeout, connect=limits.connect_timeout),
            # no proxy or netrc of the environment comes between us and Proxmox
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def send(
        self, method: str, path: str, form: str, headers: Mapping[str, str], *, safe: bool
    ) -> Reply:
        """Send; what is `safe` to repeat goes out again, to the next host if there is one."""
        tries = AsyncRetrying(
            retry=retry_if_exception(partial(self._repeatable, safe=safe)),
            stop=stop_after_attempt(len(self._ring) + 1),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            reraise=True,
        )
        try:
            return await tries(self._send_once, method, path, form, headers)
        except httpx.TransportError as error:
            raise _unreachable(error) from error

    def _repeatable(self, error: BaseException, *, safe: bool) -> bool:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return True  # nothing was sent
        if isinstance(error, httpx.TimeoutException):
            return safe and len(self._ring) > 1  # who is silent once would be silent again
        return safe and isinstance(error, httpx.TransportError)

    async def _send_once(
        self, method: str, path: str, form: str, headers: Mapping[str, str]
    ) -> Reply:
        host = self._ring.current
        url = f"https://{host}/api2/json{path}"
        try:
            response = await self._http.send(self._built(method, url, form, headers))
        except httpx.TransportError:
            self._ring.failed(host)
            raise
        reason = bytes(response.extensions.get("reason_phrase", b""))
        return Reply(response.status_code, reason.decode(errors="replace"), response.content)

    def _built(self, method: str, url: str, form: str, headers: Mapping[str, str]) -> httpx.Request:
        if method in ("GET", "DELETE"):
            asked = f"{url}?{form}" if form else url
            return self._http.build_request(method, asked, headers=headers)
        body = form.encode()
        if len(body) > MAX_BODY:
            message = f"{len(body)} bytes of parameters are more than the {MAX_BODY} Proxmox takes"
            raise BadParameters(413, "", message)
        typed = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        return self._http.build_request(method, url, headers=typed, content=body)


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


def _unreachable(error: httpx.TransportError) -> Unreachable:
    host = error.request.url.netloc.decode()
    cause = _tls_cause(error) if isinstance(error, httpx.ConnectError) else None
    if cause is not None:
        return TlsError(host, str(cause.args[-1] if cause.args else cause))
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(host, f"no answer in time ({type(error).__name__})")
    return Unreachable(host, str(error) or type(error).__name__)


def _tls_cause(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error beneath, unless it is only a connection that ended."""
    ended = ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return None if isinstance(error, ended) else error
        error = error.__cause__ or error.__context__
    return None
