"""Responses of the gate itself: the same JSON for browsers, scripts and MCP clients."""

from collections.abc import Mapping
from math import ceil
from typing import Final

from mcp_types import INTERNAL_ERROR, INVALID_REQUEST
from starlette.responses import JSONResponse, Response

_GIVE_KEY: Final = "Give it in the URL (…/mcp/<key>), as X-API-Key or Authorization: Bearer."


class Refused(Exception):
    """A request that goes no further than the gate."""

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        code: int | None = None,  # of JSON-RPC
    ) -> None:
        super().__init__(message)
        self.code = code or (INTERNAL_ERROR if status >= 500 else INVALID_REQUEST)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})

    @property
    def response(self) -> Response:
        """A JSON-RPC error without an id: MCP clients show its message to the user."""
        error = {"code": self.code, "message": self.message, "data": {"status": self.status}}
        body = {"jsonrpc": "2.0", "id": None, "error": error}
        return JSONResponse(body, self.status, {"Cache-Control": "no-store", **self.headers})


def ambiguous_path() -> Refused:
    """Return the response to a path that two programs could read differently."""
    return Refused(
        400,
        "The path is ambiguous: send it without control characters, backslashes, percent signs, "
        "semicolons, encoded slashes, empty segments and dot segments.",
    )


def ambiguous_host() -> Refused:
    """Return the response to several Host headers (RFC 9112, 3.2)."""
    return Refused(400, "The host is ambiguous: send one Host header.")


def not_found(prefix: str) -> Refused:
    """Return the response to every path that is not listed; `prefix` is that of the public URL."""
    return Refused(
        404, f"Nothing is served at this path: use {prefix}/mcp, or {prefix}/admin/ in a browser."
    )


def no_oauth(*, signs_in: bool) -> Response:
    """Return the response to a client that looks for OAuth after its key was refused.

    It has the form of OAuth errors, whose description clients show to the user in place of the
    refusal before (RFC 6749, 5.2; RFC 7591, 3.2.2). Where the server `signs_in`, only a client that
    has presented a key comes here.
    """
    reason = "wrong, expired, disabled, or not allowed from this address"
    text = f"This server takes API keys, not OAuth: the key is missing, {reason}. {_GIVE_KEY}"
    if signs_in:
        text = f"The API key is {reason}. {_GIVE_KEY} To sign in instead, send no key at all."
    body = {"error": "invalid_request", "error_description": text}
    return JSONResponse(body, 404, {"Cache-Control": "no-store"})


def unauthorized(nowhere: str = "") -> Refused:
    """Return the response to an invalid key, or to a missing one where sign-ins are switched off.

    It gives no reason, and names no OAuth metadata: clients must not try to sign in. Where they
    would find metadata without a name, it names a URL that has none, `nowhere`.
    """
    challenge = 'Bearer realm="pvemcp"'
    if nowhere:
        challenge += f', resource_metadata="{nowhere}"'
    return Refused(401, f"No valid API key. {_GIVE_KEY}", {"WWW-Authenticate": challenge})


def sign_in_needed(metadata: str, scope: str) -> Refused:
    """Return the response to a request without a credential: where to sign in (RFC 9728, 5.1)."""
    challenge = f'Bearer resource_metadata="{metadata}", scope="{scope}"'
    message = f"Sign in, or send an API key. {_GIVE_KEY}"
    return Refused(401, message, {"WWW-Authenticate": challenge})


def token_refused(metadata: str, scope: str) -> Refused:
    """Return the response to an access token that is not valid (RFC 6750, 3.1)."""
    message = "The access token is not valid (any more): refresh it, or sign in again."
    challenge = (
        f'Bearer error="invalid_token", error_description="{message}", '
        f'resource_metadata="{metadata}", scope="{scope}"'
    )
    return Refused(401, message, {"WWW-Authenticate": challenge})


def insufficient_scope(message: str, metadata: str, scope: str) -> Refused:
    """Return the response to a call beyond the scopes of its token (RFC 6750, 3.1)."""
    challenge = (
        f'Bearer error="insufficient_scope", scope="{scope}", resource_metadata="{metadata}", '
        f'error_description="This call needs a wider scope"'
    )
    return Refused(403, message, {"WWW-Authenticate": challenge})


def switched_off() -> Refused:
    """Return the response while the setting `enabled` is off."""
    message = "The endpoint is switched off: an administrator can enable it under Settings."
    return Refused(503, message)


def state_unavailable() -> Refused:
    """Return the response while the database does not answer."""
    message = "The server's database does not answer, so no key can be checked. Try again later."
    return Refused(503, message, {"Retry-After": "5"})


def issuer_unavailable() -> Refused:
    """Return the response while the keys of the external authorization server are not known."""
    message = "The keys of the authorization server cannot be read, so no token can be verified."
    return Refused(503, f"{message} Try again later.", {"Retry-After": "60"})


def issuer_incomplete() -> Refused:
    """Return the response to a token of the external server while no audience is known."""
    message = "The settings do not say what tokens of the authorization server have to be for"
    return Refused(503, f"{message}: an administrator has to set external_audience.")


def shutting_down() -> Refused:
    """Return the response to requests that come during the drain."""
    return Refused(503, "The server is shutting down.", {"Retry-After": "5"})


def too_large(most: int) -> Refused:
    """Return the response to a body beyond the limit."""
    return Refused(413, f"The body is larger than {most // 1024} KiB.")


def too_many_values(most: int) -> Refused:
    """Return the response to a body with more members and entries than a session may keep."""
    return Refused(413, f"The body has more than {most} members and entries.")


def too_slow() -> Refused:
    """Return the response to a body that does not arrive in time."""
    return Refused(408, "The request took too long to arrive.")


def too_many(message: str, seconds: float = 1) -> Refused:
    """Return the response to a request beyond a limit, with the time to wait."""
    return Refused(429, message, {"Retry-After": str(max(1, ceil(seconds)))})
