"""HTTP requests to one cluster: host rotation, retries, limits, deadlines and typed answers."""

import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

import httpx2 as httpx
import msgspec
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from proxmox_client.auth import ApiToken, Password
from proxmox_client.circuit_breaker import CircuitBreaker, failure_domain
from proxmox_client.errors import BadParameters, TlsError, UnexpectedAnswer, Unreachable
from proxmox_client.hosts import Host
from proxmox_client.json_decoder import Envelope, decode
from proxmox_client.limits import ConcurrencyLimiter, Limits, node_of, time_limit
from proxmox_client.response_errors import response_error
from proxmox_client.session import Ticket, open_session
from proxmox_client.tls import Tls

T = TypeVar("T")
V = TypeVar("V")

Parameter = str | int | float | bool | Sequence[str] | None
Parameters = dict[str, Parameter]
# sends the requests; tests pass their own
HttpTransport = httpx.AsyncBaseTransport

# pveproxy closes an idle connection after 5 s
KEEPALIVE_EXPIRY = 3.0
# attempts for a request that may be repeated; more if there are more hosts, one for each
MAX_ATTEMPTS = 4
# pveproxy drops the connection in the middle of a larger body
MAX_BODY = 512 * 1024
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "pvemcp-client"}


class RawResponse(NamedTuple):
    """A response before decoding; `reason` is the text of the status line."""

    status: int
    reason: str
    body: bytes


