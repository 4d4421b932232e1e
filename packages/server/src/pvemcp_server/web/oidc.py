"""Signing in with an OpenID Connect issuer: authorization code with PKCE, state and nonce."""

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx2 as httpx
from authlib.integrations.base_client import OAuthError  # type: ignore[import-untyped]  # it brings no types
from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped]  # it brings no types
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]  # it brings no types
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OctKey

from pvemcp_server.config import Config
from pvemcp_server.errors import AccessDenied, ConfigError

SCOPE: Final = "openid email"
ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")  # never those with a shared secret
JOURNEY_SECONDS: Final = 600
TIMEOUT_SECONDS: Final = 10
LEEWAY_SECONDS: Final = 60
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the issuer has vouched for."""

    subject: str
    email: str


@dataclass(frozen=True, slots=True)
class Journey:
    """What we remember of a browser while it is at the issuer, in a signed cookie."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def begin(cls) -> Self:
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))

    def sealed(self, key: bytes) -> str:
        """As the cookie holds it, for ten minutes."""
        claims = {**asdict(self), "exp": int(time.time()) + JOURNEY_SECONDS}
        return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(key))

    @classmethod
    def opened(cls, sealed: str, key: bytes) -> Self:
        """Raises AccessDenied for a cookie that is not ours or too old."""
        try:
            token = jwt.decode(sealed, OctKey.import_key(key), algorithms=["HS256"])
            jwt.JWTClaimsRegistry(exp={"essential": True}).validate(token.claims)
        except (JoseError, ValueError):
            raise AccessDenied("no sign-in was begun in this browser") from None
        return cls(*(str(token.claims[name]) for name in ("state", "nonce", "verifier")))


@dataclass(frozen=True)
class Issuer:
    """The configured issuer and what it says of itself."""

    client: AsyncOAuth2Client
    issuer: str
    metadata: Mapping[str, Any]

    def authorization_url(self, journey: Journey) -> str:
        """Where the browser is sent."""
        url, _ = self.client.create_authorization_url(
            self.metadata["authorization_endpoint"],
            state=journey.state,
            nonce=journey.nonce,
            code_verifier=journey.verifier,
        )
        return str(url)

    async def person(self, code: str, journey: Journey) -> Person:
        """Who came back with this code; raises AccessDenied unless the issuer proves it."""
        try:
            token = await self.client.fetch_token(
                self.metadata["token_endpoint"], code=code, code_verifier=journey.verifier
            )
            answer = await self.client.request(
                "GET", self.metadata["jwks_uri"], withhold_token=True
            )
            keys = KeySet.import_key_set(answer.raise_for_status().json())
            read = jwt.decode(token["id_token"], keys, algorithms=list(ALGORITHMS))
            return self._proven(read.header, read.claims, journey)
        except (OAuthError, JoseError, KeyError, ValueError, httpx.HTTPError) as error:
            raise AccessDenied(f"the issuer did not vouch: {type(error).__name__}") from error

    def _proven(
        self, header: Mapping[str, Any], claims: Mapping[str, Any], journey: Journey
    ) -> Person:
        wanted = {
            "iss": {"essential": True, "value": self.issuer},
            "aud": {"essential": True, "value": self.client.client_id},
        }
        known = {"nonce": journey.nonce, "client_id": self.client.client_id}
        CodeIDToken(dict(claims), dict(header), wanted, known).validate(leeway=LEEWAY_SECONDS)
        # an address that nobody has verified can be typed in by anybody
        if claims.get("email_verified") is not True:
            raise AccessDenied("the issuer has not verified the e-mail address")
        return Person(f"{self.issuer} {claims['sub']}", str(claims["email"]))


@asynccontextmanager
async def open_issuer(config: Config) -> AsyncIterator[Issuer]:
    """The configured issuer; raises ConfigError when none is, or it cannot be trusted."""
    issuer, client_id = config.oidc_issuer, config.oidc_client_id
    if not issuer or not client_id:
        raise ConfigError("OpenID Connect needs PVEMCP_OIDC_ISSUER and PVEMCP_OIDC_CLIENT_ID.")
    place = urlsplit(issuer)
    if place.scheme != "https" and place.hostname not in LOOPBACK:
        raise ConfigError("PVEMCP_OIDC_ISSUER must begin with https://.")
    secret = config.oidc_client_secret
    async with AsyncOAuth2Client(
        client_id=client_id,
        client_secret=secret.get_secret_value() if secret else None,
        scope=SCOPE,
        redirect_uri=f"{config.base_url}/admin/oidc/callback",
        code_challenge_method="S256",
        timeout=TIMEOUT_SECONDS,
    ) as client:
        yield Issuer(client, issuer, await _metadata(client, issuer))


async def _metadata(client: AsyncOAuth2Client, issuer: str) -> Mapping[str, Any]:
    """What the issuer publishes; another one's word does not count."""
    url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        answer = await client.request("GET", url, withhold_token=True)
        found: dict[str, Any] = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise ConfigError(f"{issuer} does not answer as an OpenID Connect issuer.") from error
    if found.get("issuer") != issuer:
        raise ConfigError(f"{url} is the word of another issuer: {found.get('issuer')}.")
    return found
