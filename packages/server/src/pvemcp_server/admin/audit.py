"""The audit: search, export, verification, and counts of calls."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from pvemcp_server.access.fields import Fields, Option
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Command, Result, Route, Subject
from pvemcp_server.admin.permission import AUDITORS
from pvemcp_server.audit import AuditFilter, Count, Entry, Outcome, Progress, progress_of
from pvemcp_server.errors import Unrecorded
from pvemcp_server.query.values import FIRST_TIME, LAST_TIME, time_of
from pvemcp_server.store.audit_chain import Finding

subject = Subject("Audit", {"audit": "Search, export and verify the audit."})
overview = Subject("Overview")
HOURS: Final = 24
FAILURES: Final = 8
FAILED: Final = (Outcome.ERROR, Outcome.CANCELLED)
REFUSED: Final = (Outcome.REFUSED, Outcome.DECLINED, Outcome.NO_ANSWER)
EARLIEST: Final = datetime(2000, 1, 2, tzinfo=UTC)  # of charts: no entry is older
MOST_BARS: Final = 60
SPANS: Final = (60, 300, 900, 3_600, 10_800, 21_600, 86_400, 604_800)  # seconds of a bar
Kinds = Literal["call", "intent", "decision", "refused", "admin", "retention", "break"]
Outcomes = Literal[
    "ok",
    "error",
    "refused",
    "cancelled",
    "accepted",
    "declined",
    "no answer",
    "waiting",
    "used",
    "unknown",
]


def _in_utc(moment: datetime) -> datetime:
    """Return the time in UTC, also if it has no zone: date fields of browsers have none."""
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:  # the first or last day of the calendar
        return moment.replace(tzinfo=UTC)


def _parse_time(value: object) -> object:
    """Parse a time in ISO 8601, or as queries take it: 24h, yesterday, 28.11.2026."""
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        seconds = time_of(value, datetime.now(UTC))
    if seconds is None:
        return value
    return datetime.fromtimestamp(min(max(FIRST_TIME, seconds), LAST_TIME), UTC)


Time = Annotated[datetime, AfterValidator(_in_utc), BeforeValidator(_parse_time)]


class Search(Fields):
    """Conditions for entries; a condition that is left out matches every entry."""

    since: Annotated[Time | None, Option(metavar="TIME")] = Field(
        default=None,
        description="Not before this time: 2026-11-22, 2026-11-22T08:00:00, 24h, yesterday; UTC",
    )
    until: Annotated[Time | None, Option(metavar="TIME")] = Field(
        default=None, description="Before this time"
    )
    key: str | None = Field(default=None, description="Id of the key or connection")
    tool: str | None = Field(default=None, description="Name of the tool, admin.… for changes")
    cluster: str | None = Field(default=None, description="Cluster that was called")
    guest: int | None = Field(
        default=None, ge=1, le=2**31, description="VMID of a guest that the arguments name"
    )
    kind: Kinds | None = Field(
        default=None,
        description="call, intent (a write), decision (a confirmation), refused, admin (a change), "
        "retention or break",
    )
    outcome: Outcomes | None = Field(
        default=None,
        description="ok, error, refused, cancelled, waiting (for an approval) or unknown (a write "
        "that runs, or whose server was killed); a decision: accepted, declined, no answer, "
        "waiting or used",
    )
    address: str | None = Field(default=None, description="Address of the client")
    text: str | None = Field(
        default=None,
        description="In key name, acting administrator, tool, arguments or reason; or a call_id of "
        "the log",
    )
    before: int | None = Field(
        default=None, ge=0, le=2**53, description="Older than the entry with this seq: next page"
    )

    def filter(self) -> AuditFilter:
        """Return the conditions in the audit's own form."""
        values = self.model_dump(exclude_none=True, exclude={"limit"})
        if "key" in values:
            values["key_id"] = values.pop("key")
        return AuditFilter(**values)


class SearchPage(Search):
    """A page of the entries that match."""

    limit: int = Field(
        default=50,
        ge=1,
        le=1_000,
        description="Most entries on the page; it has fewer where entries are long",
    )


@dataclass(frozen=True)
class Bar:
    """The calls of one hour; `failed` counts those that failed or were refused."""

    at: datetime
    calls: int
    failed: int
    refused: int  # of those that failed


