"""The authorization request of a client (OAuth 2.1, 4.1.1), and where its answer goes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from fastapi import Request

from pvemcp_server.errors import OAuthError, OverBudget
from pvemcp_server.oauth.addresses import Addresses
from pvemcp_server.oauth.client_names import UNNAMED, mixes_scripts
from pvemcp_server.oauth.connections import ClientName
from pvemcp_server.oauth.redirects import is_loopback, matches
from pvemcp_server.oauth.scopes import Scope, scopes_in
from pvemcp_server.oauth.tokens import is_challenge
from pvemcp_server.store.records import OAuthClientRecord
from pvemcp_server.web.oauth.parameters import parameters_in, required
from pvemcp_server.web.session import address_of, connect_cookie, services_of

MOST_PARAMETERS: Final = 30
LONGEST_QUERY: Final = 6000  # characters; the redirect URI and `state` are sent back in a URL


@dataclass(frozen=True, slots=True)
class Return:
    """Where the answer to a client goes, with `iss` (RFC 9207) and the client's `state`."""

    redirect_uri: str
    issuer: str
    state: str | None

    def url(self, **parameters: str) -> str:
        """Return the redirect URI with the parameters of an answer."""
        answer = {**parameters, "iss": self.issuer}
        if self.state is not None:
            answer["state"] = self.state
        joint = "&" if urlsplit(self.redirect_uri).query else "?"
        return f"{self.redirect_uri.removesuffix('?')}{joint}{urlencode(answer)}"

    @property
    def is_loopback(self) -> bool:
        """Whether a program on the user's computer gets it."""
        return is_loopback(self.redirect_uri)

    @property
    def is_local(self) -> bool:
        """Whether any program on the user's computer could be the one that gets it."""
        return not self.redirect_uri.startswith("https:")

    @property
    def destination(self) -> str:
        """Who gets it, in words: a host, or a program on the user's computer."""
        parts = urlsplit(self.redirect_uri)
        if self.is_loopback:
            return "a program on this computer"
        if parts.scheme == "https":
            return parts.netloc
        return f"the program on this computer that opens {parts.scheme}: links"


class RefusedRequest(Exception):
    """A request that is answered with an error to its client, whose redirect URI is right."""

    def __init__(self, answer: Return, error: OAuthError) -> None:
        super().__init__(error.description)
        self.answer = answer
        self.error = error


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A valid request: the client, what it asks for, and where the answer goes."""

    client: OAuthClientRecord
    answer: Return
    challenge: str
    scopes: tuple[Scope, ...]
    resource: str

    @property
    def host(self) -> str:
        """The host that vouches for the client: of its metadata document; empty without one."""
        return urlsplit(self.client.id).netloc if self.client.is_document else ""

    @property
    def name(self) -> ClientName:
        """The client as lists and Proxmox show it. Only a host proves anything."""
        name = self.client.name
        return ClientName(self.client.id, name, f"{name} ({self.standing})")

    @property
    def standing(self) -> str:
        """What is known of the name: the host that vouches for it, or that it is not verified."""
        if self.is_verified:
            return self.host
        parts = urlsplit(self.answer.redirect_uri)
        where = "on the user's computer" if parts.scheme != "https" else f"at {parts.netloc}"
        return f"name not verified, {self.host or where}"

    @property
    def is_named(self) -> bool:
        """Whether the client has a visible name."""
        return self.client.name != UNNAMED

    @property
    def is_verified(self) -> bool:
        """Whether a host vouches for the name, and its letters are what they look like."""
        return bool(self.host) and not mixes_scripts(self.client.name)


async def authorization_request(request: Request) -> AuthorizationRequest:
    """Return the request in the URL's query.

    Raise OAuthError, to show the user, when client or redirect URI are wrong: then no client may be
    answered. Raise RefusedRequest when it may, and OverBudget.
    """
    query = _query(request)
    client = await services_of(request).oauth.clients.get(
        required(query, "client_id"), address_of(request)
    )
    addresses = Addresses(request.scope["state"]["base_url"])
    redirect_uri = query.get("redirect_uri") or _only_redirect(client)
    if not matches(client, redirect_uri):
        raise OAuthError("invalid_request", "The redirect URI is not one of the client's.")
    answer = Return(redirect_uri, addresses.issuer, query.get("state"))
    try:
        return _checked(query, client, answer, addresses)
    except OAuthError as error:
        raise RefusedRequest(answer, error) from error


async def connecting_client(request: Request) -> str:
    """Return the client that an administrator signs in to connect, as lists show it; else empty."""
    query = request.cookies.get(connect_cookie(request).name) or "-"
    if query == "-":
        return ""
    # ours is ASCII; another site at this host can have set any
    scope = {**request.scope, "query_string": query.encode("ascii", "replace")}
    try:
        return (await authorization_request(Request(scope))).name.shown
    except (OAuthError, RefusedRequest, OverBudget):
        return "a program whose request is not valid"


def _checked(
    query: Mapping[str, str], client: OAuthClientRecord, answer: Return, addresses: Addresses
) -> AuthorizationRequest:
    if query.get("response_type") != "code":
        kind = "invalid_request" if "response_type" not in query else "unsupported_response_type"
        raise OAuthError(kind, "response_type must be code.")
    if query.get("response_mode", "query") != "query":
        raise OAuthError("invalid_request", "response_mode must be query.")
    if query.get("code_challenge_method") != "S256" or not is_challenge(
        query.get("code_challenge", "")
    ):
        raise OAuthError("invalid_request", "PKCE is required: code_challenge by S256 (RFC 7636).")
    resource = addresses.resource_of(query.get("resource"))
    if resource is None:
        raise OAuthError("invalid_target", "This server grants access to its own endpoint only.")
    scope = query.get("scope", "").strip()
    scopes = tuple(scopes_in(scope)) if scope else tuple(Scope)
    if not scopes:
        raise OAuthError("invalid_scope", f"The scopes are {', '.join(Scope)}.")
    return AuthorizationRequest(client, answer, query["code_challenge"], scopes, resource)


def _query(request: Request) -> dict[str, str]:
    """Return the parameters; raise OAuthError for a query that is too long to be sent back."""
    text = request.url.query
    if len(text) > LONGEST_QUERY:
        raise OAuthError("invalid_request", "The request is too long.")
    return parameters_in(text, most=MOST_PARAMETERS)


def _only_redirect(client: OAuthClientRecord) -> str:
    """Return the client's redirect URI where it has one only, so that a request may omit it."""
    uris: list[Any] = client.metadata["redirect_uris"]
    if len(uris) != 1:
        raise OAuthError("invalid_request", "redirect_uri is missing.")
    return str(uris[0])
