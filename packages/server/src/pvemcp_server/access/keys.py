"""API keys: create, change and remove them. `access/authentication.py` checks presented keys."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from pvemcp_formats import Format
from pvemcp_server.access.authentication import digest_of
from pvemcp_server.access.fields import Argument, Changes, Fields, Option, validated
from pvemcp_server.access.model import ANY, Toolset
from pvemcp_server.access.names import check_name
from pvemcp_server.access.roles import READ_ONLY
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.key_format import new_id, new_secret
from pvemcp_server.store.records import MOST_PER_DAY, KeyRecord, Unconfirmed

EXPIRY_FORMS: Final = "90d, 12h, 2027-01-31, or 2027-01-31T08:00:00+01:00"
_UNITS: Final = {
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
    "y": timedelta(days=365),
}
_DISTANCE: Final = re.compile(r"(\d{1,4})\s?([hdwy])")


def _names(argument: str) -> AfterValidator:
    """Return a check for a list of names in which ANY stands for all of them."""

    def check(names: list[str]) -> list[str]:
        if not names:
            raise BadArgument(argument, f"must not be empty; {ANY!r} stands for all.")
        return [ANY] if ANY in names else sorted(set(names))

    return AfterValidator(check)


def _sorted(toolsets: list[str]) -> list[str]:
    return sorted(set(toolsets))


_TOOLSETS: Final = "; ".join(f"{toolset} ({toolset.description})" for toolset in Toolset)


def _networks(values: Iterable[str]) -> list[str]:
    """Return the networks in their usual notation, host bits cleared."""
    try:
        return sorted({str(ip_network(value.strip(), strict=False)) for value in values})
    except ValueError as error:
        raise BadArgument("allow_from", f"{error}.") from None


def _read_expiry(value: object) -> object:
    """Read a distance from now (90d), or a date, which is its last second in UTC."""
    if not isinstance(value, str):
        return value
    if distance := _DISTANCE.fullmatch(value.strip().lower()):
        return utc_now() + int(distance[1]) * _UNITS[distance[2]]
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        raise BadArgument("expires", f"{value!r} is no time: {EXPIRY_FORMS}.") from None
    if len(value.strip()) > len("2027-01-31"):
        return moment
    return moment.replace(hour=23, minute=59, second=59, tzinfo=UTC)


def _in_utc(moment: datetime) -> datetime:
    """Return the time in UTC."""
    if moment.tzinfo is None:
        raise BadArgument("expires", "needs a time zone, as 2027-01-31T08:00:00+01:00.")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise BadArgument("expires", "is beyond the supported range of dates.") from None


Expiry = Annotated[datetime, BeforeValidator(_read_expiry), AfterValidator(_in_utc)]
"""When a secret expires, in UTC."""


class KeyFields(Fields):
    """The fields of an API key that administrators set. Only the name has no default.

    REST API, command line and checks follow from it. The column is in `store/records.py`, the
    form's input in `web/templates/key_fields.html`. A field has the name of its column in the
    table `keys` (`role` alone is stored as `role_id`).
    """

    model_config = ConfigDict(use_enum_values=True)  # the database stores the format's text

    name: Annotated[str, AfterValidator(check_name), Argument()] = Field(
        description="What the key is for, as lists and the audit show it"
    )
    role: str = Field(default=READ_ONLY, description="Name of its role")
    clusters: Annotated[list[str], _names("clusters"), Option("--cluster")] = Field(
        default=[ANY], description="Clusters that it may use; * is all"
    )
    tools: Annotated[list[str], _names("tools"), Option("--tool")] = Field(
        default=[ANY], description="Tools of its role that it may call; * is all"
    )
    toolsets: Annotated[
        list[Toolset], AfterValidator(_sorted), Option("--toolset", clear="none")
    ] = Field(default=[], description=f"Sets of rare tools to list as well: {_TOOLSETS}")
    expires: Annotated[Expiry | None, Option(clear="never", metavar="TIME")] = Field(
        default=None,
        description=f"When it expires: {EXPIRY_FORMS}; needed, and limited, by the setting "
        "longest_key_life_days",
    )
    allow_from: Annotated[list[str], AfterValidator(_networks), Option(clear="any")] = Field(
        default=[], description="Networks that may use it, as 10.0.0.0/8; all when empty"
    )
    output_format: Annotated[Format | None, Option("--format", clear="any")] = Field(
        default=None, description="JsonCompact, JsonNormal, Toon or Csv, in place of the setting"
    )
    unattended: Annotated[Unconfirmed | None, Option(clear="ask")] = Field(
        default=None,
        description="Its client runs without a user: calls that lose data are not asked about, "
        "but wait for an administrator (approve), are refused (deny) or run (allow)",
    )
    destructive_per_day: Annotated[int | None, Option(clear="default")] = Field(
        default=None,
        ge=0,
        le=MOST_PER_DAY,
        description="Calls that lose data that it may send in a day (UTC), each guest of a call "
        "counted, in place of the setting; 0 refuses them all",
    )


class KeyChanges(Changes, KeyFields):
    """Changes to an API key; fields that are left out keep their values."""

    enabled: bool = Field(default=True, description="Whether the key is accepted")


class Keys:
    """API keys in the store; a change takes effect within a second in every process."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def all(self) -> list[KeyRecord]:
        """List all keys, without connections of people."""
        return await self._store.keys.all(person=None)

    async def get(self, key_id: str) -> KeyRecord:
        """Return the key with this id or this name; raise UnknownName if there is none."""
        keys = self._store.keys
        record = await keys.find(id=key_id) or await keys.find(name=key_id)
        if record is None or record.person is not None:
            raise UnknownName("key", key_id, [key.name for key in await self.all()])
        return record

    async def callers(self) -> list[KeyRecord]:
        """List all callers: the keys, and the connections of users."""
        return await self._store.keys.all()

    async def caller(self, key_id: str) -> KeyRecord:
        """Return the key or the connection with this id; raise UnknownName if there is none."""
        record = await self._store.keys.find(id=key_id)
        return record if record is not None else await self.get(key_id)

    async def create(self, name: str, **fields: Any) -> tuple[KeyRecord, str]:
        """Create a key with the fields of KeyFields; return it and its secret.

        The secret is not stored: this is the only time that it is available.
        """
        values = validated(KeyFields, {"name": name, **fields}).model_dump()
        key_id = new_id()
        secret = new_secret(key_id)
        record = await self._store.keys.add(
            id=key_id,
            person=None,
            enabled=True,
            created=utc_now(),
            **self._digest(secret),
            **await self._columns(values),
        )
        return record, secret

    async def change(self, key: str | KeyRecord, /, **fields: Any) -> KeyRecord:
        """Change fields of KeyChanges; the others keep their values.

        A decision about a record holds for that record only: raise BadArgument when the key has
        changed since it was read.
        """
        key = await self.get(key) if isinstance(key, str) else key
        values = validated(KeyChanges, fields).values()
        return await self._update(key, await self._columns(values))

    async def regenerate(
        self, key: str | KeyRecord, *, latest: datetime | None = None
    ) -> tuple[KeyRecord, str]:
        """Replace the key's secret; the old one is refused at once.

        A key that expires later than `latest`, or never, expires then. Raise BadArgument as
        `change` does.
        """
        key = await self.get(key) if isinstance(key, str) else key
        secret = new_secret(key.id)
        columns = {**self._digest(secret), "regenerated": utc_now()}
        if latest and (key.expires is None or key.expires > latest):
            columns["expires"] = latest
        return await self._update(key, columns), secret

    async def remove(self, key_id: str) -> KeyRecord:
        """Remove the key and return its last record."""
        key = await self.get(key_id)
        await self._store.keys.remove(key.id)
        return key

    def _digest(self, secret: str) -> dict[str, Any]:
        pepper = self._store.vault.pepper
        return {"digest": digest_of(secret, pepper.material), "pepper": pepper.id}

    async def _update(self, key: KeyRecord, columns: Mapping[str, Any]) -> KeyRecord:
        record = await self._store.keys.change_as_read(key, **columns)
        if record is None:
            await self.get(key.id)  # raises UnknownName when it was removed
            raise BadArgument("key", "was changed at the same time; look at it and try again.")
        return record

    async def _columns(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values by column: the role by its id, the rest by its own name."""
        columns = dict(values)
        if "name" in columns and await self._store.keys.find(id=columns["name"]):
            # what names that key by its id would also seem to name this one
            raise BadArgument("name", "is the id of a key.")
        if "role" in columns:
            name = columns.pop("role")
            role = await self._store.roles.find(name=name)
            if role is None:
                raise UnknownName("role", name, [r.name for r in await self._store.roles.all()])
            columns["role_id"] = role.id
        return columns
