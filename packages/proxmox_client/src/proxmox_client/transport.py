"""HTTP requests to one cluster: host rotation, retries, limits, deadlines and typed answers."""

import asyncio
import math
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus, unquote, urlencode

import httpx2 as httpx
import msgspec
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from proxmox_client.auth import Credential, Password, Ticket
from proxmox_client.circuit_breaker import CircuitBreaker, failure_domain
from proxmox_client.errors import (
    BadParameters,
    DeadlineExceeded,
    Delayed,
    NodeSilent,
    ProxmoxError,
    ResponseError,
    UnexpectedAnswer,
    Unreachable,
)
from proxmox_client.hosts import DEFAULT_PORT, Host
from proxmox_client.json_decoder import Envelope, decode
from proxmox_client.limits import ConcurrencyLimiter, Limits, node_of, time_limit
from proxmox_client.response_errors import response_error, undecodable
from proxmox_client.responses import Outage, Response, limited_head, outage_of, read_body
from proxmox_client.session import TicketSession
from proxmox_client.sockets import SocketBudget
from proxmox_client.tls import Tls, tls_error, tls_fault

T = TypeVar("T")
V = TypeVar("V")

Parameter = str | int | float | bool | Sequence[str] | None
Parameters = dict[str, Parameter]
# sends the requests; tests pass their own
HttpTransport = httpx.AsyncBaseTransport

