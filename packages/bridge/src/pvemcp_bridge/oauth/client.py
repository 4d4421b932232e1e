"""OAuth client: finds the authorization server, registers, and exchanges codes and tokens."""

import base64
import hashlib
import secrets
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit, urlunsplit

from pvemcp_bridge.errors import BridgeError, SignInFailed
from pvemcp_bridge.oauth import documents
from pvemcp_bridge.oauth.documents import BadDocument, Challenge, Resource, Server
from pvemcp_bridge.oauth.json_client import JsonAnswer, JsonClient
from pvemcp_bridge.oauth.store import Credentials
from pvemcp_bridge.target import Target

__all__ = ["Authorization", "Discovery", "OAuthClient"]

_NAME = "pvemcp-bridge"
# The MCP SDK's revocation endpoint accepts a secret in the form only
_AUTH_METHODS = ("none", "client_secret_post", "client_secret_basic")
_RENEW_AFTER = 0.9  # of the lifetime of an access token
_LONGEST_REASON = 200
_KEY_INSTEAD = "Use an API key: set MCP_API_KEY or --api-key-file."
# The client or its refresh token is of no more use; other errors may pass
_ENDED = ("invalid_grant", "invalid_client", "unauthorized_client")
_CLIENT_ENDED = ("invalid_client", "unauthorized_client")


@dataclass(frozen=True)
class Discovery:
    """What a challenge leads to: the resource and its authorization server."""

    resource: Resource
    server: Server

    def scope(self, challenge: Challenge) -> tuple[str, ...]:
        """Return the scopes to request: those of the challenge, else all of the resource.

        `offline_access` is added where the server offers it: it gives refresh tokens (SEP-2207).
        """
        scope = challenge.scope or self.resource.scopes
        offline = {"offline_access"} & {*self.server.scopes}
        return tuple(dict.fromkeys([*scope, *offline]))


@dataclass(frozen=True)
class Authorization:
    """An authorization request: its address, the secret of PKCE and the scopes."""

    url: str
    verifier: str
    scope: str


