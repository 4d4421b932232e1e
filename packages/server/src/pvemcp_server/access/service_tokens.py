"""Service tokens: programs present them at the admin REST API, in place of an administrator."""

import hmac
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from pvemcp_server.access.authentication import digest_of
from pvemcp_server.access.external import ExternalAdmins
from pvemcp_server.access.names import check_name
from pvemcp_server.access.sessions import SEEN_EVERY
from pvemcp_server.errors import AccessDenied, BadArgument, UnknownName
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.key_format import SERVICE_PREFIX, id_of, new_id, new_secret
from pvemcp_server.store.records import AdminRecord, AdminRole, ServiceTokenRecord

LIFE: Final = timedelta(days=90)  # where no expiry is given
LONGEST_LIFE: Final = timedelta(days=366)


class ServiceTokens:
    """The service tokens in the store.

    A presented token is read from the database each time, so that a revoked one is refused at once
    in every process.
    """

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

    async def all(self) -> list[ServiceTokenRecord]:
        """List all service tokens."""
        return await self._store.service_tokens.all()

    async def get(self, token: str) -> ServiceTokenRecord:
        """Return the service token with this id or name; raise UnknownName if there is none."""
        tokens = self._store.service_tokens
        record = await tokens.find(id=token) or await tokens.find(name=token)
        if record is None:
            raise UnknownName("service token", token, [each.name for each in await self.all()])
        return record

    async def create(
        self,
        name: str,
        scopes: list[str],
        *,
        expires: datetime | None = None,
        latest: datetime | None = None,
        by: str,
        admin: AdminRecord | None = None,
    ) -> tuple[ServiceTokenRecord, str]:
        """Create a service token; return it and its secret, which is not stored.

        `latest` is the latest expiry that the setting longest_key_life_days allows. The token ends
        with the account of `admin`, and is refused while that is not an owner's.
        """
        now = self._clock()
        most = min(now + LONGEST_LIFE, latest or now + LONGEST_LIFE)
        expires = expires or min(now + LIFE, most)
        if not now < expires <= most:
            limit = "by the setting longest_key_life_days" if most == latest else "at most 366 days"
            raise BadArgument(
                "expires", f"must be in the future, and {most.date()} at the latest, {limit}."
            )
        if await self._store.service_tokens.find(id=name):
            # what names that token by its id would also seem to name this one
            raise BadArgument("name", "is the id of a service token.")
        token_id = new_id()
        secret = new_secret(token_id, SERVICE_PREFIX)
        pepper = self._store.vault.pepper
        record = await self._store.service_tokens.add(
            id=token_id,
            name=check_name(name),
            digest=digest_of(secret, pepper.material),
            pepper=pepper.id,
            scopes=scopes,
            expires=expires,
            created=now,
            created_by=by,
            admin_id=admin and admin.id,
        )
        return record, secret

    async def revoke(self, token: str) -> ServiceTokenRecord:
        """Remove the service token and return its last record; it is refused at once."""
        record = await self.get(token)
        await self._store.service_tokens.remove(record.id)
        return record

    async def authenticate(self, secret: str, address: str) -> ServiceTokenRecord:
        """Return the service token with this secret; raise AccessDenied if it is not valid."""
        token_id = id_of(secret, SERVICE_PREFIX)
        record = await self._store.service_tokens.find(id=token_id) if token_id else None
        if record is None:
            raise AccessDenied("unknown service token" if token_id else "malformed service token")
        pepper = await self._store.vault.pepper_of(record.pepper)
        now = self._clock()
        reason = ""
        if not hmac.compare_digest(digest_of(secret, pepper), record.digest):
            reason = "wrong secret of a service token"
        elif not await self._has_owner(record):
            reason = "service token of an account that is no owner's now"
        elif record.expires <= now:
            reason = "expired service token"
        if reason:
            raise AccessDenied(reason, name=actor_of(record))
        if record.last_used is None or now - record.last_used >= SEEN_EVERY:
            await self._store.service_tokens.change(
                record.id, last_used=now, last_address=address[:64]
            )
        return record

    async def _has_owner(self, token: ServiceTokenRecord) -> bool:
        """Return whether its administrator could still create it; one of the command line can."""
        if token.admin_id is None:
            return True
        admin = await self._store.admins.find(id=token.admin_id)
        return (
            admin is not None
            and admin.enabled
            and self._external.admits(admin)
            and self._external.role(admin) is AdminRole.OWNER
        )


def actor_of(token: ServiceTokenRecord) -> str:
    """Return how the audit names the token; no administrator's name has a colon."""
    return f"token:{token.name}"
