"""Checks of guests and storages: room, backups, replication, tasks, snapshots, agents."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pvemcp_server import tables
from pvemcp_server.settings import Values
from pvemcp_server.shown_names import shown_name
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.room import capacity_without
from pvemcp_server.tools.attention import reads
from pvemcp_server.tools.attention.model import (
    Evidence,
    Item,
    Severity,
    Topic,
    about_one,
    asks,
    calls,
    check,
    query_of,
    where,
)
from pvemcp_server.tools.attention.space import full_soon, nearly_full

_DAY: Final = 86_400
_GIB: Final = 2**30
_SILENT: Final = "agent is not running"  # in Proxmox's words
_NOT_A_TEMPLATE = where("is_template", "=", value=False)


@check(
    Topic.STORAGES,
    reads.STORAGES,
    reads.NODES,
    singular="storage not available",
    plural="storages not available",
    next_call=asks(tables.storages, where("is_available", "=", value=False)),
)
def unavailable_storages(evidence: Evidence) -> Iterator[Item]:
    online = {row.node for row in evidence[reads.NODES] if row.status == "online"}
    for row in evidence[reads.STORAGES]:
        if not row.is_available and row.node in online:
            yield Item(Severity.WARNING, f"{row.node} {row.storage}")


@check(
    Topic.STORAGES,
    reads.STORAGES,
    singular="storage nearly full",
    plural="storages nearly full",
    next_call=asks(
        tables.storages,
        lambda limits: where("disk_usage_percentage", ">=", limits.attention_storage_percent),
    ),
)
def full_storages(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.STORAGES]:
        if row.is_primary:
            yield from nearly_full(evidence, _place(row), row.disk_usage_percentage)


@check(
    Topic.STORAGES,
    reads.GROWTH,
    singular="storage full soon",
    plural="storages full soon",
    next_call=asks(
        tables.storage_metrics,
        lambda limits: where("full_on", "<=", f"+{limits.attention_storage_days}d"),
    ),
)
def filling_storages(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.GROWTH]:
        yield from full_soon(evidence, _place(row), row.full_on)


def _place(row: Any) -> str:
    return row.storage if row.shared else f"{row.node} {row.storage}"


def _of_running_guests(field: str) -> Any:
    """Return a query for the sum of a field over the running guests of each node."""
    query = {
        "from": tables.guests.name,
        "select": ["cluster", "node", f"SUM({field})"],
        "where": {"conditions": [where("status", "=", "running")]},
        "groupBy": ["cluster", "node"],
    }
    return calls("ExecuteQuery", query=query)


def _overcommit(evidence: Evidence, part: str, whole: str, limit: int) -> Iterator[Item]:
    """Yield the nodes whose running guests may use more than `limit` percent of it."""
    sums: Counter[str] = Counter()
    for guest in evidence[reads.GUESTS]:
        if guest.status == "running":
            sums[guest.node] += getattr(guest, part) or 0
    for node in evidence[reads.NODES]:
        total = getattr(node, whole)
        if total and (use := sums[node.node] / total * 100) > limit:
            yield Item(Severity.WARNING, node.node, use, f"{use:.0f}%")


@check(
    Topic.CAPACITY,
    reads.NODES,
    reads.GUESTS,
    singular="node with memory overcommitted",
    plural="nodes with memory overcommitted",
    next_call=_of_running_guests("memory_max"),
)
def overcommitted_memory(evidence: Evidence) -> Iterator[Item]:
    limit = evidence.limits.attention_memory_overcommit_percent
    yield from _overcommit(evidence, "memory_max", "memory_total", limit)


@check(
    Topic.CAPACITY,
    reads.NODES,
    reads.GUESTS,
    singular="node with CPU overcommitted",
    plural="nodes with CPU overcommitted",
    next_call=_of_running_guests("cpu_count"),
)
def overcommitted_cpu(evidence: Evidence) -> Iterator[Item]:
    limit = evidence.limits.attention_cpu_overcommit_percent
    yield from _overcommit(evidence, "cpu_count", "cpu_total", limit)


@check(
    Topic.CAPACITY,
    reads.NODES,
    singular="cluster without room for the memory of a lost node",
    plural="clusters without room for the memory of a lost node",
    next_call=calls("ListNodes"),
    of_whole_cluster=True,
)
def no_room_for_a_lost_node(evidence: Evidence) -> Iterator[Item]:
    """Compare what the largest node has in use with what is free on the others.

    If there is room for it, there is room for any other node.
    """
    nodes = [
        row for row in evidence[reads.NODES] if row.memory_total and row.memory_usage is not None
    ]
    if len(nodes) < 2:
        return
    lost = max(nodes, key=lambda row: row.memory_total).node
    capacity = capacity_without(nodes, lost)
    if capacity and not capacity.suffices:
        used, left = capacity.used / _GIB, capacity.free / _GIB
        detail = f"{lost} uses {used:.0f} GiB, the others have {left:.0f} GiB free"
        yield Item(Severity.WARNING, evidence.cluster, used - left, detail)


@check(
    Topic.BACKUPS,
    reads.BACKUP_JOBS,
    singular="failed backup job",
    plural="failed backup jobs",
    next_call=about_one(
        "ListBackupJobs",
        asks(tables.backup_jobs, where("last_run_ok", "=", value=False)),
    ),
)
def failed_backup_jobs(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.BACKUP_JOBS]:
        if row.last_run_ok is False:
            status = shown_name(row.last_run_status or "")
            yield Item(Severity.WARNING, row.id, detail=status, since=row.last_run)


@check(
    Topic.BACKUPS,
    reads.COVERAGE,
    singular="guest without a backup",
    plural="guests without a backup",
    next_call=about_one(
        "ListBackups", asks(tables.backup_coverage, where("backups", "=", 0), _NOT_A_TEMPLATE)
    ),
    of_absence=True,
)
def guests_without_backup(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.COVERAGE]:
        if not row.is_template and not row.backups:
            yield Item(Severity.WARNING, _guest(row), arguments={"vmid": row.vmid})


@check(
    Topic.BACKUPS,
    reads.COVERAGE,
    singular="guest without a recent backup",
    plural="guests without a recent backup",
    next_call=about_one(
        "ListBackups",
        asks(
            tables.backup_coverage,
            lambda limits: where("last_backup_age", ">", limits.attention_backup_days * _DAY),
            _NOT_A_TEMPLATE,
        ),
    ),
    of_absence=True,
)
def guests_with_old_backups(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.COVERAGE]:
        age = row.last_backup_age
        if not row.is_template and (age or 0) > evidence.limits.attention_backup_days * _DAY:
            yield Item(
                Severity.WARNING,
                _guest(row),
                figure=age,
                detail=_days(age),
                since=row.last_backup,
                arguments={"vmid": row.vmid},
            )


def _unverified(limits: Values, items: Sequence[Item]) -> NextCall:
    """Return the query for guests whose newest backup is on a storage that verifies backups."""
    storages = tuple(sorted({item.detail for item in items}))
    age = where("last_verified_backup_age", ">", limits.attention_verified_days * _DAY)
    return query_of(
        tables.backup_coverage,
        where("last_backup_storage", "IN", storages),
        _NOT_A_TEMPLATE,
        {"logic": "or", "conditions": [where("last_verified_backup", "IS NULL"), age]},
    )


@check(
    Topic.BACKUPS,
    reads.COVERAGE,
    reads.STORAGES,
    singular="guest without a recently verified backup",
    plural="guests without a recently verified backup",
    next_call=_unverified,
    of_absence=True,
)
def guests_without_verified_backup(evidence: Evidence) -> Iterator[Item]:
    """Look at guests whose newest backup is on a Backup Server: nothing else verifies."""
    servers = {row.storage for row in evidence[reads.STORAGES] if row.type == "pbs"}
    for row in evidence[reads.COVERAGE]:
        age = row.last_verified_backup_age
        recent = age is not None and age <= evidence.limits.attention_verified_days * _DAY
        if row.last_backup_storage in servers and not row.is_template and not recent:
            storage = row.last_backup_storage
            since = row.last_verified_backup
            yield Item(Severity.NOTICE, _guest(row), age or 0, storage, since)


@check(
    Topic.REPLICATION,
    reads.REPLICATIONS,
    singular="replication failing",
    plural="replications failing",
    next_call=about_one("ListReplications", asks(tables.replications, where("fail_count", ">", 0))),
)
def failing_replications(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.REPLICATIONS]:
        if row.fail_count:
            detail = f"{row.fail_count}×"
            yield Item(Severity.WARNING, row.id, row.fail_count, detail, row.last_sync)


@check(
    Topic.REPLICATION,
    reads.REPLICATIONS,
    singular="replication behind",
    plural="replications behind",
    next_call=about_one(
        "ListReplications",
        asks(
            tables.replications,
            lambda limits: where("next_sync", "<", f"-{limits.attention_replication_minutes}m"),
        ),
    ),
)
def late_replications(evidence: Evidence) -> Iterator[Item]:
    due = evidence.before(minutes=evidence.limits.attention_replication_minutes)
    for row in evidence[reads.REPLICATIONS]:
        if row.next_sync is not None and row.next_sync < due:
            late = (evidence.now - row.next_sync).total_seconds()
            detail = f"due {_days(late)} ago"
            yield Item(Severity.WARNING, row.id, late, detail, row.last_sync)


def _failed_tasks(limits: Values, _items: Sequence[Item]) -> NextCall:
    since = f"-{limits.attention_task_hours}h"
    return NextCall("ListTasks", {"status": "error", "since": since})


@check(
    Topic.TASKS,
    reads.TASKS,
    singular="failed task",
    plural="failed tasks",
    next_call=_failed_tasks,
)
def failed_tasks(evidence: Evidence) -> Iterator[Item]:
    since = evidence.before(hours=evidence.limits.attention_task_hours)
    failed = [
        row
        for row in evidence[reads.TASKS]
        if row.outcome == "error" and row.start_time is not None and row.start_time >= since
    ]
    for kind, number in Counter(row.type for row in failed).items():
        detail = str(number) if number > 1 else ""
        yield Item(Severity.WARNING, kind, number, detail, number=number)


@check(
    Topic.SNAPSHOTS,
    reads.SNAPSHOTS,
    singular="unfinished snapshot",
    plural="unfinished snapshots",
    next_call=about_one("ListSnapshots", asks(tables.snapshots, where("state", "IS NOT NULL"))),
)
def incomplete_snapshots(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.SNAPSHOTS]:
        if row.state:
            yield Item(
                Severity.WARNING,
                f"{row.vmid} {row.name}",
                detail=shown_name(row.state),
                since=row.date,
                arguments={"vmids": [row.vmid]},
            )


@check(
    Topic.SNAPSHOTS,
    reads.SNAPSHOTS,
    singular="old snapshot",
    plural="old snapshots",
    next_call=asks(
        tables.snapshots, lambda limits: where("date", "<", f"-{limits.attention_snapshot_days}d")
    ),
)
def old_snapshots(evidence: Evidence) -> Iterator[Item]:
    end = evidence.before(days=evidence.limits.attention_snapshot_days)
    for row in evidence[reads.SNAPSHOTS]:
        if row.date is not None and row.date < end:
            age = (evidence.now - row.date).total_seconds()
            yield Item(Severity.NOTICE, f"{row.vmid} {row.name}", age, _days(age), row.date)


@check(
    Topic.AGENTS,
    reads.ADDRESSES,
    singular="guest whose agent is silent",
    plural="guests whose agents are silent",
    next_call=asks(tables.addresses, where("problem", "CONTAINS", _SILENT)),
)
def silent_agents(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.ADDRESSES]:
        if row.problem and _SILENT in row.problem:
            yield Item(Severity.NOTICE, _guest(row))


def _guest(row: Any) -> str:
    return f"{row.vmid} {row.vm_name}".strip()


def _days(seconds: float) -> str:
    """Return a span of time in its largest unit: 12 d, 3 h."""
    days, hours = seconds / _DAY, seconds / 3600
    return f"{days:.0f} d" if days >= 2 else f"{hours:.0f} h"