class OAuthClient:
    """OAuth client of one MCP server."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._http = JsonClient(target)
        self._loopback = target.is_on_this_machine

    async def discover(self, challenge: Challenge) -> Discovery | None:
        """Return the authorization server; None if the server has none.

        Without an address in the challenge the well-known places are tried, but not for a URL
        that may hold a key.
        """
        if self._target.is_readable_on_the_way:
            if challenge.metadata_url:
                raise SignInFailed("Signing in needs an https:// URL.", hint=_KEY_INSTEAD)
            return None
        if challenge.metadata_url:
            answer = await self._http.get(self._checked(challenge.metadata_url))
            if not answer.document:
                raise SignInFailed(f"{challenge.metadata_url} holds no metadata.")
        elif self._target.may_hold_key:
            return None
        else:
            answer = await self._first(documents.resource_metadata_urls(self._target.url))
        if not answer.document:
            return None
        try:
            resource = documents.resource(
                answer.document, self._target.url, loopback=self._loopback
            )
            found = await self._first(documents.server_metadata_urls(resource.issuer))
            server = documents.server(found.document, resource.issuer, loopback=self._loopback)
        except BadDocument as error:
            raise SignInFailed(f"The server's sign-in cannot be used: {error}.") from None
        return Discovery(resource, server)

    async def register(
        self, discovery: Discovery, redirect_uri: str, scope: Iterable[str]
    ) -> Credentials:
        """Register this program as a native client (RFC 7591)."""
        server = discovery.server
        if not server.registration_endpoint:
            raise SignInFailed(
                f"{server.issuer} registers no clients, so the bridge cannot sign in there.",
                hint=_KEY_INSTEAD,
            )
        supported = server.auth_methods or _AUTH_METHODS
        method = next((name for name in _AUTH_METHODS if name in supported), "none")
        client_scope = " ".join(dict.fromkeys([*scope, *discovery.resource.scopes]))
        client = {
            "client_name": f"{_NAME} ({socket.gethostname()})",
            "application_type": "native",
            "redirect_uris": [redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": method,
        } | ({"scope": client_scope} if client_scope else {})
        answer = await self._http.post(server.registration_endpoint, body=client)
        client_id = answer.document.get("client_id")
        if answer.status not in (200, 201) or not isinstance(client_id, str) or not client_id:
            raise SignInFailed(f"{server.issuer} did not register the bridge{_reason(answer)}.")
        secret = answer.document.get("client_secret")
        granted_method = answer.document.get("token_endpoint_auth_method", method)
        return Credentials(
            issuer=server.issuer,
            resource=discovery.resource.resource,
            token_endpoint=server.token_endpoint,
            revocation_endpoint=server.revocation_endpoint,
            client_id=client_id,
            client_secret=secret if isinstance(secret, str) else "",
            auth_method=granted_method if granted_method in _AUTH_METHODS else method,
            redirect_uri=redirect_uri,
            client_scope=client_scope,
            used_at=time.time(),
        )

    def authorization(
        self, server: Server, client: Credentials, scope: Iterable[str], state: str
    ) -> Authorization:
        """Return a new authorization request with PKCE, state and resource."""
        verifier = secrets.token_urlsafe(64)
        digest = hashlib.sha256(verifier.encode()).digest()
        text = " ".join(scope)
        parameters = {
            "response_type": "code",
            "client_id": client.client_id,
            "redirect_uri": client.redirect_uri,
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "resource": client.resource,
        } | ({"scope": text} if text else {})
        if "offline_access" in text.split():
            parameters["prompt"] = "consent"
        parts = urlsplit(server.authorization_endpoint)
        own = dict(parse_qsl(parts.query, keep_blank_values=True))
        query = urlencode(own | parameters)
        return Authorization(urlunsplit(parts._replace(query=query)), verifier, text)

    async def exchange(
        self,
        server: Server,
        client: Credentials,
        authorization: Authorization,
        response: Mapping[str, str],
    ) -> Credentials:
        """Check the authorization response (RFC 9207) and exchange its code for tokens."""
        issuer = response.get("iss")
        if issuer != server.issuer and (issuer is not None or server.promises_issuer):
            raise SignInFailed("The answer to the sign-in came from another issuer.")
        if error := response.get("error"):
            text = _printable(response.get("error_description") or error)
            raise SignInFailed(f"The sign-in was refused: {text}.")
        if not response.get("code"):
            raise SignInFailed("The answer to the sign-in holds no code.")
        answer = await self._token(
            client,
            {
                "grant_type": "authorization_code",
                "code": response["code"],
                "redirect_uri": client.redirect_uri,
                "code_verifier": authorization.verifier,
                "resource": client.resource,
            },
        )
        if answer.status != 200:
            raise SignInFailed(f"{server.issuer} gave no token{_reason(answer)}.")
        return _with_tokens(replace(client, scope=authorization.scope), answer)

    async def refresh(self, credentials: Credentials) -> Credentials:
        """Return credentials with new tokens, or without any if the refresh token has ended.

        Raise a BridgeError if it may work later.
        """
        answer = await self._token(
            credentials,
            {
                "grant_type": "refresh_token",
                "refresh_token": credentials.refresh_token,
                "resource": credentials.resource,
            },
        )
        if answer.status == 200:
            return _with_tokens(credentials, answer)
        error = answer.document.get("error")
        if error not in _ENDED:
            raise SignInFailed(f"{credentials.issuer} gave no new token{_reason(answer)}.")
        ended = credentials.without_tokens()
        return replace(ended, client_id="") if error in _CLIENT_ENDED else ended

    async def revoke(self, credentials: Credentials) -> bool:
        """End the tokens (RFC 7009); return whether the server confirmed it."""
        token = credentials.refresh_token or credentials.access_token
        if not (token and credentials.revocation_endpoint):
            return False
        kind = "refresh_token" if credentials.refresh_token else "access_token"
        try:
            answer = await self._post(
                credentials.revocation_endpoint,
                credentials,
                {"token": token, "token_type_hint": kind},
            )
        except BridgeError:
            return False
        return answer.status == 200

    async def _token(self, client: Credentials, form: Mapping[str, str]) -> JsonAnswer:
        return await self._post(client.token_endpoint, client, form)

    async def _post(self, url: str, client: Credentials, form: Mapping[str, str]) -> JsonAnswer:
        """Send a form with the client's authentication.

        Servers that use the MCP SDK need the client's id in the form in any case.
        """
        name, secret, headers = client.client_id, client.client_secret, {}
        fields = {**form, "client_id": name}
        if client.auth_method == "client_secret_basic" and secret:
            pair = f"{quote_plus(name)}:{quote_plus(secret)}".encode()
            headers["authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        elif client.auth_method == "client_secret_post" and secret:
            fields["client_secret"] = secret
        return await self._http.post(self._checked(url), form=fields, headers=headers)

    async def _first(self, urls: Iterable[str]) -> JsonAnswer:
        """Return the first document of these addresses; an empty one if none has any."""
        for url in urls:
            answer = await self._http.get(url)
            if answer.status == 200 and answer.document:
                return answer
        return JsonAnswer(404, {})

    def _checked(self, url: str) -> str:
        try:
            return documents.checked_url(url, loopback=self._loopback)
        except BadDocument as error:
            raise SignInFailed(f"The server's sign-in cannot be used: {error}.") from None


def _with_tokens(credentials: Credentials, answer: JsonAnswer) -> Credentials:
    """Return the credentials with the tokens of an answer; a missing refresh token stays."""
    try:
        tokens = documents.tokens(answer.document)
    except BadDocument as error:
        raise SignInFailed(f"The answer of {credentials.issuer} cannot be used: {error}.") from None
    renew_at = tokens.lifetime and time.time() + _RENEW_AFTER * tokens.lifetime
    return replace(
        credentials,
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token or credentials.refresh_token,
        renew_at=renew_at,
        used_at=time.time(),
        scope=" ".join(tokens.scope) or credentials.scope,
    )


def _reason(answer: JsonAnswer) -> str:
    """Return status and error of an answer for a message."""
    text = answer.document.get("error_description") or answer.document.get("error")
    reason = f": {_printable(text)}" if isinstance(text, str) else ""
    return f" (HTTP {answer.status}){reason}"


def _printable(text: str) -> str:
    plain = "".join(letter for letter in text[:_LONGEST_REASON] if letter.isprintable())
    return plain.strip().rstrip(".")