@dataclass(frozen=True)
class ToolUse:
    """The calls of one tool; `failed` counts those that failed or were refused."""

    tool: str
    calls: int
    failed: int
    refused: int  # of those that failed


@dataclass(frozen=True)
class Usage:
    """The calls of the last day, by hour and by tool."""

    bars: list[Bar]
    tools: list[ToolUse]


@dataclass(frozen=True)
class Chart:
    """Entries by spans of time, oldest first; each bar covers `seconds`."""

    bars: list[Bar]
    seconds: int


class Verified(BaseModel):
    """Whether the chain is unchanged since it was written, and where it is not."""

    whole: bool
    findings: list[dict[str, Any]]
    head: str = Field(
        description="End of the chain. Compare it with a copy kept elsewhere to detect a rewrite"
    )


def _verified_text(result: Result) -> str:
    verified: Verified = result.answer
    facts = [f"Row {finding['seq']}: {finding['fact']}" for finding in verified.findings]
    return "\n".join([*(facts or ["The chain is whole."]), f"Its head: {verified.head}"])


@subject.operation(
    "audit.list",
    Route("GET", "/audit"),
    Command(
        "audit list",
        columns=(
            *("seq", "at", "tool", "outcome", "key_name", "cluster"),
            *("acting", "rows", "duration_ms", "reason"),
        ),
    ),
    may=AUDITORS,
)
async def find_entries(context: AdminContext, search: SearchPage) -> list[Entry]:
    """List entries, newest first; `before` is the last entry's seq for the next page.

    A page without entries is the last one.
    """
    await _flush(context)
    async with turn_of_read(context):
        return await context.services.audit.find(search.filter(), search.limit)


@subject.operation(
    "audit.export",
    Command("audit export", omit=("before",)),
    elsewhere="the route of web/api/audit.py",
    may=AUDITORS,
)
async def export(
    context: AdminContext,
    search: Search,
    kind: Annotated[
        Literal["csv", "json"],
        Field(description="csv, or json: one object a line"),
        Option("--format"),
    ] = "csv",
) -> AsyncIterator[str]:
    """Export all entries that match, as CSV or as one JSON object a line.

    The export is recorded before its first line.
    """
    turns = context.services.access.audit_reads
    turns.check(context.by)
    conditions = search.model_dump(mode="json", exclude_none=True)
    await context.recorded("audit.export", format=kind, **conditions)
    audit = context.services.audit
    export_lines = audit.export_csv if kind == "csv" else audit.export_json
    return export_lines(search.filter(), partial(turns.further_turn, context.by))


@subject.operation(
    "audit.verify",
    Route("POST", "/audit/verify"),
    Command(
        "audit verify",
        text=_verified_text,
        help="Check the chain for edits, deletions and reordering; exits with 1 if there are any.",
        failed=lambda verified: not verified.whole,
    ),
    may=AUDITORS,
)
async def verify(context: AdminContext) -> Verified:
    """Check the chain for edits, deletions and reordering."""
    await _flush(context)
    async with context.services.access.verifications.turn(context.by):
        findings: list[Finding] = await context.services.audit.verify()
        head = await context.services.audit.head()
    return Verified(
        whole=not findings, findings=[asdict(finding) for finding in findings], head=str(head)
    )


@subject.operation(
    "audit.forwarding",
    Route("GET", "/audit/forwarding"),
    Command(
        "audit forwarding",
        columns=("target", "address", "waiting", "oldest", "delivered", "error"),
        help="Show how far syslog and the file have got; exits with 1 when one fails.",
        failed=lambda targets: any(target.error for target in targets),
    ),
    may=AUDITORS,
)
async def forwarding(context: AdminContext) -> list[Progress]:
    """List the receivers that the audit is forwarded to, and how far each has got."""
    return await forwarded(context)


async def forwarded(context: AdminContext) -> list[Progress]:
    """Return the progress of each receiver, for operations with permissions of their own."""
    await _flush(context)
    await context.services.settings.current()
    return await progress_of(context.services.store, context.services.audit_receivers())


