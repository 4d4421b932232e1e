"""The tool GetAttention: what needs attention now, over all clusters, the most urgent first."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Final

from pydantic import Field

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.clusters import Cluster, offload
from pvemcp_server.settings import Values
from pvemcp_server.shown_names import shown_phrase
from pvemcp_server.tables.registry import EVERY_KIND, MOST_CALLS, LoadRequest, load
from pvemcp_server.tables.rows import Col, Row, Unit
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ClusterName
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import with_budget
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.registry import Rows, tool, tools
from pvemcp_server.tools.attention import (  # noqa: F401 - declares checks
    backup_server_checks,
    guest_checks,
    node_checks,
)
from pvemcp_server.tools.attention.evidence import Reader
from pvemcp_server.tools.attention.model import (
    ON_REQUEST,
    Check,
    Evidence,
    Item,
    Severity,
    Topic,
    checks,
)

_MOST_CALLS: Final = 2 * MOST_CALLS  # for twenty tables, of which some take a call per storage
_NAMED: Final = 2  # things that a finding names
_RECENT: Final = timedelta(days=1)  # since then times have hours

Topics = Annotated[
    list[Topic] | None,
    Field(min_length=1, description="All but Smart and Agents (a call per disk or VM) if absent"),
]


class Finding(Row):
    """A kind of thing that needs attention, with the first of them."""

    minimal: ClassVar[tuple[str, ...]] = ("severity", "area", "finding", "since", "next")

    severity: Annotated[
        str, Col("critical, warning or notice", values=tuple(s.word for s in Severity))
    ]
    area: Annotated[str, Col("What it is about", values=tuple(Topic))]
    finding: Annotated[str, Col("How many, of what, and the first of them with their figures")]
    count: Annotated[int, Col("How many", Unit.COUNT)]
    since: Annotated[str | None, Col("Since when, of the oldest, where it is known (UTC)")]
    next: Annotated[str | None, Col("Tool and arguments that show all; null if not granted")]


@tool(
    "GetAttention",
    view="attention",
    title="What needs attention",
    area=Area.CLUSTER,
    effect=Effect.READ,
    answer=Finding,
    needs=(needs.CLUSTER, needs.GUESTS, needs.NODES, needs.STORAGES),
    kinds=EVERY_KIND,
)
async def get_attention(
    call: Call, *, cluster_name: ClusterName = None, areas: Topics = None
) -> Rows:
    """Find what needs attention now, ranked: failures, space, backups, updates, certificates."""
    clusters = await call.all_clusters(cluster_name)
    kinds = {cluster.kind for cluster in clusters}
    topics = areas or (topic for topic in Topic if topic not in ON_REQUEST)
    chosen = [each for each in checks(topics) if any(map(each.is_about, kinds))]
    now = datetime.now(UTC)
    request = with_budget(call, shared_by=clusters, most=_MOST_CALLS)

    async def read(cluster: Cluster) -> Evidence:
        named = frozenset(areas or ())
        reader = Reader(cluster, call.caller, call.tool, call.settings, now, request, named)
        return await reader.evidence(chosen)

    answers = await call.each(clusters, read, request.budget.shares)
    every = [evidence for _, evidence in answers]
    several = cluster_name is None and len(await call.reachable()) > 1

    def found() -> list[tuple[Severity, Finding]]:
        return [
            _finding(call, each, severity, items, cluster_name)
            for each in chosen
            for severity, items in _by_severity(each, every, several=several)
        ]

    rows = sum(len(some) for evidence in every for some in evidence.rows.values())
    findings = sorted(await offload(rows, found), key=lambda pair: (pair[0], -pair[1].count))
    if clusters and not findings:
        seen = dict.fromkeys(each.topic for each in chosen)
        call.notes.add(
            f"Nothing found in what could be looked at: {', '.join(seen)}."
            if seen
            else "No area named is about a Proxmox Backup Server."
        )
    if areas is None:
        call.notes.add(f"Only looked at when named in areas: {', '.join(ON_REQUEST)}.")
    return Rows([finding for _, finding in findings], Finding.minimal)


async def inventory_findings(cluster: Cluster, limits: Values) -> list[tuple[Severity, str]]:
    """Return what needs attention as far as the inventory shows it, the most urgent first.

    It sends no request of its own: only checks of tables that are read from the inventory run. The
    findings are kept with the view that they are about.
    """
    view = await cluster.inventory_view()
    key = ("findings", limits)
    if key not in view.derived:
        every = (each for each in checks(Topic) if each.is_about(cluster.kind))
        chosen = [each for each in every if all(read.table.from_inventory for read in each.reads)]
        rows = {
            read: await load(read.table, cluster, LoadRequest(columns=frozenset(read.columns)))
            for read in dict.fromkeys(read for each in chosen for read in each.reads)
        }
        evidence = Evidence(cluster.name, limits, datetime.now(UTC), rows)
        view.derived[key] = await offload(
            len(view.guests), lambda: sorted(_in_words(evidence, chosen))
        )
    findings: list[tuple[Severity, str]] = view.derived[key]
    return findings


def _in_words(evidence: Evidence, chosen: Iterable[Check]) -> Iterator[tuple[Severity, str]]:
    """Yield what the checks find on a cluster, with its severity."""
    for each in chosen:
        for severity, items in _by_severity(each, [evidence], several=False):
            yield severity, f"{each.words(sum(item.number for item in items))}{_named(items)}"


def _by_severity(
    check: Check, every: Iterable[Evidence], *, several: bool
) -> list[tuple[Severity, list[Item]]]:
    """Return what a check finds on all clusters, by severity, the highest figure first."""
    items = [
        _seen(evidence, check, item, several=several)
        for evidence in every
        if evidence.has(check.reads)
        for item in check.find(evidence)
    ]
    items.sort(key=lambda item: -item.figure)
    by_severity = ((each, [item for item in items if item.severity is each]) for each in Severity)
    return [(severity, some) for severity, some in by_severity if some]


def _seen(evidence: Evidence, check: Check, item: Item, *, several: bool) -> Item:
    """Return the item with its cluster, where there are several, and how well it was seen."""
    partly = check.of_absence and not evidence.incomplete.isdisjoint(check.reads)
    item = replace(item, partly_seen=partly)
    if not several:
        return item
    arguments = {"cluster_name": evidence.cluster, **item.arguments}
    return replace(item, cluster=evidence.cluster, arguments=arguments)


def _finding(
    call: Call, check: Check, severity: Severity, items: Sequence[Item], cluster_name: str | None
) -> tuple[Severity, Finding]:
    number = sum(item.number for item in items)
    following = check.next(call.settings, items)
    called = tools()[following.tool]
    if cluster_name is not None and "cluster_name" in called.arguments.model_fields:
        arguments = {"cluster_name": cluster_name, **following.arguments}
        following = NextCall(following.tool, arguments)
    may_call = call.caller.may_call(called)
    return severity, Finding(
        severity=severity.word,
        area=check.topic,
        finding=f"{check.words(number)}{_named(items)}",
        count=number,
        since=_since(item.since for item in items),
        next=following.text if may_call else None,
    )


def _named(items: Sequence[Item]) -> str:
    """Return the first items in words; a cluster that all are on is named once."""
    partly = ", as far as seen" if any(item.partly_seen for item in items) else ""
    clusters = {item.cluster for item in items if item.name != item.cluster}
    place = f" on {min(clusters)}" if len(clusters) == 1 and min(clusters) else ""
    names = (
        f"{item.cluster}/{item.name}" if len(clusters) > 1 else item.name for item in items[:_NAMED]
    )
    texts = (
        f"{shown_phrase(name)} {item.detail}".strip()
        for name, item in zip(names, items, strict=False)
    )
    return f"{place}{partly}: {', '.join(texts)}{' …' if len(items) > _NAMED else ''}"


def _since(times: Iterable[datetime | None]) -> str | None:
    """Return the oldest time as short as it may be: with the time of day if it is recent."""
    oldest = min(filter(None, times), default=None)
    if oldest is None:
        return None
    recent = datetime.now(UTC) - oldest < _RECENT
    return f"{oldest:%Y-%m-%dT%H:%MZ}" if recent else f"{oldest:%Y-%m-%d}"
