"""API keys: making, changing and withdrawing them. Checking them is the gate's work."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

from pvemcp_formats import Format
from pvemcp_server.access.model import ANY
from pvemcp_server.access.names import check_name
from pvemcp_server.access.roles import READ_ONLY
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.key_format import new_id, new_secret
from pvemcp_server.store.keyed_hash import keyed_hash
from pvemcp_server.store.records import KeyRecord


def digest_of(secret: str, pepper: bytes) -> bytes:
    """What is stored of a key: 256 random bits need no slow hash, only a keyed one."""
    return keyed_hash(pepper, secret.encode())


class Keys:
    """Reads and changes keys; a change takes effect within a second in every process."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def all(self) -> list[KeyRecord]:
        return await self._store.keys.all()

    async def get(self, key_id: str) -> KeyRecord:
        """The key with this id or this name."""
        found = await self._store.keys.find(id=key_id) or await self._store.keys.find(name=key_id)
        if found is None:
            raise UnknownName("key", key_id, [key.name for key in await self.all()])
        return found

    async def create(
        self,
        name: str,
        *,
        role: str = READ_ONLY,
        clusters: Iterable[str] = (ANY,),
        toolset: Iterable[str] = (ANY,),
        expires: datetime | None = None,
        allow_from: Iterable[str] = (),
        output_format: str | None = None,
    ) -> tuple[KeyRecord, str]:
        """A new key and its secret, which nobody can see again."""
        key_id = new_id()
        secret = new_secret(key_id)
        values = await self._checked(
            {
                "name": name,
                "role": role,
                "clusters": clusters,
                "toolset": toolset,
                "expires": expires,
                "allow_from": allow_from,
                "output_format": output_format,
            }
        )
        record = await self._store.keys.add(
            id=key_id, enabled=True, created=utc_now(), **self._digest(secret), **values
        )
        return record, secret

    async def change(self, key_id: str, /, **values: Any) -> KeyRecord:
        """Changes what is given: anything that `create` takes, and `enabled`."""
        key = await self.get(key_id)
        return await self._stored(key, await self._checked(values))

    async def regenerate(self, key_id: str) -> tuple[KeyRecord, str]:
        """The same key with a new secret; the old one is refused at once."""
        key = await self.get(key_id)
        secret = new_secret(key.id)
        record = await self._stored(key, {**self._digest(secret), "regenerated": utc_now()})
        return record, secret

    async def remove(self, key_id: str) -> KeyRecord:
        key = await self.get(key_id)
        await self._store.keys.remove(key.id)
        return key

    def _digest(self, secret: str) -> dict[str, Any]:
        pepper = self._store.vault.pepper
        return {"digest": digest_of(secret, pepper.material), "pepper": pepper.id}

    async def _stored(self, key: KeyRecord, values: Mapping[str, Any]) -> KeyRecord:
        record = await self._store.keys.change(key.id, **values)
        if record is None:  # removed since we looked
            raise UnknownName("key", key.name, [])
        return record

    async def _checked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        unknown = values.keys() - CHECKS.keys() - {"role"}
        if unknown:
            raise BadArgument(min(unknown), "is not something a key has.")
        checked = {name: CHECKS[name](value) for name, value in values.items() if name != "role"}
        if "role" in values:
            role = await self._store.roles.find(name=values["role"])
            if role is None:
                known = [one.name for one in await self._store.roles.all()]
                raise UnknownName("role", values["role"], known)
            checked["role_id"] = role.id
        return checked


def _choice(argument: str) -> Any:
    def check(values: Iterable[str]) -> list[str]:
        chosen = sorted(set(values))
        if not chosen:
            raise BadArgument(argument, f"must not be empty; {ANY!r} stands for all.")
        return [ANY] if ANY in chosen else chosen

    return check


def _networks(values: Iterable[str]) -> list[str]:
    try:
        return sorted({str(ip_network(value.strip(), strict=False)) for value in values})
    except ValueError as wrong:
        raise BadArgument("allow_from", f"{wrong}.") from None


def _expiry(value: datetime | None) -> datetime | None:
    if value is not None and value.tzinfo is None:
        raise BadArgument("expires", "needs a time zone.")
    try:
        return value and value.astimezone(UTC)
    except OverflowError:
        raise BadArgument("expires", "is beyond the times that a calendar has.") from None


def _format(value: str | None) -> str | None:
    try:
        return None if value is None else Format(value).value
    except ValueError:
        raise BadArgument("output_format", f"one of {', '.join(Format)}.") from None


CHECKS: Mapping[str, Any] = {
    "name": check_name,
    "clusters": _choice("clusters"),
    "toolset": _choice("toolset"),
    "expires": _expiry,
    "allow_from": _networks,
    "output_format": _format,
    "enabled": bool,
}