# seconds; pveproxy closes an idle connection after 5 s, and the socket stays open on our side
KEEPALIVE_EXPIRY = 3.0
# attempts for a request that may be repeated; more if there are more hosts, one for each
MAX_ATTEMPTS = 4
# a host that answers later than this about a node has waited for it, as the next one would
QUICK_SECONDS = 5.0
# other hosts that are asked for their view of the cluster at once
MOST_OTHERS = 8
# pveproxy drops the connection in the middle of a larger body
MAX_BODY = 512 * 1024
# of an answer, decompressed: more than any cluster sends; a host that was taken over sends anything
MAX_ANSWER = 32 * 1024 * 1024
_LONG_BODY = 256 * 1024  # takes about two milliseconds to decode
# what only one node can answer, or one disk
_OF_ONE_HOST = ("/nodes/", "/admin/datastore/")
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
_PARTS = re.compile(r"[=:]")  # of a signature, whose last one is the secret
_SHORTEST_SECRET = 8
_HIDDEN = b"***"
_METHODS = ("GET", "POST", "PUT", "DELETE")
_UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "pvemcp-client"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request to a host, with its response or without one, for those who measure."""

    host: str
    method: str
    path: str
    seconds: float
    status: int = 0  # of HTTP; 0 without a response
    failure: type[BaseException] | None = None  # in place of a complete response


Observe = Callable[[Exchange], None]


class HostPool:
    """Connections to the hosts of one cluster, shared by all accounts.

    Any host answers for the whole cluster: the current one is used until it fails, then the next.
    Once no request has used them for KEEPALIVE_EXPIRY, all connections are closed; the next request
    opens new ones. httpx closes expired ones only when another request is sent, so those of a
    cluster that is not asked any more would stay open.

    It uses httpx's transport without httpx's client: cookies of one account cannot reach another,
    proxy settings and netrc of the environment are ignored, and a call takes a third less CPU time.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        tls: Tls,
        limits: Limits,
        http_transport: HttpTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        default_port: int = DEFAULT_PORT,
        sockets: SocketBudget | None = None,
    ) -> None:
        if not hosts:
            raise ValueError("A cluster needs at least one host")
        self._hosts = [str(Host.parse(host, default_port)) for host in hosts]
        self._current = 0
        self.answered = -math.inf  # when a host last answered, on the monotonic clock
        self.written = -math.inf  # when the last request that is no GET ended
        self.is_split = False  # whether a host was seen in a partition without quorum
        self.before_write: Callable[[], Awaitable[None]] | None = None  # may raise: nothing is sent
        self.observe: Observe | None = None
        self.limits = limits
        self.clock = clock
        self.limiter = ConcurrencyLimiter(limits)
        self.circuit_breaker = CircuitBreaker(
            limits.read_timeout, cluster_timeout=limits.cluster_timeout
        )
        self._sockets = sockets or SocketBudget()
        self._open_transport = _opener(tls, limits, http_transport)
        self._http_transport: HttpTransport | None = None
        self.decoding = asyncio.Lock()  # of an answer that takes long
        self._leases = 0  # requests that are being sent
        self._queued = 0  # requests that wait for a place of the budget
        self._held = 0  # places of the budget: the most leases at once since the last close
        self._expiry: asyncio.TimerHandle | None = None
        self._closings: set[asyncio.Task[None]] = set()
        self._is_retired = False
        self._extensions = _timeout(limits, limits.read_timeout)
        # short enough that the next host can still answer within the limit
        share = max(limits.connect_timeout, limits.cluster_timeout / len(self._hosts))
        self._cluster_extensions = _timeout(limits, min(share, limits.read_timeout))

    async def aclose(self) -> None:
        """Close all connections, also those that requests use."""
        self._is_retired = True
        self._close()
        if self._closings:
            await asyncio.wait(self._closings)

    def retire(self) -> None:
        """Keep no connection open after its request, as this cluster is replaced or removed.

        Those that no request uses are closed now. Requests still work, so that calls can end.
        """
        self._is_retired = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close the connections unless a request uses one of them."""
        if not self._leases:
            self._close()

    def _close(self) -> None:
        self._sockets.idle.pop(self, None)
        if self._expiry:
            self._expiry.cancel()
        transport, self._http_transport = self._http_transport, None
        places, self._held = self._held - self._leases, self._leases

        async def close() -> None:
            try:
                if transport:
                    await transport.aclose()
            finally:
                await self._sockets.give_back(places)

        task = asyncio.create_task(close(), name="close of idle connections")
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    def delay(self, since: float) -> str:
        """Return why no answer since then proves nothing about the hosts; "" if it does.

        `since` is a time on the monotonic clock. Requests of this process wait for each other, so
        one that took long may not have been sent yet.
        """
        if self._queued and not self._leases:
            return "all sockets of this server are in use"
        if self.answered > since:
            return "it answers other requests of this server"
        return "earlier requests to it have no answer yet" if self.limiter.is_full else ""

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[None]:
        """Hold a place for the socket of a request, with its retries; wait until one is free."""
        if self._leases == self._held:
            self._queued += 1
            try:
                await self._sockets.take()
            finally:
                self._queued -= 1
            self._held += 1
        self._leases += 1
        self._sockets.idle.pop(self, None)
        if self._expiry:
            self._expiry.cancel()
        try:
            yield
        finally:
            self._leases -= 1
            if not self._leases:
                if self._is_retired or self._sockets.waiting:
                    self._close()
                else:
                    self._sockets.idle[self] = None
                    loop = asyncio.get_running_loop()
                    self._expiry = loop.call_later(KEEPALIVE_EXPIRY, self.close_idle)

    async def send(
        self, method: str, path: str, form: str, headers: Mapping[str, str], *, safe: bool
    ) -> Response:
        """Send a request; retry it if it is `safe` to repeat or certainly had no effect.

        A retry goes to the next host, if there is one. Raise Unreachable after the last attempt.
        """
        sending = _Sending(self, method, path, form, headers, safe)
        try:
            return await sending.once()
        except _RequestFailed as failure:
            if not sending.may_retry(failure):
                return sending.give_up(failure)
        # set up only after a failure: most requests succeed at once and don't pay for it
        retrying = AsyncRetrying(
            retry=retry_if_exception(sending.may_retry),
            stop=stop_after_attempt(max(MAX_ATTEMPTS, len(self._hosts)) - 1),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            reraise=True,
        )
        try:
            return await retrying(sending.once)
        except _RequestFailed as failure:
            return sending.give_up(failure)

    async def send_once(
        self, path: str, form: str, only: str | None = None, *, host_header: str | None = None
    ) -> tuple[str, Response]:
        """POST a form that at most one host receives, or the host `only`; return that host too.

        The next host is tried only if no connection was made. Raise Unreachable.
        """
        hosts = [self.host(n) for n in range(self.size)] if only is None else [only]
        headers = {"Host": host_header} if host_header else {}
        while True:
            host = hosts.pop(0)
            try:
                response = await self.exchange(host, "POST", path, form, headers)
            except httpx.RequestError as error:
                failure = _RequestFailed(host, error)
                if failure.without_effect and hosts:
                    self.leave(host)
                    continue
                return host, failure.answer_or_raise()
            if outage := outage_of(response):
                return host, _RequestFailed(host, outage, response).answer_or_raise()
            return host, response

    def host(self, further: int) -> str:
        """Return the host to ask: the current one, or one that many places after it."""
        return self._hosts[(self._current + further) % len(self._hosts)]

    @property
    def others(self) -> list[str]:
        """The hosts after the current one, bounded."""
        return [self.host(n) for n in range(1, min(self.size, MOST_OTHERS + 1))]

    @property
    def size(self) -> int:
        """The number of hosts."""
        return len(self._hosts)

    def has(self, host: str) -> bool:
        """Return whether this is one of the hosts."""
        return host in self._hosts

    def prefer(self, host: str) -> None:
        """Ask this host first from now on."""
        self._current = self._hosts.index(host)

    def leave(self, host: str) -> None:
        """Ask the next host first, unless a concurrent request has already left this one."""
        if host == self._hosts[self._current]:
            self._current = (self._current + 1) % len(self._hosts)

    async def exchange(
        self, host: str, method: str, path: str, form: str, headers: Mapping[str, str]
    ) -> Response:
        """Send a request to a host; raise httpx.RequestError without a complete response.

        Raise UnexpectedAnswer for one that is too long.
        """
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
        whole_cluster = method == "GET" and not path.startswith(_OF_ONE_HOST)
        extensions = self._cluster_extensions if whole_cluster else self._extensions
        request = httpx.Request(
            method, url, headers=all_headers, content=content, extensions=extensions
        )
        if self._http_transport is None:
            self._http_transport = self._open_transport()
        began, status, failure = time.monotonic(), 0, None
        try:
            with limited_head():
                response = await self._http_transport.handle_async_request(request)
            self.answered, status = time.monotonic(), response.status_code
            try:
                body = await read_body(response, MAX_ANSWER)
            finally:
                await response.aclose()
        except BaseException as error:
            failure = type(error)
            raise
        finally:
            if method != "GET":
                self.written = time.monotonic()
            if self.observe:
                seconds = time.monotonic() - began
                self.observe(Exchange(host, method, path, seconds, status, failure))
        if body is None:
            raise UnexpectedAnswer(
                response.status_code,
                "",
                f"The answer of {path} is longer than {MAX_ANSWER >> 20} MiB",
            )
        reason = bytes(response.extensions.get("reason_phrase", b""))
        for name, value in headers.items():  # of an account: who repeats them shows them to all
            secret = _PARTS.split(value)[-1].encode()
            if name != "Host" and len(secret) >= _SHORTEST_SECRET:
                body, reason = (text.replace(secret, _HIDDEN) for text in (body, reason))
        return Response(response.status_code, reason.decode(errors="replace"), body)


@dataclass(slots=True)
class _Sending:
    """The attempts of one request, and the hosts that it has tried.

    A response about a node, such as 595, says nothing about the host that passed it on. So such
    a request goes to one further host while other requests stay where they are; unless the first
    host has waited for the node, because a node that hangs does so for every host.
    """

    pool: HostPool
    method: str
    path: str
    form: str
    headers: Mapping[str, str]
    safe: bool
    outages: int = 0  # responses that reported one
    further: int = 0  # places after the pool's current host
    about_node: "_RequestFailed | None" = None  # the first response about the node, not the host

    async def once(self) -> Response:
        """Make one attempt; raise _RequestFailed, also for a response that reports an outage."""
        pool, host = self.pool, self.pool.host(self.further)
        started = pool.clock()
        try:
            response = await pool.exchange(host, self.method, self.path, self.form, self.headers)
        except httpx.RequestError as error:
            self._leave(host)
            raise _RequestFailed(host, error) from error
        if outage := outage_of(response):
            self.outages += 1
            is_quick = pool.clock() - started < QUICK_SECONDS
            failure = _RequestFailed(host, outage, response, is_quick=is_quick)
            if node_of(self.path) and not outage.certain:
                self.about_node = self.about_node or failure
            if node_of(self.path) or not outage.certain:
                self.further += 1
            else:
                self._leave(host)
            raise failure
        if self.further:
            pool.prefer(host)
        return response

    def may_retry(self, failure: BaseException) -> bool:
        """Return whether the request may be sent again, and whether that may help."""
        if not isinstance(failure, _RequestFailed) or not (self.safe or failure.without_effect):
            return False
        if self.about_node is not None:  # one further host is enough, however it fails
            return failure is self.about_node and failure.is_quick and self.pool.size > 1
        if isinstance(failure.cause, Outage):
            return self.outages < self.pool.size
        # a host that timed out or has a wrong certificate would fail again
        return self.pool.size > 1 or not failure.persistent

    def give_up(self, failure: "_RequestFailed") -> Response:
        """Return the response that may be an error of the request; else raise Unreachable."""
        return (self.about_node or failure).answer_or_raise()

    def _leave(self, host: str) -> None:
        if self.further:
            self.further += 1
        else:
            self.pool.leave(host)


class _RequestFailed(Exception):
    """A request that got no answer of Proxmox from `host`: no response, or one of an outage."""

    def __init__(
        self,
        host: str,
        cause: httpx.RequestError | Outage,
        response: Response | None = None,
        *,
        is_quick: bool = True,
    ) -> None:
        super().__init__(host)
        self.host = host
        self.cause = cause
        self.response = response
        self.is_quick = is_quick

    @property
    def without_effect(self) -> bool:
        """Whether it certainly had no effect: nothing was sent, or nothing was carried out."""
        if isinstance(self.cause, Outage):
            return self.cause.undone
        return isinstance(self.cause, httpx.ConnectError | httpx.ConnectTimeout)

    @property
    def persistent(self) -> bool:
        """Whether the same host would fail in the same way again."""
        return isinstance(self.cause, httpx.TimeoutException) or self.tls is not None

    @property
    def tls(self) -> ssl.SSLError | None:
        """The TLS error in the chain of causes; a connection that merely ended is none."""
        return tls_fault(self.cause) if isinstance(self.cause, httpx.ConnectError) else None

    def answer_or_raise(self) -> Response:
        """Return the response that may be an error of the request; else raise Unreachable."""
        if isinstance(self.cause, Outage):
            if self.response is not None and not self.cause.certain:
                return self.response
            raise Unreachable(self.host, self.cause.reason)
        raise self._unreachable(self.cause) from self.cause

    def _unreachable(self, error: httpx.RequestError) -> Unreachable:
        if self.tls is not None:
            return tls_error(self.host, self.tls)
        if isinstance(error, httpx.TimeoutException):
            return Unreachable(self.host, f"no answer in time ({type(error).__name__})")
        default = "no connection" if self.without_effect else "the connection broke"
        return Unreachable(self.host, _ERRNO.sub("", str(error)) or default)


class _Signatures(dict[str, dict[str, str]]):
    """Headers that sign a request, by its method; hidden wherever they are printed."""

    def __repr__(self) -> str:
        return f"<headers of {', '.join(self)}>"


class Transport:
    """Typed requests of one account over a host pool."""

    def __init__(self, pool: HostPool, auth: Credential | None) -> None:
        self.pool = pool
        self._session: TicketSession | None = None  # of a user with a password
        self._headers = _Signatures()  # made once, of a token or ticket
        if isinstance(auth, Password):
            self._session = TicketSession(auth, self._sign_in)
        elif auth:
            self._headers.update((method, auth.headers(method)) for method in _METHODS)

    async def get(self, path: str, answer: type[T], /, **parameters: Parameter) -> T:
        """GET a path and decode its data as `answer`."""
        response = await self.request("GET", path, parameters)
        return (await self._decoded(path, response, answer)).data

    async def get_page(self, path: str, answer: type[T], /, **parameters: Parameter) -> Envelope[T]:
        """GET a path and decode its data as `answer`, with the total number of rows."""
        return await self._decoded(path, await self.request("GET", path, parameters), answer)

    async def post(self, path: str, /, **parameters: Parameter) -> Any:
        """POST to a path and return its data: the UPID of a task, mostly."""
        return await self.request_data("POST", path, **parameters)

    async def put(self, path: str, /, **parameters: Parameter) -> Any:
        """PUT to a path and return its data, mostly none."""
        return await self.request_data("PUT", path, **parameters)

    async def delete(self, path: str, /, **parameters: Parameter) -> Any:
        """DELETE a path and return its data."""
        return await self.request_data("DELETE", path, **parameters)

    async def request_data(self, method: str, path: str, /, **parameters: Parameter) -> Any:
        """Send any request and return its data as plain values."""
        return (await self._decoded(path, await self.request(method, path, parameters), Any)).data

    async def request(
        self, method: str, path: str, parameters: Mapping[str, Parameter]
    ) -> Response:
        """Send any request within the limits; raise the error of a response of 300 or more.

        Booleans are sent as 0 or 1, a sequence as one field for each item, and None not at all.
        """
        if method != "GET":
            _refuse_unbounded(path, parameters)
        form = urlencode(
            {
                name: int(value) if isinstance(value, bool) else value
                for name, value in parameters.items()
                if value is not None
            },
            doseq=True,
        )
        pool, domain = self.pool, failure_domain(path)
        name, is_turn = f"{method} {path}", False
        try:
            async with (
                time_limit(pool.limits.timeout, name),
                pool.limiter.slot(domain.node),
                pool.lease(),  # before the circuit breaker: our own queue is no failure there
                pool.circuit_breaker.guard(domain, name) if method == "GET" else nullcontext(),
                self._watch_node(domain.node) if method == "GET" and domain.node else nullcontext(),
            ):
                is_turn, safe = True, method == "GET"
                if pool.before_write and not safe:  # after the wait for a slot, to be current
                    await pool.before_write()
                session, headers = self._session, self._headers.get(method, {})
                if session:
                    headers = await session.headers(method)
                response = await pool.send(method, path, form, headers, safe=safe)
                if response.status == 401 and session:
                    session.invalidate(headers)
                    if safe:  # a write is never sent twice, not even after a 401
                        headers = await session.headers(method)
                        response = await pool.send(method, path, form, headers, safe=safe)
                if response.status >= 300:
                    raise response_error(path, *response)
                return response
        except DeadlineExceeded as error:
            if is_turn:
                raise
            raise Delayed(f"{name} was not sent in time") from error

    @asynccontextmanager
    async def _watch_node(self, node: str) -> AsyncIterator[None]:
        """End a long read of a node that hangs with NodeSilent: it answers nothing else either.

        A slow storage or disk may take its time, so a read goes on while its node answers other
        requests. Hosts report a node that hangs after 30 s only. The watch sends no request unless
        the read takes longer than `patience`.
        """
        limits, loop = self.pool.limits, asyncio.get_running_loop()
        probes: list[asyncio.Task[None]] = []

        async def probe() -> None:
            with suppress(ProxmoxError):  # of a sign-in; the read itself ends with it
                if not await self._answers(node):
                    timer.reschedule(loop.time())

        try:
            async with asyncio.timeout(None) as timer:
                start = loop.call_later(
                    limits.patience, lambda: probes.append(loop.create_task(probe()))
                )
                try:
                    yield
                finally:
                    start.cancel()
                    for task in probes:
                        task.cancel()
        except TimeoutError:
            if not timer.expired():
                raise
            seconds = limits.patience + limits.probe_timeout
            raise NodeSilent(node, f"no answer within {seconds:g} s") from None

    async def _answers(self, node: str) -> bool:
        """Return whether the node answers the simplest request, through either of two hosts."""
        hosts = {self.pool.host(0), self.pool.host(1)}
        return bool(await self._probe(f"/nodes/{node}/version", hosts))

    async def post_once(
        self,
        path: str,
        answer: type[T],
        form: Mapping[str, str],
        *,
        secrets: Sequence[str] = (),
        only: str | None = None,
        host_header: str | None = None,
    ) -> tuple[str, T]:
        """POST a form without an account, to one host; return that host and the decoded data.

        Errors never contain the `secrets` of the form. `only` is the host that has to get it; raise
        Unreachable if it is no host of the cluster. `host_header` replaces the name of the host in
        the request, not in TLS.
        """
        if only is not None and not self.pool.has(only):
            raise Unreachable(only, "it is not a host of this cluster any more")
        try:
            async with time_limit(self.pool.limits.timeout, f"POST {path}"), self.pool.lease():
                host, response = await self.pool.send_once(
                    path, urlencode(form), only, host_header=host_header
                )
            if response.status >= 300:
                raise response_error(path, *response)
            return host, (await self._decoded(path, response, answer)).data
        except (ResponseError, Unreachable) as error:
            failure = _without(secrets, error)
        raise failure  # outside, so that it has no context

    async def get_of_others(self, path: str, answer: type[T], /) -> dict[str, T]:
        """GET a path from the other hosts, all at once; leave out those that don't answer soon."""
        async with time_limit(self.pool.limits.timeout, f"GET {path} of the other hosts"):
            responses = await self._probe(path, self.pool.others)
        answers: dict[str, T] = {}
        for host, response in responses.items():
            with suppress(UnexpectedAnswer):
                if response.status < 300:
                    answers[host] = (await self._decoded(path, response, answer)).data
        return answers

    async def _probe(self, path: str, hosts: Iterable[str]) -> dict[str, Response]:
        """GET a path from each host at once, without retries; return the answers of Proxmox.

        It takes no slot: those of a node that hangs are in use.
        """
        session = self._session
        headers = await session.headers("GET") if session else self._headers.get("GET", {})

        async def response(host: str) -> Response | None:
            try:
                async with self.pool.lease(), asyncio.timeout(self.pool.limits.probe_timeout):
                    response = await self.pool.exchange(host, "GET", path, "", headers)
            except (TimeoutError, httpx.RequestError, UnexpectedAnswer):
                return None
            return None if outage_of(response) else response

        names = list(hosts)
        responses = await asyncio.gather(*map(response, names))
        return {host: each for host, each in zip(names, responses, strict=True) if each}

    async def _sign_in(self, form: Mapping[str, str]) -> Ticket:
        path = "/access/ticket"
        # a code of the second factor is valid for one attempt only
        safe = "tfa-challenge" not in form
        response = await self.pool.send("POST", path, urlencode(form), {}, safe=safe)
        if response.status >= 300:
            raise response_error(path, *response)
        return (await self._decoded(path, response, Ticket)).data

    async def _decoded(self, path: str, response: Response, answer: type[T]) -> Envelope[T]:
        """Decode a response; raise UnexpectedAnswer if that fails.

        Decoding blocks the event loop, by tenths of a second for the largest. Long answers of a
        cluster are decoded one by one, with a pause of the same time after each: those of a host
        that was taken over, which come together, must not keep other calls waiting for seconds.
        """
        is_long, loop = len(response.body) > _LONG_BODY, asyncio.get_running_loop()
        if is_long:
            await self.pool.decoding.acquire()
        began = loop.time()
        try:
            return decode(response.body, answer)
        except _UNDECODABLE as error:
            raise undecodable(path, error) from error
        finally:
            if is_long:
                loop.call_later(loop.time() - began, self.pool.decoding.release)


