"""The audit: found, exported, verified."""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pvemcp_server.admin.context import AdminContext
from pvemcp_server.audit import AuditFilter, Entry
from pvemcp_server.errors import Unrecorded
from pvemcp_server.store.audit_chain import Finding

Kinds = Literal["call", "intent", "refused", "admin", "retention", "break"]
Outcomes = Literal["ok", "error", "refused", "cancelled"]


def _in_utc(moment: datetime) -> datetime:
    """Browsers' fields of date and time name no zone: UTC is meant, as in all that we show."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_in_utc)]


class Search(BaseModel):
    """Which entries; what is left out does not matter."""

    model_config = ConfigDict(extra="forbid")

    since: Moment | None = Field(default=None, description="Not before this time")
    until: Moment | None = Field(default=None, description="Before this time")
    key: str | None = Field(default=None, description="Id of the key")
    tool: str | None = Field(default=None, description="Name of the tool, admin.… for changes")
    cluster: str | None = Field(default=None, description="Cluster that was asked")
    kind: Kinds | None = Field(default=None, description="call, intent (a write), refused, admin")
    outcome: Outcomes | None = Field(default=None, description="How it ended")
    address: str | None = Field(default=None, description="Where it came from")
    text: str | None = Field(default=None, description="In key name, tool, arguments or reason")
    before: int | None = Field(
        default=None, ge=0, le=2**53, description="Older than this entry's seq: the next page"
    )

    def filter(self) -> AuditFilter:
        """As the audit takes it."""
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        if "key" in given:
            given["key_id"] = given.pop("key")
        return AuditFilter(**given)


class Verified(BaseModel):
    """Whether the chain is as it was written, and where it is not."""

    whole: bool
    findings: list[dict[str, Any]]
    head: str = Field(description="End of the chain; noted elsewhere, it proves more next time")


async def find(context: AdminContext, search: Search, limit: int = 50) -> list[Entry]:
    """Entries, newest first; what has just happened is among them."""
    await _flush(context)
    return await context.services.audit.find(search.filter(), limit)


async def verify(context: AdminContext) -> Verified:
    """Every edit, deletion and reordering is found; nothing is, when the chain is whole."""
    await _flush(context)
    found: list[Finding] = await context.services.audit.verify()
    head = await context.services.audit.head()
    return Verified(whole=not found, findings=[asdict(one) for one in found], head=str(head))


async def _flush(context: AdminContext) -> None:
    """A database that cannot be written can still be read, and then somebody wants to look."""
    with suppress(Unrecorded):
        await context.services.audit.flush()


async def export(
    context: AdminContext, search: Search, kind: Literal["csv", "json"]
) -> AsyncIterator[str]:
    """All that match, as CSV or as one JSON object a line; that it is taken is on record first."""
    given = search.model_dump(mode="json", exclude_none=True)
    await context.recorded("audit.export", format=kind, **given)
    audit, which = context.services.audit, search.filter()
    return audit.export_csv(which) if kind == "csv" else audit.export_json(which)
