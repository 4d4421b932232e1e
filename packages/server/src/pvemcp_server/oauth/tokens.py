"""Tokens of connections: codes, access tokens and refresh tokens, which rotate."""

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from pvemcp_server.access.authentication import digest_of
from pvemcp_server.access.limits import RateLimiter
from pvemcp_server.audit import Audit, Event, Outcome
from pvemcp_server.errors import OAuthError, OverBudget
from pvemcp_server.oauth.scopes import Scope, included, is_sufficient, scopes_in
from pvemcp_server.oauth.step_ups import StepUps
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.key_format import TOKEN_PREFIXES, id_of, new_id, new_secret
from pvemcp_server.store.records import ConnectionRecord, KeyRecord, TokenKind, TokenRecord

CODE_LIFE: Final = timedelta(seconds=60)
ACCESS_LIFE: Final = timedelta(hours=1)
REFRESH_LIFE: Final = timedelta(days=30)  # where the connection itself does not expire
EARLY: Final = timedelta(minutes=5)  # in which clients refresh before the end
KEPT: Final = timedelta(hours=1)  # expired tokens, for calls that began before
USED_LIFE: Final = timedelta(days=7)  # in which the second use of a refresh token is noticed
EXCHANGES_PER_MINUTE: Final = 10  # of a connection, whose client needs one an hour
NOTICE: Final = "token-reused"
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636, 4.1
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256 in base64url