class HostPool:
    """Connections to the hosts of one cluster, shared by all accounts.

    Any host answers for the whole cluster: the current one is used until it fails, then the next.
    It uses httpx's transport without httpx's client: cookies of one account cannot reach another,
    proxy settings and netrc of the environment are ignored, and a call takes a third less CPU time.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        tls: Tls,
        limits: Limits,
        http_transport: HttpTransport | None = None,
    ) -> None:
        if not hosts:
            raise ValueError("A cluster needs at least one host")
        self._hosts = [str(Host.parse(host)) for host in hosts]
        self._current = 0
        self.limits = limits
        self.limiter = ConcurrencyLimiter(limits)
        self.circuit_breaker = CircuitBreaker(limits.read_timeout)
        self._http_transport = http_transport or _open_transport(tls, limits)
        timeout = httpx.Timeout(limits.read_timeout, connect=limits.connect_timeout)
        self._extensions = {"timeout": timeout.as_dict()}

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http_transport.aclose()

    async def send(
        self, method: str, path: str, form: str, headers: Mapping[str, str], *, safe: bool
    ) -> RawResponse:
        """Send a request; retry it if it is `safe` to repeat or certainly didn't reach a host.

        A retry goes to the next host, if there is one. Raise Unreachable after the last attempt.
        """
        try:
            return await self._send_once(method, path, form, headers)
        except _RequestFailed as failure:
            if not self._may_retry(failure, safe=safe):
                raise failure.as_unreachable() from failure.error
        # set up only after a failure: most requests succeed at once and don't pay for it
        retrying = AsyncRetrying(
            retry=retry_if_exception(partial(self._may_retry, safe=safe)),
            stop=stop_after_attempt(max(MAX_ATTEMPTS, len(self._hosts)) - 1),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            reraise=True,
        )
        try:
            return await retrying(self._send_once, method, path, form, headers)
        except _RequestFailed as failure:
            raise failure.as_unreachable() from failure.error

    def _may_retry(self, failure: BaseException, *, safe: bool) -> bool:
        if not isinstance(failure, _RequestFailed) or not (safe or failure.before_sending):
            return False
        # a host that timed out or has a wrong certificate would fail again
        return len(self._hosts) > 1 or not failure.persistent

    async def _send_once(
        self, method: str, path: str, form: str, headers: Mapping[str, str]
    ) -> RawResponse:
        host = self._hosts[self._current]
        url = f"https://{host}/api2/json{path}"
        all_headers = {**_HEADERS, **headers}
        content = None
        if method in ("GET", "DELETE"):
            url = f"{url}?{form}" if form else url
        else:
            content = form.encode()
            if len(content) > MAX_BODY:
                size = f"{len(content)} bytes of parameters"
                raise BadParameters(413, "", f"{size} are more than the {MAX_BODY} Proxmox takes")
            all_headers["Content-Type"] = "application/x-www-form-urlencoded"
        request = httpx.Request(
            method, url, headers=all_headers, content=content, extensions=self._extensions
        )
        try:
            response = await self._http_transport.handle_async_request(request)
            try:
                body = await response.aread()
            finally:
                await response.aclose()
        except httpx.RequestError as error:
            if host == self._hosts[self._current]:  # else a concurrent request has switched already
                self._current = (self._current + 1) % len(self._hosts)
            raise _RequestFailed(host, error) from error
        reason = bytes(response.extensions.get("reason_phrase", b""))
        return RawResponse(response.status_code, reason.decode(errors="replace"), body)


class _RequestFailed(Exception):
    """A request that got no complete response from `host`."""

    def __init__(self, host: str, error: httpx.RequestError) -> None:
        super().__init__(host)
        self.host = host
        self.error = error

    @property
    def before_sending(self) -> bool:
        """Whether it failed before anything was sent."""
        return isinstance(self.error, httpx.ConnectError | httpx.ConnectTimeout)

    @property
    def persistent(self) -> bool:
        """Whether the same host would fail in the same way again."""
        return isinstance(self.error, httpx.TimeoutException) or self.tls is not None

    @property
    def tls(self) -> ssl.SSLError | None:
        """The TLS error in the chain of causes; a connection that merely ended is none."""
        ended = ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
        error: BaseException | None = self.error
        while error is not None and isinstance(self.error, httpx.ConnectError):
            if isinstance(error, ssl.SSLError):
                return None if isinstance(error, ended) else error
            error = error.__cause__ or error.__context__
        return None

    def as_unreachable(self) -> Unreachable:
        """Return the public exception for this failure."""
        if self.tls is not None:
            return TlsError(self.host, str(self.tls.args[-1] if self.tls.args else self.tls))
        if isinstance(self.error, httpx.TimeoutException):
            return Unreachable(self.host, f"no answer in time ({type(self.error).__name__})")
        default = "no connection" if self.before_sending else "the connection broke"
        return Unreachable(self.host, str(self.error) or default)


class Transport:
    """Typed requests of one account over a host pool."""

    def __init__(self, pool: HostPool, auth: ApiToken | Password) -> None:
        self.pool = pool
        self._session = open_session(auth, self._sign_in)

    async def get(self, path: str, answer: type[T], /, **parameters: Parameter) -> T:
        """GET a path and decode its data as `answer`."""
        return _decode(path, await self.request("GET", path, parameters), answer).data

    async def get_page(self, path: str, answer: type[T], /, **parameters: Parameter) -> Envelope[T]:
        """GET a path and decode its data as `answer`, with the total number of rows."""
        return _decode(path, await self.request("GET", path, parameters), answer)

    async def post(self, path: str, /, **parameters: Parameter) -> Any:
        """POST to a path and return its data: the UPID of a task, mostly."""
        return await self.request_data("POST", path, **parameters)

    async def delete(self, path: str, /, **parameters: Parameter) -> Any:
        """DELETE a path and return its data."""
        return await self.request_data("DELETE", path, **parameters)

    async def request_data(self, method: str, path: str, /, **parameters: Parameter) -> Any:
        """Send any request and return its data as plain values."""
        return _decode(path, await self.request(method, path, parameters), Any).data

    async def request(
        self, method: str, path: str, parameters: Mapping[str, Parameter]
    ) -> RawResponse:
        """Send any request within the limits; raise the error of a response of 300 or more.

        Booleans are sent as 0 or 1, a sequence as one field for each item, and None not at all.
        """
        form = urlencode(
            {
                name: int(value) if isinstance(value, bool) else value
                for name, value in parameters.items()
                if value is not None
            },
            doseq=True,
        )
        pool, node, name = self.pool, node_of(path), f"{method} {path}"
        guarded = node and method == "GET"
        async with (
            time_limit(pool.limits.timeout, name),
            pool.limiter.slot(node),
            pool.circuit_breaker.guard(failure_domain(path), name) if guarded else nullcontext(),
        ):
            response = await self._send_authorized(method, path, form)
            if response.status >= 300:
                raise response_error(path, *response)
            return response

    async def _send_authorized(self, method: str, path: str, form: str) -> RawResponse:
        safe = method == "GET"
        headers = await self._session.headers(method)
        response = await self.pool.send(method, path, form, headers, safe=safe)
        # a write is never sent twice, not even after a 401
        if response.status == 401 and self._session.invalidate(headers) and safe:
            headers = await self._session.headers(method)
            response = await self.pool.send(method, path, form, headers, safe=safe)
        return response

    async def _sign_in(self, form: Mapping[str, str]) -> Ticket:
        path = "/access/ticket"
        # a code of the second factor is valid for one attempt only
        safe = "tfa-challenge" not in form
        response = await self.pool.send("POST", path, urlencode(form), {}, safe=safe)
        if response.status >= 300:
            raise response_error(path, *response)
        return _decode(path, response, Ticket).data


def _open_transport(tls: Tls, limits: Limits) -> HttpTransport:
    connections = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=limits.per_cluster,
        keepalive_expiry=KEEPALIVE_EXPIRY,
    )
    return httpx.AsyncHTTPTransport(verify=tls.context(), limits=connections, trust_env=False)


def converted(path: str, value: V, convert: Callable[[V], T]) -> T:
    """Return a part of a decoded answer as another type; raise UnexpectedAnswer if it can't be."""
    try:
        return convert(value)
    except (msgspec.MsgspecError, ValueError) as error:
        message = f"The answer of {path} cannot be decoded: {error}"
        raise UnexpectedAnswer(200, "OK", message) from error


def _decode(path: str, response: RawResponse, answer: type[T]) -> Envelope[T]:
    try:
        return decode(response.body, answer)
    except (msgspec.MsgspecError, ValueError) as error:
        message = f"The answer of {path} cannot be decoded: {error}"
        raise UnexpectedAnswer(response.status, response.reason, message) from error
