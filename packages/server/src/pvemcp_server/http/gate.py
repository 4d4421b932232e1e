"""The gate: refuses ambiguous paths, hides the API key from every log, and admits its owner."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pvemcp_server.access.authentication import EXPIRED, KeyAuthenticator, is_jwt
from pvemcp_server.access.limits import CallLimits
from pvemcp_server.access.model import Caller
from pvemcp_server.audit import Audit, Event, Outcome
from pvemcp_server.errors import (
    AccessDenied,
    IssuerIncomplete,
    IssuerUnavailable,
    OverBudget,
    StateUnavailable,
)
from pvemcp_server.http import errors
from pvemcp_server.http.bounded_request import serve_bounded
from pvemcp_server.http.cors import with_cors
from pvemcp_server.http.credentials import Credential, keep_own_cookies, take_key
from pvemcp_server.http.errors import Refused
from pvemcp_server.http.exchange import ActiveRequests, HttpExchange
from pvemcp_server.http.hosts import Hosts, Networks, client_address
from pvemcp_server.networks import network_of
from pvemcp_server.oauth.addresses import NOWHERE, OAUTH, OPEN, RESOURCE_DOCUMENTS, Addresses
from pvemcp_server.oauth.scopes import ALL_SCOPES, is_sufficient
from pvemcp_server.oauth.scopes import Scope as Scopes
from pvemcp_server.settings import Settings, Values
from pvemcp_server.store.database import begun_again, waits

MCP: Final = "/mcp"
SSE: Final = "/sse"
SSE_MESSAGES: Final = "/sse/messages"

# Probes of orchestrators address us by whatever name they have
PROBES: Final = ("/healthz", "/readyz")
PUBLIC: Final = frozenset({"/", "/version", "/icon.svg", "/admin", *PROBES})
ENDPOINT_PAGE: Final = "/admin/endpoint"
ADMIN_SITE: Final = "/admin/"  # every page and operation below it checks its own session

# Proxies, routers and file systems read these differently; no path of ours contains any
_AMBIGUOUS: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\\%;]"  # a remaining percent sign was encoded twice
    r"|//"
    r"|/\.{1,2}(?:/|\Z)"
)
_ENCODED_SLASH: Final = re.compile(rb"%2f", re.IGNORECASE)

# Where clients look for OAuth after a 401, at the root or below the endpoint
_OAUTH: Final = re.compile(r"/\.well-known/(?:oauth-|openid-)|\A/(?:register|authorize|token)\Z")

OAUTH_BYTES: Final = 16 * 1024  # of a form or a registration
STREAMS_PER_KEY: Final = 256  # an office may share a key, and each client holds a stream
_LISTEN: Final = "subscriptions/listen"
_LISTENS: Final = (b"mcp-method", _LISTEN.encode())

_LIMITED: Final = (408, 413, 429)  # bodies that are too slow or too large; too many requests
_TOO_MANY_REFUSALS: Final = "Too many calls without a valid key from this address."


@dataclass
class KeyGate:
    """The outermost ASGI application, and the only one that leads to the MCP transports.

    Deny by default: a path is one of `transports` and needs a key, or it is listed as public and
    goes to `app`, or it is refused. `app` has no route to a transport, so there is no second
    router that could read a path differently from the check of the key.

    Size and time of every body are limited: by its exchange for a transport, for an admitted key
    only, and by `serve_bounded` for all else.
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
        # before take_key: afterwards an encoded slash is gone
        is_encoded = _ENCODED_SLASH.search(scope.get("raw_path") or b"")
        is_canonical = scope["path"].startswith("/") and not (
            is_encoded or _AMBIGUOUS.search(scope["path"])
        )
        if (prefix := self.hosts.prefix).text:
            send = prefix.added_to(send)
            scope["path"] = prefix.removed_from(scope["path"])
        scope.setdefault("state", {})["credential"] = take_key(scope)
        path = scope["path"]
        waited = waits.get()
        waits.set(path not in PROBES)
        try:
            to_transport = scope["type"] == "http" and path in self.transports
            if not to_transport:
                keep_own_cookies(scope)
            is_open = path in OPEN
            if not is_canonical:
                await errors.ambiguous_path().response(scope, receive, send)
            elif sum(name == b"host" for name, _ in scope["headers"]) > 1:
                await errors.ambiguous_host().response(scope, receive, send)
            elif path not in PROBES and (
                foreign := self.hosts.refusal(scope, to_transport=to_transport, any_origin=is_open)
            ):
                await foreign.response(scope, receive, send)
            elif to_transport:
                await self._endpoint(scope, receive, send)
            elif path in OAUTH or _OAUTH.search(path):
                await self._serve_oauth(scope, receive, send)
            elif is_public(path):
                scope["state"]["base_url"] = self.hosts.base_of(scope)
                await serve_bounded(self.app, scope, receive, send)
            else:
                await errors.not_found(self.hosts.prefix.text).response(scope, receive, send)
        finally:
            waits.set(waited)

    async def _serve_oauth(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a path of OAuth, unless the settings switch the endpoint or connections off."""
        path = scope["path"]
        try:
            settings = await self.settings.current()
        except StateUnavailable:
            await errors.state_unavailable().response(scope, receive, send)
            return
        scope["state"]["base_url"] = self.hosts.base_of(scope)
        is_served, signs_in = path in OAUTH and settings.connections_enabled, settings.signs_in
        if settings.external_issuer and path in RESOURCE_DOCUMENTS:
            is_served = True
        if is_served and not settings.enabled:
            await errors.switched_off().response(scope, receive, send)
        elif is_served:
            await serve_bounded(self.app, scope, receive, send, OAUTH_BYTES)
        elif _OAUTH.search(path):
            await errors.no_oauth(signs_in=signs_in)(scope, receive, send)
        else:
            await errors.not_found(self.hosts.prefix.text).response(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Apply the rate limits and every other check that can refuse a request, then pass it on.

        The order matters: the key is checked before any counter that others can move, so that
        only refused calls are limited by their address. The body is read last, for admitted
        callers only. A browser is led to a page before all that.
        """
        if scope["method"] == "GET" and _is_browser(scope):
            await _to_page()(scope, receive, send)
            return
        caller: Caller | None = None
        try:
            if self.active_requests.closing:
                raise errors.shutting_down()
            try:
                settings, caller = await self._authenticate(scope)
            except StateUnavailable:  # lost on the way; now it is waited for
                answer = await begun_again(partial(self._authenticate, scope))
                settings, caller = answer
            limits = self.limits
            holder, rate = caller.holder, settings.calls_per_minute_per_key
            count_call = partial(limits.check_rate, holder, rate)
            await count_call()
            slot, most = holder, settings.concurrent_calls_per_key
            is_stream = scope["method"] == "GET" or (
                _LISTENS in scope["headers"] and _opens_stream(scope)
            )
            if is_stream:  # streams have slots of their own, so that they block no call
                slot, most = f"streams {holder}", STREAMS_PER_KEY
            exchange = HttpExchange(receive, send, caller, is_stream=is_stream)
            async with limits.running(slot, most):
                scope["user"] = user_of(caller.key_id)  # the SDK binds sessions to it
                # a batch counts its further messages itself
                scope["state"].update(caller=caller, count_call=count_call, is_known=True)
                transport = self.transports[scope["path"]]
                await self.active_requests.serve(exchange, transport, scope)
        except Refused as refused:
            await self._response(caller, refused)(scope, receive, send)
        except OverBudget as over:
            limit = errors.too_many(str(over), over.seconds)
            await self._response(caller, limit)(scope, receive, send)
        except StateUnavailable:
            await errors.state_unavailable().response(scope, receive, send)
        except IssuerIncomplete:
            await errors.issuer_incomplete().response(scope, receive, send)
        except IssuerUnavailable:
            await errors.issuer_unavailable().response(scope, receive, send)

    def _response(self, caller: Caller | None, refused: Refused) -> Response:
        """Return the response of a refusal; that of a known caller by a limit is counted."""
        if caller and refused.status in _LIMITED:
            self.audit.count_limited(caller.key_id, caller.key_name, refused.message)
        return refused.response

    async def _authenticate(self, scope: Scope) -> tuple[Values, Caller]:
        """Return the settings and the caller; refuse all while the endpoint is switched off.

        Others are refused, with 429 and unrecorded beyond the address's rate.

        Requests without a key, with an unknown key, and for each reason with each known key are
        counted apart: none hides the use of a key that is disabled or in wrong hands.
        """
        settings = await self.settings.current()
        if not settings.enabled:
            raise errors.switched_off()
        credential: Credential | None = scope["state"]["credential"]
        address = client_address(scope, self.proxies)
        try:
            if credential and credential.is_token:
                caller = await self._authenticate_token(scope, credential, address, settings)
            else:
                secret = credential.secret if credential else ""
                caller = await self.keys.authenticate(secret, address)
        except AccessDenied as denied:
            kind = "wrong key" if credential else "no key"
            if denied.key_id:
                kind = f"{denied.key_id} {denied.reason}"
            counted = f"{kind} {network_of(address)}"
            if not await self.limits.count_refusal(counted, settings.calls_per_minute_per_address):
                raise errors.too_many(_TOO_MANY_REFUSALS, 60) from None
            attempt = Event(
                tool="sign in",
                key_id=denied.key_id,
                address=address,
                outcome=Outcome.REFUSED,
                reason=denied.reason,
            )
            if denied.reason != EXPIRED:
                await self.audit.refused_sign_in(attempt)
            raise self._unauthorized(scope, settings) from None
        return settings, caller

    async def _authenticate_token(
        self, scope: Scope, credential: Credential, address: str, settings: Values
    ) -> Caller:
        """Return the caller with an access token; raise AccessDenied if it is not accepted.

        One without the first scope is refused for all methods: resources and prompts need it too.
        """
        is_external = bool(settings.external_issuer) and is_jwt(credential.secret)
        if not is_external and not settings.connections_enabled:
            raise AccessDenied("connections are switched off")
        if not credential.is_bearer:
            raise AccessDenied("access token outside of Authorization")
        path, base = scope["path"], self.hosts.base_of(scope)
        addresses = Addresses(base)
        resource = addresses.resource_at(path)
        caller = await self.keys.authenticate_token(credential.secret, address, resource)
        if not is_sufficient(caller.scopes or (), Scopes.READ):
            raise errors.insufficient_scope(
                f"The access token lacks the scope {Scopes.READ}.",
                addresses.resource_metadata(path),
                Scopes.READ,
            )
        scope["state"]["base_url"] = base  # for the answer to a call that needs more scopes
        return caller

    def _unauthorized(self, scope: Scope, settings: Values) -> Refused:
        """Return the response to a refused credential.

        Only a client without one, or with a token, is led to a sign-in; an API key is for its owner
        to correct. The challenge names all scopes: the user limits them by role and "Read only",
        and many clients cannot ask for more later.
        """
        credential: Credential | None = scope["state"]["credential"]
        if not settings.signs_in:
            return errors.unauthorized()
        addresses = Addresses(self.hosts.base_of(scope))
        metadata = addresses.resource_metadata(scope["path"])
        if credential is None:
            return errors.sign_in_needed(metadata, ALL_SCOPES)
        if credential.is_token:
            return errors.token_refused(metadata, ALL_SCOPES)
        return errors.unauthorized(f"{addresses.base}{NOWHERE}")


def _opens_stream(scope: Scope) -> bool:
    """Return whether the transport refuses the request unless its body is what the header says.

    It reads the first of each header, and compares the method in later revisions only: in others
    the header would give any call a place of a stream.
    """
    headers = Headers(scope=scope)
    version = headers.get("mcp-protocol-version")
    is_compared = version not in (None, *HANDSHAKE_PROTOCOL_VERSIONS)
    return is_compared and headers.get("mcp-method") == _LISTEN


def _is_browser(scope: Scope) -> bool:
    """Return whether a page is asked for: no MCP client accepts HTML."""
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])


def _to_page() -> RedirectResponse:
    """Return the way to the page that describes the endpoint, without the key in its address.

    No key is checked and nothing is counted: it is the same for every key and for none.
    """
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(ENDPOINT_PAGE, 303, headers)


@lru_cache(1024)
def user_of(key_id: str) -> AuthenticatedUser:
    """Return the user that the SDK binds sessions to."""
    return AuthenticatedUser(AccessToken(token=key_id, client_id=key_id, scopes=[]))


def caller_of(ctx: ServerRequestContext[Any, Any]) -> Caller:
    """Return the caller of this very message: in a session each message brings its own key."""
    caller = getattr(getattr(ctx.request, "state", None), "caller", None)
    if not isinstance(caller, Caller):
        raise TypeError("the server was reached without the gate")
    return caller


def client_program(ctx: ServerRequestContext[Any, Any]) -> str:
    """Return name and version of the client program, as it calls itself."""
    program = ctx.session.client_params and ctx.session.client_params.client_info
    return f"{program.name} {program.version}" if program else ""


def is_public(path: str) -> bool:
    """Return whether a canonical path is served without an API key."""
    return path in PUBLIC or path in OAUTH or path.startswith(ADMIN_SITE)
