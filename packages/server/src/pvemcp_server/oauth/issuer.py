"""Tokens of an external authorization server: JWTs, verified with the keys that it publishes.

An administrator names the issuer, so its host may be a private one; a link-local or metadata
address is refused. Its answers are bounded in size, head and time, and no redirect is followed.
joserfc comes with the extra `oidc`, and is imported when the first token is verified.
"""

import asyncio
import logging
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2 as httpx

from proxmox_client import tls_fault, tls_reason
from proxmox_client.responses import read_body
from pvemcp_server.access.authentication import EXPIRED
from pvemcp_server.errors import AccessDenied, BadArgument, IssuerUnavailable, OverBudget
from pvemcp_server.link_local import checked_addresses
from pvemcp_server.oauth.documents import read_at
from pvemcp_server.oauth.published_keys import (
    CURVES,
    ED25519,
    RSA,
    PublishedKey,
    find_key,
    json_object,
    published_keys,
    unpadded,
)
from pvemcp_server.settings import is_secure_url

ALGORITHMS: Final = frozenset({*RSA, *CURVES, *ED25519})  # never none, nor a shared secret
# RFC 9068 names at+jwt; most issuers write JWT, or nothing
TYPES: Final = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
OTHER_TOKENS: Final = frozenset({"id", "refresh", "offline", "logout"})  # Keycloak's claim typ
OF_ID_TOKENS: Final = frozenset({"nonce", "at_hash", "c_hash"})  # claims, by OpenID Connect
LONGEST_TOKEN: Final = 16 * 1024
LEEWAY_SECONDS: Final = 60
SECONDS: Final = 5.0  # for metadata and keys together, resolving and connecting included
MOST_BYTES: Final = 256 * 1024
LATEST: Final = 200e9  # Unix time, in the year 8307: datetime ends in 9999
KEPT_SECONDS: Final = 600.0  # the keys, before they are read again
AGAIN_SECONDS: Final = 60.0  # between two attempts, for keys that are unknown or not readable
LONGEST_SECONDS: Final = 3600.0  # the last keys, while the issuer does not answer
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Published:
    issuer: str
    keys: Sequence[PublishedKey]
    read: float


class TokenVerifier:
    """Verifies tokens; the issuer's keys are cached, and read again for an unknown one."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        seconds: float = SECONDS,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._monotonic = monotonic
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._kept: _Published | None = None
        self._tried: tuple[str, float] | None = None
        self._problem = ""  # of the last attempt

    async def verify(
        self, token: str, *, issuer: str, audience: Collection[str]
    ) -> Mapping[str, Any]:
        """Return the claims of a token; raise AccessDenied unless it is valid.

        Raise IssuerUnavailable while the issuer's keys cannot be read. A token of another issuer,
        or of an algorithm that is not allowed, is refused before they are.
        """
        header, claims = _unverified(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise AccessDenied("token with an algorithm that is not allowed")
        if "crit" in header or str(header.get("typ", "")).lower() not in TYPES:
            raise AccessDenied("token of another type")
        if claims.get("iss") != issuer:
            raise AccessDenied("token of another issuer")
        if kid is not None and not isinstance(kid, str):
            raise AccessDenied("malformed token")
        key = await self._key(issuer, kid, algorithm)
        verified = _decoded(token, key, algorithm)
        _check_kind(str(header.get("typ", "")).lower(), verified)
        _check_claims(verified, issuer, audience, self._clock())
        return verified

    async def check(self, issuer: str) -> int:
        """Return how many keys the issuer publishes; raise IssuerUnavailable with the reason."""
        return len((await self._published(issuer)).keys)

    async def _key(self, issuer: str, kid: str | None, algorithm: str) -> PublishedKey:
        published = await self._published(issuer)
        key = find_key(published.keys, kid, algorithm)
        if key is None:  # a new one, after a rotation
            published = await self._published(issuer, after=published.read)
            key = find_key(published.keys, kid, algorithm)
        if key is None:
            raise AccessDenied("token signed with a key that the issuer does not publish")
        return key

    async def _published(self, issuer: str, after: float | None = None) -> _Published:
        """Return the issuer's keys, those that were read later than `after` if that is possible.

        They are read by one task at a time, and at most once a minute for what is not known.
        """
        if (kept := self._current(issuer, after)) is not None:
            return kept
        async with self._lock:
            if (kept := self._current(issuer, after)) is not None:
                return kept
            now, last = self._monotonic(), self._last(issuer)
            if (
                self._tried is None
                or self._tried[0] != issuer
                or now - self._tried[1] >= (AGAIN_SECONDS)
            ):
                self._tried = (issuer, now)
                try:
                    async with asyncio.timeout(self._seconds):
                        keys = await self._read_keys(issuer)
                    self._kept = last = _Published(issuer, keys, now)
                except (httpx.HTTPError, httpx.InvalidURL, OSError, _Unusable) as error:
                    fault = tls_fault(error)
                    known = tls_reason(fault) if fault else str(error)
                    self._problem = known or type(error).__name__
                    log.warning("The keys of %s cannot be read: %s", issuer, self._problem)
            if last is None:
                raise IssuerUnavailable(f"The keys of {issuer} cannot be read: {self._problem}.")
            return last

    def _current(self, issuer: str, after: float | None) -> _Published | None:
        kept = self._last(issuer)
        if kept is None or self._monotonic() - kept.read >= KEPT_SECONDS:
            return None
        return kept if after is None or kept.read > after else None

    def _last(self, issuer: str) -> _Published | None:
        kept = self._kept
        is_usable = kept and kept.issuer == issuer
        if kept is None or not is_usable or self._monotonic() - kept.read >= LONGEST_SECONDS:
            return None
        return kept

    async def _read_keys(self, issuer: str) -> Sequence[PublishedKey]:
        """Return the keys that the issuer's metadata leads to (RFC 8414; OpenID Discovery)."""
        metadata = None
        for url in metadata_urls(issuer):
            metadata = await self._get(url)
            if metadata is not None:
                break
        if metadata is None:
            raise _Unusable("it publishes no metadata")
        if metadata.get("issuer") != issuer:
            raise _Unusable("its metadata names another issuer")
        keys_url = metadata.get("jwks_uri")
        if not isinstance(keys_url, str) or not is_secure_url(keys_url):
            raise _Unusable("its jwks_uri is neither https nor http to loopback")
        keys = published_keys(await self._get(keys_url) or {})
        if keys is None:
            raise _Unusable("its jwks_uri has no list of keys, or a too long one")
        return keys

    async def _get(self, url: str) -> Mapping[str, Any] | None:
        """Return a JSON object; None for the answer 404. Raise _Unusable for anything else."""
        try:
            addresses = await checked_addresses(urlsplit(url).netloc, argument="external_issuer")
        except (BadArgument, OverBudget) as refused:
            raise _Unusable(refused.message) from None
        return await read_at(
            httpx.URL(url),
            addresses,
            _document,
            transport=self._transport,
            seconds=self._seconds,
        )


