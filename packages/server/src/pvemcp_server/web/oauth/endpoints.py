"""What clients of OAuth call: metadata, registration, tokens and their revocation.

Pages of any origin may call them (CORS): they take no cookies, and what they grant follows from
the body alone.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pvemcp_server.errors import OAuthError, OverBudget, StateUnavailable
from pvemcp_server.http import errors
from pvemcp_server.http.hosts import client_address, networks
from pvemcp_server.networks import network_of
from pvemcp_server.oauth.addresses import (
    AUTHORIZE,
    REGISTER,
    RESOURCE_DOCUMENTS,
    REVOKE,
    SERVER_METADATA,
    TOKEN,
    Addresses,
)
from pvemcp_server.oauth.clients import registration_answer, unknown_client
from pvemcp_server.oauth.scopes import OFFLINE_ACCESS
from pvemcp_server.oauth.scopes import Scope as TokenScope
from pvemcp_server.oauth.tokens import Granted
from pvemcp_server.services import Services
from pvemcp_server.store.database import DatabaseFailed
from pvemcp_server.store.records import OAuthClientRecord
from pvemcp_server.web.oauth.parameters import parameters_in, required

NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
FORM: Final = "application/x-www-form-urlencoded"
MOST_FIELDS: Final = 20

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class OAuthEndpoints:
    """The endpoints for the services of one process."""

    services: Services

    def routes(self) -> list[Route]:
        """Return the routes; the gate serves their paths only while connections are enabled."""
        documents = {
            **dict.fromkeys(RESOURCE_DOCUMENTS, self.resource),
            **dict.fromkeys(SERVER_METADATA, self.server),
        }
        posts = {TOKEN: self.token, REGISTER: self.register, REVOKE: self.revoke}
        return [
            *(Route(path, self._open(handle, "GET")) for path, handle in documents.items()),
            *(Route(path, self._open(handle, "POST")) for path, handle in posts.items()),
        ]

    async def resource(self, request: Request) -> Response:
        """Describe the endpoint as a protected resource (RFC 9728)."""
        addresses = addresses_of(request)
        settings = await self.services.settings.current()
        servers = [addresses.issuer] if settings.connections_enabled else []
        if settings.external_issuer:
            servers.insert(0, settings.external_issuer)
        return JSONResponse(
            {
                "resource": addresses.resource_at(f"/{request.url.path.rpartition('/')[2]}"),
                "resource_name": "Proxmox VE",
                "authorization_servers": servers,
                "scopes_supported": list(TokenScope),
                "bearer_methods_supported": ["header"],
            }
        )

    async def server(self, request: Request) -> Response:
        """Describe the authorization server (RFC 8414)."""
        addresses, clients = addresses_of(request), self.services.oauth.clients
        base = addresses.base
        return JSONResponse(
            {
                "issuer": addresses.issuer,
                "authorization_endpoint": f"{base}{AUTHORIZE}",
                "token_endpoint": f"{base}{TOKEN}",
                "registration_endpoint": f"{base}{REGISTER}",
                "revocation_endpoint": f"{base}{REVOKE}",
                "scopes_supported": [*TokenScope, OFFLINE_ACCESS],
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "token_endpoint_auth_methods_supported": ["none"],
                "revocation_endpoint_auth_methods_supported": ["none"],
                "code_challenge_methods_supported": ["S256"],
                "client_id_metadata_document_supported": clients.promises_documents,
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def token(self, request: Request) -> Response:
        """Exchange a code or a refresh token (RFC 6749, 4.1.3 and 6)."""
        form = await form_of(request)
        client = await self._client(form)
        tokens, address = self.services.oauth.tokens, self._address(request)
        grant_type = required(form, "grant_type")
        if grant_type not in ("authorization_code", "refresh_token"):
            raise OAuthError("unsupported_grant_type", "Use authorization_code or refresh_token.")
        if grant_type not in client.metadata["grant_types"]:
            raise OAuthError("unauthorized_client", f"The client is not for {grant_type}.")
        resource = _resource(request, form)
        if grant_type == "authorization_code":
            granted = await tokens.exchange(
                required(form, "code"),
                verifier=required(form, "code_verifier"),
                redirect_uri=form.get("redirect_uri"),
                client_id=client.id,
                resource=resource,
                address=address,
            )
        else:
            granted = await tokens.refresh(
                required(form, "refresh_token"),
                scope=form.get("scope"),
                client_id=client.id,
                resource=resource,
                address=address,
            )
        return JSONResponse(_token_answer(granted, client))

    async def register(self, request: Request) -> Response:
        """Register a client (RFC 7591)."""
        try:
            metadata = from_json(await request.body(), allow_inf_nan=False)
        except ValueError:
            metadata = None
        if not isinstance(metadata, dict):
            raise OAuthError("invalid_client_metadata", "The body must be a JSON object.")
        client = await self.services.oauth.clients.register(metadata, self._address(request))
        return JSONResponse(registration_answer(client), 201)

    async def revoke(self, request: Request) -> Response:
        """End a token (RFC 7009); an unknown one is ended already."""
        form = await form_of(request)
        client = await self._client(form)
        ended = await self.services.oauth.tokens.revoke(
            required(form, "token"), client_id=client.id
        )
        if ended is not None:
            await self.services.connections.end(ended)
        return Response()

    async def _client(self, form: Mapping[str, str]) -> OAuthClientRecord:
        client = await self.services.oauth.clients.find(required(form, "client_id"))
        if client is None:
            raise unknown_client()
        return client

    def _address(self, request: Request) -> str:
        return client_address(request.scope, networks(self.services.config.trusted_proxies))

    def _open(self, handle: Handler, method: str) -> CORSMiddleware:
        """Return the handler as an application for pages of any origin, with its errors."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive)
            response = await self._answer(handle, request, method)
            response.headers.update(NO_STORE)
            await response(scope, receive, send)

        return CORSMiddleware(
            serve, allow_origins=("*",), allow_methods=(method,), allow_headers=("*",)
        )

    async def _answer(self, handle: Handler, request: Request, method: str) -> Response:
        allowed = {method, "HEAD"} if method == "GET" else {method}
        if request.method not in allowed:
            return Response(status_code=405, headers={"Allow": ", ".join(sorted(allowed))})
        try:
            return await handle(request)
        except OAuthError as refused:
            return await self._refused(request, refused)
        except OverBudget as over:
            return _error("temporarily_unavailable", str(over), 429, _retry(over.seconds))
        except (StateUnavailable, DatabaseFailed):
            return errors.state_unavailable().response

    async def _refused(self, request: Request, refused: OAuthError) -> Response:
        """Return the error, or 429 once an address has had too many of them.

        They are counted after the check, so that no stranger keeps a valid token from its client.
        """
        settings = await self.services.settings.current()
        name, most = (
            f"oauth {network_of(self._address(request))}",
            settings.calls_per_minute_per_address,
        )
        if not await self.services.access.limits.count_refusal(name, most):
            text = "Too many refused requests from this address."
            return _error("temporarily_unavailable", text, 429, _retry(60))
        return _error(refused.error, refused.description, refused.status)