@overview.operation(
    "overview.calls",
    Route("GET", "/overview/calls"),
    Command("audit calls", columns=("at", "calls", "failed", "refused")),
    may=AUDITORS,
)
async def calls_by_hour(context: AdminContext) -> list[Bar]:
    """Count the calls of the last day by hour, oldest first, and how many of them failed."""
    return (await usage(context)).bars


@overview.operation(
    "overview.tools",
    Route("GET", "/overview/tools"),
    Command("audit tools", columns=("tool", "calls", "failed", "refused")),
    may=AUDITORS,
)
async def calls_by_tool(context: AdminContext) -> list[ToolUse]:
    """Count the calls of the last day by tool, most used first, and how many of them failed."""
    return (await usage(context)).tools


async def usage(context: AdminContext) -> Usage:
    """Count the calls of the last day, for operations with permissions of their own."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    since = hour - timedelta(hours=HOURS - 1)
    async with turn_of_read(context):
        counts = await context.services.audit.counts(AuditFilter(calls=True), since, 3600)
    by_tool: dict[str, list[Count]] = {}
    for count in counts:
        by_tool.setdefault(count.tool or "–", []).append(count)
    tools = [ToolUse(tool, *_sums(some)) for tool, some in by_tool.items()]
    tools.sort(key=lambda tool: (-tool.calls, tool.tool))
    return Usage(_bars(counts, since, 3600, HOURS), tools)


@subject.operation(
    "audit.chart",
    elsewhere="the page Audit; audit calls counts those of the last day",
    may=AUDITORS,
)
async def chart(context: AdminContext, search: Search) -> Chart:
    """Count the entries that match by spans of time: those of the last day without `since`."""
    await _flush(context)
    now = datetime.now(UTC)
    until = max(EARLIEST, min(search.until or now, now))
    since = search.since or until - timedelta(hours=HOURS)
    whole = (until - since).total_seconds()
    seconds = next((span for span in SPANS if whole <= span * MOST_BARS + 60), SPANS[-1])
    last = int(until.timestamp()) // seconds * seconds
    number = max(1, min(MOST_BARS + 2, last // seconds - int(since.timestamp()) // seconds + 1))
    first = datetime.fromtimestamp(last - (number - 1) * seconds, UTC)
    async with turn_of_read(context):
        counts = await context.services.audit.counts(search.filter(), first, seconds)
    return Chart(_bars(counts, first, seconds, number), seconds)


def _bars(counts: Iterable[Count], since: datetime, seconds: int, number: int) -> list[Bar]:
    by_span: dict[datetime, list[Count]] = {}
    for count in counts:
        by_span.setdefault(count.at, []).append(count)
    starts = (since + timedelta(seconds=seconds * index) for index in range(number))
    return [Bar(start, *_sums(by_span.get(start, ()))) for start in starts]


def _sums(counts: Iterable[Count]) -> tuple[int, int, int]:
    """Return how many entries there are, failed or were refused, and were refused."""
    by_outcome: Counter[str | None] = Counter()
    for count in counts:
        by_outcome[count.outcome] += count.entries
    refused = sum(by_outcome[outcome] for outcome in REFUSED)
    return by_outcome.total(), refused + sum(by_outcome[outcome] for outcome in FAILED), refused


@overview.operation(
    "overview.failures",
    elsewhere="the command audit list --outcome error, or refused; the route GET /audit",
    may=AUDITORS,
)
async def recent_failures(context: AdminContext) -> list[Entry]:
    """List the last calls that failed or were refused, newest first."""
    failed: list[Entry] = []
    for outcome in (Outcome.ERROR, Outcome.REFUSED):
        async with turn_of_read(context):
            failed += await context.services.audit.find(AuditFilter(outcome=outcome), FAILURES)
    return sorted(failed, key=lambda entry: entry.seq, reverse=True)[:FAILURES]


def turn_of_read(context: AdminContext) -> AbstractAsyncContextManager[None]:
    """Return the turn of a read: an administrator who reads much must not stop the server."""
    return context.services.access.audit_reads.turn(context.by)


async def _flush(context: AdminContext) -> None:
    """Write pending entries. A database that only fails to write can still be searched."""
    with suppress(Unrecorded):
        await context.services.audit.flush()
