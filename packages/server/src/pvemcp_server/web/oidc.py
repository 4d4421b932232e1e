"""Signing in with an OpenID Connect issuer: authorization code with PKCE, state and nonce."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx2 as httpx
from authlib.integrations.base_client import OAuthError  # type: ignore[import-untyped]  # it brings no types
from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped]  # it brings no types
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]  # it brings no types
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import OctKey

from proxmox_client.plain_http import PlainTransport
from proxmox_client.responses import limit_heads, limited_head, read_body
from pvemcp_server.config import Config
from pvemcp_server.errors import AccessDenied, ConfigError
from pvemcp_server.oauth.published_keys import find_key, json_object, published_keys, unpadded
from pvemcp_server.settings import is_secure_url

SCOPE: Final = "openid email"
ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")  # never those with a shared secret
SIGN_IN_SECONDS: Final = 600
METADATA_SECONDS: Final = 600
TIMEOUT_SECONDS: Final = 10  # of a request in total, however slowly the issuer answers
LEEWAY_SECONDS: Final = 60
MOST_BYTES: Final = 1024 * 1024  # of an answer: metadata, tokens or keys
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_UNUSABLE: Final = (  # an answer or token of any content and types
    *(OAuthError, JoseError, httpx.HTTPError),
    *(LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError),
)


@dataclass(frozen=True, slots=True)
class ExternalUser:
    """The user that the issuer has authenticated.

    `verified_at` is when, if the issuer says so: it may be days ago, in the same browser.
    """

    subject: str
    email: str
    claims: Mapping[str, Any]
    verified_at: datetime | None


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """State, nonce and PKCE verifier of a sign-in in progress, kept in a signed cookie.

    One that `confirms` a session, by its id, must be a fresh one since `begun` (Unix time).
    """

    state: str
    nonce: str
    verifier: str
    confirms: str = ""
    begun: int = 0

    @classmethod
    def begin(cls, confirms: str = "") -> Self:
        """Create random state, nonce and verifier."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        return cls(state, nonce, verifier, confirms, int(time.time()))

    def sealed(self, key: bytes) -> str:
        """Return the signed value of the cookie, valid for SIGN_IN_SECONDS."""
        claims = {**asdict(self), "exp": int(time.time()) + SIGN_IN_SECONDS}
        return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(key))

    @classmethod
    def opened(cls, sealed: str, key: bytes) -> Self:
        """Verify a cookie; raise AccessDenied when it is forged or expired."""
        try:
            token = jwt.decode(sealed, OctKey.import_key(key), algorithms=["HS256"])
            jwt.JWTClaimsRegistry(exp={"essential": True}).validate(token.claims)
        except (JoseError, ValueError):
            raise AccessDenied("this browser has no sign-in in progress") from None
        pending = cls(**{each.name: token.claims[each.name] for each in fields(cls)})
        if pending.begun > time.time() + LEEWAY_SECONDS:
            raise AccessDenied("the clock was set back since this sign-in began")
        return pending


class IssuerClient(AsyncOAuth2Client):  # type: ignore[misc]  # authlib brings no types
    """A client whose requests are limited in time, and their answers in head and body."""

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Return the answer, read and decoded; raise httpx.HTTPError beyond a limit."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                with limited_head():
                    response = await super().send(request, **{**options, "stream": True})
                try:
                    body = await read_body(response, MOST_BYTES)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise httpx.ReadTimeout("the issuer does not answer in time") from error
        if body is None:
            raise httpx.DecodingError(f"the issuer's answer is longer than {MOST_BYTES >> 10} KiB")
        if response.is_success and json_object(body) is None:
            raise httpx.DecodingError("the issuer's answer is no JSON object")
        response.headers.pop("content-encoding", None)  # read_body has decoded it
        return httpx.Response(
            response.status_code, headers=response.headers, content=body, request=request
        )