def addresses_of(request: Request) -> Addresses:
    """Return the addresses below the URL under which the request has come; the gate knows it."""
    return Addresses(request.scope["state"]["base_url"])


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form; raise OAuthError for another body: multipart costs more."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise OAuthError("invalid_request", f"Send the parameters as {FORM}.")
    return parameters_in(await request.body(), most=MOST_FIELDS)


def _resource(request: Request, form: Mapping[str, str]) -> str | None:
    """Return the resource that the request names; None where it names none."""
    if "resource" not in form:
        return None
    resource = addresses_of(request).resource_of(form["resource"])
    if resource is None:
        raise OAuthError("invalid_target", "This server issues tokens for its own endpoint only.")
    return resource


def _token_answer(granted: Granted, client: OAuthClientRecord) -> dict[str, Any]:
    refreshes = "refresh_token" in client.metadata["grant_types"]
    return {
        "access_token": granted.access_token,
        "token_type": "Bearer",
        "expires_in": granted.expires_in,
        **({"refresh_token": granted.refresh_token} if refreshes else {}),
        "scope": " ".join(granted.scopes),
    }


def _retry(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, round(seconds)))}


def _error(
    error: str, description: str, status: int, headers: Mapping[str, str] | None = None
) -> Response:
    body = {"error": error, "error_description": description}
    return JSONResponse(body, status, dict(headers or {}))
