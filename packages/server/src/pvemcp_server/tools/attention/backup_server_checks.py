"""Checks of Proxmox Backup Servers: room, jobs, and whether backups can be trusted."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from pvemcp_server import tables
from pvemcp_server.shown_names import shown_name
from pvemcp_server.tools.attention import reads
from pvemcp_server.tools.attention.model import (
    Evidence,
    Item,
    Severity,
    Topic,
    asks,
    check,
    where,
)
from pvemcp_server.tools.attention.space import full_soon, nearly_full

_DAY: Final = 86_400
_FAILED: Final = "failed"


@check(
    Topic.STORAGES,
    reads.DATASTORES,
    singular="datastore nearly full",
    plural="datastores nearly full",
    next_call=asks(
        tables.pbs_datastores,
        lambda limits: where("disk_usage_percentage", ">=", limits.attention_storage_percent),
    ),
)
def full_datastores(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.DATASTORES]:
        yield from nearly_full(evidence, row.datastore, row.disk_usage_percentage)


@check(
    Topic.STORAGES,
    reads.DATASTORES,
    singular="datastore full soon",
    plural="datastores full soon",
    next_call=asks(
        tables.pbs_datastores,
        lambda limits: where("full_on", "<=", f"+{limits.attention_storage_days}d"),
    ),
)
def filling_datastores(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.DATASTORES]:
        yield from full_soon(evidence, row.datastore, row.full_on)


@check(
    Topic.STORAGES,
    reads.DATASTORES,
    singular="datastore not readable",
    plural="datastores not readable",
    next_call=asks(tables.pbs_datastores, where("error", "IS NOT NULL")),
)
def unreadable_datastores(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.DATASTORES]:
        if row.error:
            yield Item(Severity.WARNING, row.datastore)


@check(
    Topic.BACKUPS,
    reads.SERVER_JOBS,
    singular="backup server job failed",
    plural="backup server jobs failed",
    next_call=asks(tables.pbs_jobs, where("last_run_ok", "=", value=False)),
)
def failed_server_jobs(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.SERVER_JOBS]:
        if row.last_run_ok is False:
            name = f"{row.type} {row.id}"
            yield Item(
                Severity.WARNING, name, 0, f"({shown_name(row.last_run_status)})", row.last_run
            )


@check(
    Topic.BACKUPS,
    reads.SERVER_SNAPSHOTS,
    singular="backup that fails its verification",
    plural="backups that fail their verification",
    next_call=asks(tables.pbs_snapshots, where("verification", "=", _FAILED)),
)
def corrupt_backups(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.SERVER_SNAPSHOTS]:
        if row.verification == _FAILED:
            made = f"of {row.backup_time:%Y-%m-%d}" if row.backup_time else ""
            name = f"{row.backup_type}/{row.backup_id}"
            yield Item(Severity.WARNING, name, 0, made, row.verification_time)


@check(
    Topic.BACKUPS,
    reads.SERVER_SNAPSHOTS,
    singular="backup long not verified",
    plural="backups long not verified",
    next_call=asks(
        tables.pbs_snapshots,
        lambda limits: where("verification_age", ">", limits.attention_verified_days * _DAY),
    ),
)
def unverified_backups(evidence: Evidence) -> Iterator[Item]:
    """Count, by datastore, the backups whose verification is too old or missing."""
    ages = defaultdict(list)
    for row in evidence[reads.SERVER_SNAPSHOTS]:
        if (row.verification_age or 0) > evidence.limits.attention_verified_days * _DAY:
            ages[row.datastore].append(row.verification_age)
    for store, old in ages.items():
        number = len(old)
        oldest = evidence.before(seconds=max(old))
        yield Item(Severity.NOTICE, store, number, f"{number}", oldest, number)
