"""How things stand: clusters, endpoint, calls over time, what failed of late, and notices."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from proxmox_client import ProxmoxError
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.audit import AuditFilter, Entry, Outcome
from pvemcp_server.clusters import explain
from pvemcp_server.errors import CallError, UnknownName
from pvemcp_server.store.records import ClusterRecord, Notice

HEALTH_SECONDS: Final = 5
HOURS: Final = 24
FAILURES: Final = 8


@dataclass(frozen=True)
class Health:
    """A cluster as it answered now, with its default identity."""

    name: str
    description: str
    reachable: bool
    trouble: str = ""
    nodes_online: int = 0
    nodes_total: int = 0
    guests_running: int = 0
    guests_total: int = 0
    protected: bool = False


@dataclass(frozen=True)
class Bar:
    """The calls of one hour."""

    at: datetime
    calls: int
    failed: int


async def health(context: AdminContext) -> list[Health]:
    """Every cluster, asked at once; one that is silent delays nobody past its deadline."""
    records = await context.services.access.clusters.all()
    return list(await asyncio.gather(*(_health(context, one) for one in records)))


async def notices(context: AdminContext) -> list[Notice]:
    return await context.services.store.notices.open()


async def dismiss(context: AdminContext, notice: int) -> None:
    if not await context.services.store.notices.dismiss(notice):
        raise UnknownName("notice", notice, [one.id for one in await notices(context)])


async def recent_failures(context: AdminContext) -> list[Entry]:
    failed = [
        entry
        for outcome in (Outcome.ERROR, Outcome.REFUSED)
        for entry in await context.services.audit.find(AuditFilter(outcome=outcome), FAILURES)
    ]
    return sorted(failed, key=lambda entry: entry.seq, reverse=True)[:FAILURES]


async def calls_by_hour(context: AdminContext) -> list[Bar]:
    """The last day, an hour a bar, oldest first."""
    until = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    since = until - timedelta(hours=HOURS)
    counted = await context.services.audit.counts(since, until, 3600)
    bars = []
    for hour in range(HOURS):
        at = since + timedelta(hours=hour)
        calls = {outcome: count for begun, outcome, count in counted if begun == at}
        failed = sum(count for outcome, count in calls.items() if outcome != Outcome.OK)
        bars.append(Bar(at, sum(calls.values()), failed))
    return bars


async def _health(context: AdminContext, record: ClusterRecord) -> Health:
    try:
        async with asyncio.timeout(HEALTH_SECONDS):
            connection = await context.services.clusters.connection(record.name)
            seen = await connection.inventory.view()
    except (ProxmoxError, CallError, TimeoutError) as error:
        return Health(
            record.name, record.description, False, explain(error), protected=record.protected
        )
    return Health(
        name=record.name,
        description=record.description,
        reachable=not seen.stale,
        trouble=seen.stale,
        nodes_online=sum(node.status == "online" for node in seen.nodes),
        nodes_total=len(seen.nodes),
        guests_running=sum(guest.status == "running" for guest in seen.guests),
        guests_total=len(seen.guests),
        protected=record.protected,
    )
