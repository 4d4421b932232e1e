"""The gate: hides the API key before anything can log it, and admits its owner."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.types import ASGIApp, Receive, Scope, Send

from pvemcp_server.access.authentication import KeyAuthenticator
from pvemcp_server.access.limits import CallLimits, Slot, network_of
from pvemcp_server.access.model import Caller
from pvemcp_server.audit import Audit, Event, Outcome
from pvemcp_server.errors import AccessDenied, OverBudget, StateUnavailable, TooManyFailures
from pvemcp_server.http import errors
from pvemcp_server.http.active_requests import ActiveRequest, ActiveRequests
from pvemcp_server.http.client_address import Networks, client_address
from pvemcp_server.http.cors import with_cors
from pvemcp_server.http.credentials import Credential, take_key
from pvemcp_server.http.errors import Refused
from pvemcp_server.http.exchange import HttpExchange
from pvemcp_server.http.hosts import Hosts
from pvemcp_server.http.paths import PROBES, is_canonical, is_public
from pvemcp_server.settings import Settings, Values

STREAMS_PER_KEY: Final = 256  # an office may share a key, and each client holds a stream

log = logging.getLogger(__name__)


@dataclass
class KeyGate:
    """The outermost ASGI application, and the only one that leads to the MCP transports.

    Deny by default: a path is one of `transports` and needs a key, or it is listed as public and
    goes to `app`, or it is refused. `app` has no route to a transport, so there is no second
    router that could read a path differently from the check of the key.
    """

    app: ASGIApp
    transports: Mapping[str, ASGIApp]  # by path, compared exactly
    keys: KeyAuthenticator
    settings: Settings
    audit: Audit
    hosts: Hosts
    proxies: Networks = ()
    limits: CallLimits = field(default_factory=CallLimits)
    active_requests: ActiveRequests = field(default_factory=ActiveRequests)
    _endpoint: ASGIApp = field(init=False)

    def __post_init__(self) -> None:
        self._endpoint = with_cors(self._admit, self.hosts.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route the request; from here on its key is in the scope's state only."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        canonical = is_canonical(scope)  # before take_key: afterwards an encoded slash is gone
        scope.setdefault("state", {})["credential"] = take_key(scope)
        if not canonical:
            await errors.ambiguous_path().response(scope, receive, send)
        elif refused := self._foreign(scope):
            await refused.response(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] in self.transports:
            await self._endpoint(scope, receive, send)
        elif is_public(scope["path"]):
            await self.app(scope, receive, send)
        else:
            await errors.not_found().response(scope, receive, send)

    def _foreign(self, scope: Scope) -> Refused | None:
        """Return the refusal of a foreign Host or Origin; probes may use any host."""
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        refused = self.hosts.refuses(
            headers.get(b"host", b"").decode("latin-1"),
            None if origin is None else origin.decode("latin-1"),
        )
        return Refused(*refused) if refused and scope["path"] not in PROBES else None

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check everything that can refuse a request, then pass it to its transport.

        The order matters: the address is limited before the key is looked up, so that guessing
        keys is limited too; the body is read last, for admitted callers only.
        """
        try:
            settings = await self._current_settings()
            address = client_address(scope, self.proxies)
            network = f"address {network_of(address)}"
            self._check_rate(network, settings.calls_per_minute_per_address)
            caller = await self._authenticate(scope["state"]["credential"], address)
            count_call = partial(self._check_rate, caller.key_id, settings.calls_per_minute_per_key)
            count_call()
            exchange = HttpExchange(receive, send, is_stream=_is_stream(scope))
            place = self._place(caller, exchange, settings)
            with place, self.active_requests.track(ActiveRequest(caller.key_id, exchange)):
                scope["user"] = _user(caller.key_id)  # the SDK binds sessions to it
                # a batch counts its further messages itself
                scope["state"].update(caller=caller, count_call=count_call)
                await self._serve(scope, exchange)
        except Refused as refused:
            await refused.response(scope, receive, send)

    async def _current_settings(self) -> Values:
        if self.active_requests.closing:
            raise errors.shutting_down()
        try:
            settings = await self.settings.current()
        except StateUnavailable:
            raise errors.state_unavailable() from None
        if not settings.enabled:
            raise errors.switched_off()
        return settings

    async def _authenticate(self, credential: Credential | None, address: str) -> Caller:
        try:
            return await self.keys.authenticate(credential.secret if credential else "", address)
        except TooManyFailures:
            raise errors.too_many("Too many attempts with invalid keys.", 60) from None
        except AccessDenied as denied:
            attempt = Event(
                tool="sign in",
                key_id=denied.key_id,
                address=address,
                outcome=Outcome.REFUSED,
                reason=denied.reason,
            )
            await self.audit.refused(attempt)
            raise errors.unauthorized() from None

    def _check_rate(self, name: str, per_minute: int) -> None:
        try:
            self.limits.check_rate(name, per_minute)
        except OverBudget as over:
            raise errors.too_many(str(over), 60 / per_minute) from None

    def _place(self, caller: Caller, exchange: HttpExchange, settings: Values) -> Slot:
        """Return one of the key's places. Streams have their own, so that they block no call."""
        name = f"streams {caller.key_id}" if exchange.is_stream else caller.key_id
        most = STREAMS_PER_KEY if exchange.is_stream else settings.concurrent_calls_per_key
        try:
            return self.limits.running(name, most)
        except OverBudget as over:
            raise errors.too_many(str(over)) from None

    async def _serve(self, scope: Scope, exchange: HttpExchange) -> None:
        """Run the transport; answer 408 or 503 when the client was too slow to send its request.

        Only a cancellation by the exchange itself is caught (and uncancelled, or the task would
        stay marked); one from outside, such as uvicorn's at shutdown, propagates.
        """
        try:
            if scope["method"] == "POST":
                await exchange.read()
            await self.transports[scope["path"]](scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not exchange.timed_out or task is None:
                raise
            task.uncancel()
            if not exchange.started and self.active_requests.closing:
                raise errors.shutting_down() from None
            if not exchange.started:
                raise Refused(408, "The request took too long to arrive.") from None
            log.info("A client stopped reading its answer; the exchange was given up")
        await exchange.finish()


def _is_stream(scope: Scope) -> bool:
    if scope["method"] == "GET":
        return True
    return (b"mcp-method", b"subscriptions/listen") in scope["headers"]


@lru_cache(1024)
def _user(key_id: str) -> AuthenticatedUser:
    return AuthenticatedUser(AccessToken(token=key_id, client_id=key_id, scopes=[]))