def _timeout(limits: Limits, read: float) -> dict[str, Any]:
    return {"timeout": httpx.Timeout(read, connect=limits.connect_timeout).as_dict()}


def _opener(
    tls: Tls, limits: Limits, http_transport: HttpTransport | None
) -> Callable[[], HttpTransport]:
    """Return what opens connections again after they were closed; the TLS context is made once."""
    if http_transport is not None:
        return lambda: http_transport
    connections = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=limits.per_cluster,
        keepalive_expiry=KEEPALIVE_EXPIRY,
    )
    context = tls.context()
    return lambda: httpx.AsyncHTTPTransport(verify=context, limits=connections, trust_env=False)


def _refuse_unbounded(path: str, parameters: Mapping[str, Parameter]) -> None:
    """Raise BadParameters for a bulk action without guests: it is for every guest of the cluster.

    Source: PVE/API2/Cluster/BulkAction/Guest.pm.
    """
    segments = [unquote(segment) for segment in path.split("/") if segment]
    if segments[:2] == ["cluster", "bulk-action"] and not parameters.get("vms"):
        message = "without guests, a bulk action is for every guest of the cluster: never sent"
        raise BadParameters(400, "", message, {"vms": message})


def _without(
    secrets: Iterable[str], error: ResponseError | Unreachable
) -> ResponseError | Unreachable:
    """Return the error; one without texts if they repeat a secret, as no Proxmox does."""
    texts = [error.message]
    if isinstance(error, ResponseError):
        texts += [error.reason, *error.errors.values()]
    spellings = {
        spelling
        for secret in secrets
        for spelling in (secret, " ".join(secret.split()), quote(secret), quote_plus(secret))
    } - {""}
    if not any(spelling in text for spelling in spellings for text in texts):
        return error
    if isinstance(error, ResponseError):
        return type(error)(error.status, "", f"HTTP status {error.status}")
    return type(error)(error.host, "its answer repeats a secret, so it is not shown")


def converted(path: str, value: V, convert: Callable[[V], T]) -> T:
    """Return a part of a decoded answer as another type; raise UnexpectedAnswer if it can't be."""
    try:
        return convert(value)
    except _UNDECODABLE as error:
        raise undecodable(path, error) from error