@dataclass(frozen=True, slots=True)
class Granted:
    """What a client gets for a code or a refresh token."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    scopes: tuple[Scope, ...]
    expires_in: int  # seconds


class Tokens:
    """Issues, exchanges and ends the tokens of connections; only keyed hashes are stored.

    A refresh token is used once. One that is presented again was copied, by an attacker or from
    the client: the server cannot know by which of the two, so all tokens of the connection end.
    """

    def __init__(
        self,
        store: Store,
        audit: Audit,
        *,
        clock: Callable[[], datetime] = utc_now,
        access_life: timedelta = ACCESS_LIFE,
    ) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock
        self.access_life = access_life
        self.step_ups = StepUps()
        self._exchanges = RateLimiter("exchanges", store.shared_limits)

    async def issue_code(
        self,
        connection: ConnectionRecord,
        *,
        redirect_uri: str,
        challenge: str,
        scopes: Iterable[str],
        resource: str,
    ) -> str:
        """Return an authorization code; it is bound to the client of the connection too.

        `challenge` is that of PKCE by S256, the only method. Raise OAuthError for any other, and
        when the connection has ended.
        """
        if not is_challenge(challenge):
            raise OAuthError("invalid_request", "code_challenge must be that of S256 (RFC 7636).")
        request = {"redirect_uri": redirect_uri, "challenge": challenge}
        code, row = self._made(
            TokenKind.CODE, connection.id, scopes, resource, CODE_LIFE, request=request
        )
        if not await self._store.tokens.add_code(**row):
            raise OAuthError("access_denied", "The connection has ended: connect again.")
        return code

    async def exchange(
        self,
        code: str,
        *,
        client_id: str,
        verifier: str,
        redirect_uri: str | None = None,
        resource: str | None = None,
        address: str = "",
    ) -> Granted:
        """Return the tokens for a code; raise OAuthError unless all that it is bound to is right.

        `redirect_uri` and `resource` may be left out (OAuth 2.1), PKCE may not.
        """
        record = await self._presented(TokenKind.CODE, code, client_id, address)
        request = record.request or {}
        if redirect_uri is not None and redirect_uri != request["redirect_uri"]:
            raise OAuthError("invalid_grant", "redirect_uri is not that of the authorization.")
        if not _VERIFIER.fullmatch(verifier) or not hmac.compare_digest(
            challenge_of(verifier), request["challenge"]
        ):
            raise OAuthError("invalid_grant", "code_verifier is not that of the authorization.")
        _require_same(resource, record)
        return await self._replaced(record, record.scopes, address)

    async def refresh(
        self,
        token: str,
        *,
        client_id: str,
        scope: str | None = None,
        resource: str | None = None,
        address: str = "",
    ) -> Granted:
        """Return new tokens for a refresh token; `scope` may ask for less, for this access token.

        Raise OAuthError for more, for a token that is not valid, and where a step-up is due.
        """
        record = await self._presented(TokenKind.REFRESH, token, client_id, address)
        _require_same(resource, record)
        scopes = scopes_in(scope) if scope else included(record.scopes)
        if not scopes or not {*scopes} <= {*included(record.scopes)}:
            raise OAuthError("invalid_scope", "The refresh token is not for this scope.")
        need = self.step_ups.take(record.connection_id)
        is_early = self._clock() < record.created + self.access_life - EARLY
        if need and is_early and not is_sufficient(record.scopes, need):
            raise OAuthError("interaction_required", f"{need} needs a new authorization.")
        return await self._replaced(record, scopes, address)

    async def revoke(self, token: str, *, client_id: str) -> str | None:
        """End a token; with a refresh token or a code, all tokens of its connection (RFC 7009).

        Return the id of the connection then: it is of no use any more. An unknown token is no
        error. Raise OAuthError for that of another client.
        """
        for kind in TokenKind:
            record = await self._found(kind, token)
            if record is None:
                continue
            connection = await self._store.connections.find(id=record.connection_id)
            if connection is None or connection.client_id != client_id:
                raise OAuthError("unauthorized_client", "The token is that of another client.")
            if kind is TokenKind.ACCESS:
                await self._store.tokens.revoke(record.id)
                return None
            await self.end(record.connection_id)
            return record.connection_id
        return None

    async def end(self, connection_id: str) -> None:
        """End all tokens of a connection, with their streams, within a second everywhere."""
        await self._store.tokens.end(connection_id)

    async def remove_expired(self) -> None:
        """Delete what has expired; access tokens are kept a while for calls that still run."""
        await self._store.tokens.remove_expired(self._clock() - KEPT)

    async def _presented(
        self, kind: TokenKind, token: str, client_id: str, address: str
    ) -> TokenRecord:
        """Return the record of a token that its client may use now; raise OAuthError otherwise."""
        record = await self._found(kind, token)
        if record is None:
            raise _invalid(kind)
        connection = await self._store.connections.find(id=record.connection_id)
        if connection is None or connection.client_id != client_id:
            raise _invalid(kind)
        if record.used is not None:
            await self._end_reused(record, address)
            raise _invalid(kind)
        if record.expires <= self._clock():
            raise _invalid(kind)
        return record

    async def _found(self, kind: TokenKind, token: str) -> TokenRecord | None:
        """Return the record of a token with the right secret, also of a used or expired one."""
        token_id = id_of(token, TOKEN_PREFIXES[kind])
        record = await self._store.tokens.find(id=token_id, kind=kind) if token_id else None
        if record is None:
            return None
        pepper = await self._store.vault.pepper_of(record.pepper)
        return record if hmac.compare_digest(digest_of(token, pepper), record.digest) else None

    async def _replaced(self, record: TokenRecord, scopes: Iterable[str], address: str) -> Granted:
        """Use up the token, and return an access token and the next refresh token for it."""
        key = await self._store.keys.find(id=record.connection_id)
        now = self._clock()
        if key is None or not key.enabled or (key.expires is not None and key.expires <= now):
            raise _invalid(record.kind)
        if not await self._exchanges.take(key.id, EXCHANGES_PER_MINUTE):
            raise OverBudget("Too many tokens for this connection.", hint="Wait.", seconds=60)
        left = key.expires - now if key.expires is not None else REFRESH_LIFE
        life = min(self.access_life, left)
        place = (record.connection_id, scopes, record.resource)
        access, access_row = self._made(TokenKind.ACCESS, *place, life)
        refresh, refresh_row = self._made(
            TokenKind.REFRESH, record.connection_id, record.scopes, record.resource, left
        )
        rows, kept = (access_row, refresh_row), now + USED_LIFE
        if not await self._store.tokens.exchange(record, now, kept, rows):
            again = await self._store.tokens.find(id=record.id)
            if again is not None:  # used by another request since it was read
                await self._end_reused(again, address)
            raise _invalid(record.kind)
        granted = tuple(included(access_row["scopes"]))
        return Granted(access, refresh, granted, int(life.total_seconds()))

    async def _end_reused(self, record: TokenRecord, address: str) -> None:
        """End all tokens of the connection, with a notice and an entry of the audit."""
        await self.end(record.connection_id)
        key = await self._store.keys.find(id=record.connection_id)
        name = key.name if isinstance(key, KeyRecord) else record.connection_id
        reason = f"a used {_NAMES[record.kind]} was presented again; all tokens were ended"
        event = Event(
            tool="sign in",
            key_id=record.connection_id,
            key_name=name,
            address=address,
            outcome=Outcome.REFUSED,
            reason=reason,
        )
        await self._audit.refused_sign_in(event)
        await self._store.notices.record(NOTICE, record.connection_id, f"{name}: {reason}.")

    def _made(
        self,
        kind: TokenKind,
        connection_id: str,
        scopes: Iterable[str],
        resource: str,
        life: timedelta,
        request: dict[str, Any] | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """Return a new token and its row."""
        token_id, pepper, now = new_id(), self._store.vault.pepper, self._clock()
        secret = new_secret(token_id, TOKEN_PREFIXES[kind])
        return secret, {
            "id": token_id,
            "kind": kind,
            "digest": digest_of(secret, pepper.material),
            "pepper": pepper.id,
            "connection_id": connection_id,
            "scopes": [str(scope) for scope in included(scopes)],
            "resource": resource,
            "request": request,
            "created": now,
            "expires": now + life,
            "used": None,
        }


_NAMES: Final = {
    TokenKind.CODE: "authorization code",
    TokenKind.ACCESS: "access token",
    TokenKind.REFRESH: "refresh token",
}


def is_challenge(text: str) -> bool:
    """Return whether this can be a code_challenge of S256."""
    return _CHALLENGE.fullmatch(text) is not None


def challenge_of(verifier: str) -> str:
    """Return the code_challenge of a code_verifier by S256 (RFC 7636, 4.2)."""
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _invalid(kind: TokenKind) -> OAuthError:
    """Return the refusal of a token, the same for every reason."""
    return OAuthError(
        "invalid_grant", f"The {_NAMES[kind]} is not valid (any more): sign in again."
    )


def _require_same(resource: str | None, record: TokenRecord) -> None:
    if resource is not None and resource != record.resource:
        raise OAuthError("invalid_target", "The token is not for this resource.")