async def _document(response: httpx.Response) -> Mapping[str, Any] | None:
    """Return the JSON object of an answer; None for 404. Raise _Unusable for anything else."""
    if response.status_code == 404:
        return None
    if response.status_code != 200:
        raise _Unusable(f"the answer was {response.status_code}")
    body = await read_body(response, MOST_BYTES)
    if body is None:
        raise _Unusable(f"the answer is longer than {MOST_BYTES >> 10} KiB")
    document = json_object(body)
    if document is None:
        raise _Unusable("the answer is no JSON object")
    return document


class _Unusable(Exception):
    """The issuer's metadata or keys cannot be used."""


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Return where the metadata of an issuer may be: as OpenID Connect and RFC 8414 place it."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    host = f"{parts.scheme}://{parts.netloc}"
    return (
        f"{host}{path}/.well-known/openid-configuration",
        f"{host}/.well-known/oauth-authorization-server{path}",
    )


def _unverified(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return header and claims without a look at the signature; raise AccessDenied."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > LONGEST_TOKEN or not token.isascii():
        raise AccessDenied("malformed token")
    try:
        header, claims = (json_object(unpadded(part)) for part in parts[:2])
    except ValueError:
        raise AccessDenied("malformed token") from None
    if header is None or claims is None:
        raise AccessDenied("malformed token")
    return header, claims


def _decoded(token: str, key: PublishedKey, algorithm: str) -> Mapping[str, Any]:
    """Return the claims of a token with the right signature; raise AccessDenied for any other."""
    from joserfc import jwt
    from joserfc.errors import JoseError, SecurityWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # of the older name of Ed25519
            claims: Mapping[str, Any] = jwt.decode(token, key.key, algorithms=[algorithm]).claims
    except (JoseError, ValueError, TypeError, RecursionError):
        raise AccessDenied("token with a wrong signature") from None
    return claims


def _check_kind(header_type: str, claims: Mapping[str, Any]) -> None:
    """Raise AccessDenied for verified claims of an ID token or another that is no access token.

    An access token that says so may have a nonce too: Keycloak before 25 writes one, with Bearer.
    """
    kind = str(claims.get("typ", "")).lower()
    says_access = header_type.endswith("at+jwt") or kind == "bearer"
    if kind in OTHER_TOKENS or (not says_access and claims.keys() & OF_ID_TOKENS):
        raise AccessDenied("token of another type")


def _check_claims(
    claims: Mapping[str, Any], issuer: str, audience: Collection[str], now: float
) -> None:
    """Raise AccessDenied unless the verified claims are those of a current access token for us."""
    aud = claims.get("aud")
    named = aud if isinstance(aud, list) else [aud]
    if claims.get("iss") != issuer:
        raise AccessDenied("token of another issuer")
    if not any(isinstance(each, str) and each in audience for each in named):
        raise AccessDenied("token for another audience")
    expires = moment_of(claims, "exp")
    if expires is None:
        raise AccessDenied("token without an expiry")
    if expires <= now - LEEWAY_SECONDS:
        raise AccessDenied(EXPIRED)
    for name in ("nbf", "iat"):
        begins = moment_of(claims, name)
        if name in claims and (begins is None or begins > now + LEEWAY_SECONDS):
            raise AccessDenied("token that is not valid yet")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject.strip() or not subject.isprintable():
        raise AccessDenied("token without a usable sub")


def moment_of(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a claim as Unix time; None for what is no number."""
    value = claims.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
        return None
    return float(value) if abs(value) < LATEST else None