@dataclass(frozen=True)
class Issuer:
    """The configured issuer with its published metadata."""

    client: IssuerClient
    issuer: str
    metadata: Mapping[str, Any]

    def authorization_url(self, pending: PendingSignIn) -> str:
        """Return the address that the browser is redirected to."""
        url, _ = self.client.create_authorization_url(
            self.metadata["authorization_endpoint"],
            state=pending.state,
            nonce=pending.nonce,
            code_verifier=pending.verifier,
            **({"prompt": "login", "max_age": "0"} if pending.confirms else {}),
        )
        return str(url)

    async def exchange(self, code: str, pending: PendingSignIn) -> ExternalUser:
        """Exchange the code for the user; raise AccessDenied unless the ID token is valid."""
        try:
            token = await self.client.fetch_token(
                self.metadata["token_endpoint"], code=code, code_verifier=pending.verifier
            )
            text = str(token["id_token"])
            header = json_object(unpadded(text.partition(".")[0])) or {}
            key = await self._key(header)
            id_token = jwt.decode(text, key, algorithms=[header["alg"]])
            return self._user(id_token.header, id_token.claims, pending)
        except _UNUSABLE as error:
            claim = getattr(error, "claim", "")  # of a missing or a wrong one
            reason = " of ".join(filter(None, (type(error).__name__, claim)))
            raise AccessDenied(f"the issuer did not authenticate the user: {reason}") from error

    async def _key(self, header: Mapping[str, Any]) -> Any:
        """Return the published key that a token names; raise InvalidKeyIdError without one."""
        response = await self.client.request("GET", self.metadata["jwks_uri"], withhold_token=True)
        keys = published_keys(response.raise_for_status().json())
        if keys is None:
            raise ValueError("no list of keys, or a too long one")
        algorithm = header["alg"]
        key = find_key(keys, header.get("kid"), algorithm) if algorithm in ALGORITHMS else None
        if key is None:
            raise InvalidKeyIdError("no published key of this id and algorithm")
        return key.key

    def _user(
        self, header: Mapping[str, Any], claims: Mapping[str, Any], pending: PendingSignIn
    ) -> ExternalUser:
        required = {
            "iss": {"essential": True, "value": self.issuer},
            "aud": {"essential": True, "value": self.client.client_id},
        }
        parameters = {"nonce": pending.nonce, "client_id": self.client.client_id}
        CodeIDToken(dict(claims), dict(header), required, parameters).validate(
            leeway=LEEWAY_SECONDS
        )
        if not isinstance(claims["sub"], str) or not claims["sub"]:
            raise AccessDenied("the issuer's ID token does not identify the user: no usable sub")
        # an unverified address can be typed in by every user of the issuer
        if claims.get("email_verified") is not True:
            raise AccessDenied("the issuer has not verified the e-mail address")
        moment = _auth_time(claims)
        if pending.confirms:
            _check_fresh(moment, pending)
        subject = f"{self.issuer} {claims['sub']}"
        verified_at = None if moment is None else datetime.fromtimestamp(moment, UTC)
        return ExternalUser(subject, str(claims["email"]), claims, verified_at)


def _auth_time(claims: Mapping[str, Any]) -> int | None:
    """Return when the user signed in at the issuer (Unix time); None when it does not say so."""
    moment = claims.get("auth_time")
    is_number = isinstance(moment, int | float) and not isinstance(moment, bool)
    if moment is None or not is_number or not isfinite(moment):
        return None
    return min(max(int(moment), 0), int(time.time()))


def _check_fresh(moment: int | None, pending: PendingSignIn) -> None:
    """Raise AccessDenied unless the user has signed in at the issuer since this sign-in began."""
    if moment is None:
        raise AccessDenied(
            "the issuer does not report when the user signed in: no usable auth_time, which "
            "max_age requires (OpenID Connect Core, 2)"
        )
    if moment < pending.begun - LEEWAY_SECONDS:
        raise AccessDenied("the issuer did not ask the user to sign in again")


class MetadataCache:
    """The published metadata of the issuer, read again after METADATA_SECONDS."""

    def __init__(self) -> None:
        self._kept: tuple[float, Mapping[str, Any]] | None = None

    async def get(self, client: IssuerClient, issuer: str) -> Mapping[str, Any]:
        """Return the metadata; raise ConfigError when the issuer does not publish it."""
        now = time.monotonic()
        if self._kept is None or self._kept[0] <= now:
            self._kept = now + METADATA_SECONDS, await _metadata(client, issuer)
        return self._kept[1]


@asynccontextmanager
async def open_issuer(config: Config, cache: MetadataCache) -> AsyncIterator[Issuer]:
    """Open the configured issuer; raise ConfigError when it is missing or not trustworthy."""
    issuer, client_id = config.oidc_issuer, config.oidc_client_id
    if not issuer or not client_id:
        raise ConfigError("OpenID Connect needs PVEMCP_OIDC_ISSUER and PVEMCP_OIDC_CLIENT_ID.")
    address = urlsplit(issuer)
    if address.scheme != "https" and address.hostname not in LOOPBACK:
        raise ConfigError("PVEMCP_OIDC_ISSUER must begin with https://.")
    secret = config.oidc_client_secret
    async with IssuerClient(
        client_id=client_id,
        client_secret=secret.get_secret_value() if secret else None,
        scope=SCOPE,
        redirect_uri=f"{config.base_url}/admin/oidc/callback",
        code_challenge_method="S256",
        timeout=TIMEOUT_SECONDS,
        verify=limit_heads(httpx.create_ssl_context()),
        mounts={"http://": PlainTransport()},
        headers={"Accept-Encoding": "gzip"},
    ) as client:
        yield Issuer(client, issuer, await cache.get(client, issuer))


async def _metadata(client: IssuerClient, issuer: str) -> Mapping[str, Any]:
    """Fetch the issuer's metadata; raise ConfigError unless they are those of this issuer.

    Its endpoints get the client's secret, so they need https as the issuer itself does.
    """
    url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        response = await client.request("GET", url, withhold_token=True)
        metadata: dict[str, Any] = response.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise ConfigError(f"{issuer} does not answer as an OpenID Connect issuer.") from error
    if metadata.get("issuer") != issuer:
        raise ConfigError(f"{url} names another issuer: {metadata.get('issuer')}.")
    for name in ENDPOINTS:
        if not isinstance(endpoint := metadata.get(name), str) or not _is_of(issuer, endpoint):
            raise ConfigError(f"{url} has no {name} that begins with https://.")
    return metadata


def _is_of(issuer: str, endpoint: str) -> bool:
    """Return whether an issuer may name this endpoint: one of http is for one of http only."""
    is_http = urlsplit(issuer).scheme == "http"
    return is_secure_url(endpoint) and (is_http or endpoint.lower().startswith("https:"))
