"""Sessions of administrators, stored on the server under a keyed digest of their token.

The key is the vault's, so a row that is written into the database is not a session.
"""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256

from pvemcp_server.access.external import ExternalAdmins
from pvemcp_server.errors import AccessDenied, AccountChanged
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import AdminRecord, SessionRecord

IDLE = timedelta(hours=1)
ABSOLUTE = timedelta(hours=12)
RECENT = timedelta(minutes=10)  # how long a proof of who one is counts for operations of weight
SEEN_EVERY = timedelta(minutes=1)  # precision of `last_seen`: one write a minute, not a request


@dataclass(frozen=True, slots=True)
class Session:
    """A session of an administrator; the `csrf` token is valid for this session only."""

    id: str = field(repr=False)
    admin: AdminRecord
    csrf: str = field(repr=False)
    created: datetime
    expires: datetime
    verified_at: datetime

    def check_csrf(self, token: str) -> None:
        """Raise AccessDenied unless the token is the one of this session."""
        if not hmac.compare_digest(token.encode(), self.csrf.encode()):
            raise AccessDenied("wrong CSRF token")


class Sessions:
    """Opens, finds and ends sessions."""

    def __init__(
        self,
        store: Store,
        external: ExternalAdmins | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._external = external or ExternalAdmins()
        self._clock = clock

    async def open(
        self,
        admin: AdminRecord,
        *,
        address: str,
        agent: str,
        verified_at: datetime | None = None,
    ) -> str:
        """Create a session and return its token, for the cookie.

        `verified_at` is when the administrator has proved who they are: now when absent. Raise
        AccountChanged when the account's sessions have ended since the record was read.
        """
        token, now = secrets.token_urlsafe(32), self._clock()
        opened = await self._store.sessions.open(
            admin,
            digest=self._digest(token),
            address=address[:64],
            agent=agent[:256],
            created=now,
            last_seen=now,
            expires=now + ABSOLUTE,
            verified_at=verified_at or now,
        )
        if not opened:
            raise AccountChanged
        return token

    async def verify(self, session_id: str) -> None:
        """Note that the session's administrator has just proved who they are.

        Every way to prove it ends here: a password, a fresh sign-in at the issuer, a second factor.
        """
        await self._store.sessions.change(session_id, verified_at=self._clock())

    async def find(self, token: str) -> Session | None:
        """Return the session of this token; None when it or its administrator is not valid."""
        record = await self._store.sessions.find(digest=self._digest(token))
        admin = await self._administrator(record)
        if record is None or admin is None:
            return None
        now = self._clock()
        if now - record.last_seen >= SEEN_EVERY:
            await self._store.sessions.change(record.digest, last_seen=now)
        return Session(
            id=record.digest,
            admin=admin,
            csrf=self._keyed("csrf", token),
            created=record.created,
            expires=record.expires,
            verified_at=record.verified_at,
        )

    async def administrator(self, session_id: str) -> AdminRecord | None:
        """Return the administrator of a session; None when one of both is not valid."""
        return await self._administrator(await self._store.sessions.find(digest=session_id))

    async def of(self, admin: AdminRecord) -> list[SessionRecord]:
        """Return the sessions of an administrator that have not ended; none of one not admitted."""
        if not self._external.admits(admin):
            return []
        now = self._clock()
        sessions = await self._store.sessions.all(admin_id=admin.id)
        return [session for session in sessions if _is_alive(session, now)]

    async def end_others(self, admin: AdminRecord, session_id: str = "") -> int:
        """End the sessions of an administrator except this one; return how many ended."""
        ended = [session for session in await self.of(admin) if session.digest != session_id]
        await self._store.admins.end_sessions(admin.id, keep=session_id)
        return len(ended)

    async def end(self, session_id: str) -> bool:
        """End a session; return whether it existed."""
        return await self._store.sessions.remove(session_id)

    async def remove_expired(self) -> None:
        """Delete sessions that have ended."""
        await self._store.sessions.remove_expired(self._clock(), IDLE)

    async def _administrator(self, record: SessionRecord | None) -> AdminRecord | None:
        if record is None or not _is_alive(record, self._clock()):
            return None
        admin = await self._store.admins.find(id=record.admin_id)
        if admin is None or not admin.enabled or not self._external.admits(admin):
            return None
        role = self._external.role(admin)
        return replace(admin, role=role) if role else None

    def _digest(self, token: str) -> str:
        return self._keyed("sessions", token)

    def _keyed(self, purpose: str, token: str) -> str:
        key = self._store.vault.derive(purpose)
        return hmac.new(key, token.encode(), sha256).hexdigest()


def _is_alive(session: SessionRecord, now: datetime) -> bool:
    # a session seen in the future is over: the clock was set back since
    return session.expires > now and abs(now - session.last_seen) < IDLE
