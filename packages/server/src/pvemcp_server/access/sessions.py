"""Signed-in administrators: sessions kept on the server, known by a digest of their token."""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256

from pvemcp_server.errors import AccessDenied
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import AdminRecord, SessionRecord

IDLE = timedelta(hours=1)
ABSOLUTE = timedelta(hours=12)
SEEN_EVERY = timedelta(minutes=1)  # how exact `last_seen` is: a write a minute, not one a request


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in administrator; `csrf` belongs to this session alone."""

    id: str = field(repr=False)
    admin: AdminRecord
    csrf: str = field(repr=False)
    created: datetime
    expires: datetime

    def check_csrf(self, token: str) -> None:
        """Raises AccessDenied unless the token is this session's."""
        if not hmac.compare_digest(token.encode(), self.csrf.encode()):
            raise AccessDenied("wrong CSRF token")


class Sessions:
    """Opens, finds and ends sessions."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self._clock = clock
        self._csrf_key = store.vault.derive("csrf")

    async def open(self, admin: AdminRecord, *, address: str, agent: str) -> str:
        """A new session's token, for the cookie."""
        token, now = secrets.token_urlsafe(32), self._clock()
        await self._store.sessions.add(
            digest=_digest(token),
            admin_id=admin.id,
            address=address[:64],
            agent=agent[:256],
            created=now,
            last_seen=now,
            expires=now + ABSOLUTE,
        )
        return token

    async def find(self, token: str) -> Session | None:
        """The session with this token, while it is alive and its administrator enabled."""
        found = await self._store.sessions.find(digest=_digest(token))
        now = self._clock()
        if found is None or not _is_alive(found, now):
            return None
        admin = await self._store.admins.find(id=found.admin_id)
        if admin is None or not admin.enabled:
            return None
        if now - found.last_seen >= SEEN_EVERY:
            await self._store.sessions.change(found.digest, last_seen=now)
        csrf = hmac.new(self._csrf_key, token.encode(), sha256).hexdigest()
        return Session(found.digest, admin, csrf, found.created, found.expires)

    async def of(self, admin: AdminRecord) -> list[SessionRecord]:
        """The administrator's living sessions."""
        now = self._clock()
        found = await self._store.sessions.all(admin_id=admin.id)
        return [session for session in found if _is_alive(session, now)]

    async def end(self, session_id: str) -> bool:
        return await self._store.sessions.remove(session_id)

    async def sweep(self) -> None:
        """Removes sessions that are over."""
        await self._store.sessions.sweep(self._clock(), IDLE)


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def _is_alive(session: SessionRecord, now: datetime) -> bool:
    return session.expires > now and session.last_seen > now - IDLE
