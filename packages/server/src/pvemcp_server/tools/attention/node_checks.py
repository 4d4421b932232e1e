"""Checks of clusters and their nodes: members, quorum, clocks, HA, Ceph and hardware."""

from collections.abc import Iterator, Sequence
from statistics import median_low
from typing import Final

from pvemcp_server import tables
from pvemcp_server.shown_names import LONGEST_VOLUME, listed_names, quoted, shown_name
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
    where,
)

_HEALTHY = ("PASSED", "OK", "UNKNOWN")  # verdicts of SMART; Proxmox writes them in both cases
_DAEMONS = ("pve-cluster", "pvedaemon", "pveproxy", "pvescheduler", "pvestatd")
"""Services that run on every node; others, such as corosync, do not have to."""

_FAILED_HA = ("error", "fence", "recovery")
_CEPH = {"HEALTH_ERR": Severity.CRITICAL, "HEALTH_WARN": Severity.WARNING}
_WORN_OUT: Final = 100  # percent of its rated life that a disk has used
_CHECKS: Final = 5  # of Ceph that are named


@check(
    Topic.NODES,
    reads.CLUSTERS,
    singular="cluster not reachable",
    plural="clusters not reachable",
    next_call=calls("ListClusters"),
)
def silent_clusters(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.CLUSTERS]:
        if not row.reachable:
            yield Item(Severity.CRITICAL, evidence.cluster, since=row.last_seen)


@check(
    Topic.NODES,
    reads.CLUSTERS,
    singular="cluster without quorum",
    plural="clusters without quorum",
    next_call=about_one(
        "GetClusterStatus", asks(tables.clusters, where("quorate", "=", value=False))
    ),
)
def clusters_without_quorum(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.CLUSTERS]:
        if row.quorate is False:
            yield Item(Severity.CRITICAL, evidence.cluster)


@check(
    Topic.NODES,
    reads.NODES,
    reads.LAST_SEEN,
    singular="node offline",
    plural="nodes offline",
    next_call=about_one("GetClusterStatus", asks(tables.nodes, where("status", "=", "offline"))),
)
def offline_nodes(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.NODES]:
        if row.status == "offline":
            seen = [m.latest_time for m in evidence[reads.LAST_SEEN] if m.node == row.node]
            yield Item(Severity.CRITICAL, row.node, since=max(filter(None, seen), default=None))


@check(
    Topic.NODES,
    reads.NODES,
    singular="node without statistics",
    plural="nodes without statistics",
    next_call=about_one("GetNodeStatus", asks(tables.nodes, where("status", "=", "unknown"))),
)
def nodes_without_statistics(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.NODES]:
        if row.status == "unknown":
            yield Item(Severity.WARNING, row.node, arguments={"node": row.node})


@check(
    Topic.NODES,
    reads.NODES,
    singular="node short of memory or root disk",
    plural="nodes short of memory or root disk",
    next_call=about_one(
        "GetNodeStatus",
        asks(
            tables.nodes,
            lambda limits: where("memory_usage_percentage", ">=", limits.attention_node_percent),
            lambda limits: where("disk_usage_percentage", ">=", limits.attention_node_percent),
            any_of=True,
        ),
    ),
)
def full_nodes(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.NODES]:
        uses = {"memory": row.memory_usage_percentage, "root disk": row.disk_usage_percentage}
        what, use = max(uses.items(), key=lambda pair: pair[1] or 0)
        if use is not None and use >= evidence.limits.attention_node_percent:
            yield Item(
                Severity.WARNING,
                row.node,
                figure=use,
                detail=f"{what} {use:g}%",
                arguments={"node": row.node},
            )


@check(
    Topic.NODES,
    reads.SERVICES,
    singular="service down",
    plural="services down",
    next_call=asks(
        tables.services,
        where("active_state", "=", "failed"),
        {"conditions": [where("service", "IN", _DAEMONS), where("running", "=", value=False)]},
        any_of=True,
    ),
)
def services_down(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.SERVICES]:
        if row.active_state == "failed" or (row.service in _DAEMONS and not row.running):
            yield Item(Severity.WARNING, f"{row.node} {row.service}", detail=shown_name(row.state))


@check(
    Topic.CLOCKS,
    reads.CLOCKS,
    singular="node with another time",
    plural="nodes with another time",
    next_call=asks(tables.clocks),
)
def skewed_clocks(evidence: Evidence) -> Iterator[Item]:
    rows = sorted(evidence[reads.CLOCKS], key=lambda row: row.offset)
    if not rows:
        return
    usual = next(r for r in rows if r.offset == median_low(row.offset for row in rows))
    for row in rows:
        skew = row.offset - usual.offset
        if (
            abs(skew) - row.uncertainty - usual.uncertainty
            > evidence.limits.attention_clock_seconds
        ):
            yield Item(Severity.WARNING, row.node, abs(skew), f"{skew:+.0f} s")


@check(
    Topic.HA,
    reads.HA_RESOURCES,
    singular="HA guest not in service",
    plural="HA guests not in service",
    next_call=asks(tables.ha_resources, where("state", "IN", _FAILED_HA)),
)
def failed_ha_resources(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.HA_RESOURCES]:
        if row.state in _FAILED_HA:
            yield Item(Severity.CRITICAL, row.sid, detail=shown_name(row.state))


@check(
    Topic.CEPH,
    reads.CEPH,
    singular="Ceph not healthy",
    plural="Ceph clusters not healthy",
    next_call=about_one("GetClusterStatus", asks(tables.ceph_health)),
)
def unhealthy_ceph(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.CEPH]:
        if severity := _CEPH.get(row.status):
            yield Item(severity, evidence.cluster, detail=_of_ceph(row.checks) or row.status)


def _of_ceph(checks: Sequence[str]) -> str:
    """Return the first checks of Ceph, in its words."""
    named = "; ".join(quoted(text[:LONGEST_VOLUME]) for text in checks[:_CHECKS])
    return f"{named} …" if len(checks) > _CHECKS else named


@check(
    Topic.DISKS,
    reads.DISKS,
    singular="disk failing",
    plural="disks failing",
    next_call=about_one(
        "ListNodeDisks",
        asks(
            tables.node_disks,
            where("health", "NOT IN", _HEALTHY),
            lambda limits: where("wearout", "<=", limits.attention_disk_life_percent),
            any_of=True,
        ),
    ),
)
def failing_disks(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.DISKS]:
        failing = bool(row.health) and row.health.upper() not in _HEALTHY
        worn = (
            row.wearout is not None and row.wearout <= evidence.limits.attention_disk_life_percent
        )
        facts = [shown_name(row.health or "")] if failing else []
        facts += [f"{row.wearout:g}% life left"] if worn else []
        if facts:
            severity = Severity.CRITICAL if failing else Severity.WARNING
            yield Item(
                severity,
                f"{row.node} {row.device}",
                figure=100 - (row.wearout or 0),
                detail=", ".join(facts),
                arguments={"node": row.node},
            )


@check(
    Topic.DISKS,
    reads.ZFS_POOLS,
    singular="ZFS pool not healthy",
    plural="ZFS pools not healthy",
    next_call=asks(tables.zfs_pools),
)
def degraded_pools(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.ZFS_POOLS]:
        if row.health != "ONLINE":
            yield Item(Severity.CRITICAL, f"{row.node} {row.name}", detail=shown_name(row.health))


@check(
    Topic.SMART,
    reads.SMART,
    singular="disk with errors in its SMART values",
    plural="disks with errors in their SMART values",
    next_call=calls("ExecuteQuery", query={"from": tables.smart.name}),
)
def disks_with_errors(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.SMART]:
        numbers = {
            "reallocated": row.reallocated_sectors,
            "pending": row.pending_sectors,
            "media errors": row.media_errors,
        }
        facts = [f"{name} {number}" for name, number in numbers.items() if number]
        facts += ["critical warning"] if row.critical_warning else []
        facts += [f"below threshold: {listed_names(row.failing)}"] if row.failing else []
        facts += ["worn out"] if (row.percentage_used or 0) >= _WORN_OUT else []
        if facts:
            figure = sum(filter(None, numbers.values()))
            yield Item(Severity.WARNING, f"{row.node} {row.device}", figure, ", ".join(facts))


@check(
    Topic.CERTIFICATES,
    reads.CERTIFICATES,
    singular="certificate ends",
    plural="certificates end",
    next_call=asks(
        tables.certificates, lambda limits: where("days_left", "<=", limits.attention_expiry_days)
    ),
)
def ending_certificates(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.CERTIFICATES]:
        if row.days_left is not None and row.days_left <= evidence.limits.attention_expiry_days:
            severity = Severity.CRITICAL if row.days_left <= 7 else Severity.WARNING
            yield Item(severity, f"{row.node} {row.filename}", -row.days_left, _end(row.not_after))


@check(
    Topic.SUBSCRIPTIONS,
    reads.SUBSCRIPTIONS,
    singular="subscription ends or is not valid",
    plural="subscriptions end or are not valid",
    next_call=asks(
        tables.subscriptions,
        where("status", "IN", ("invalid", "expired", "suspended")),
        lambda limits: where("days_left", "<=", limits.attention_expiry_days),
        any_of=True,
    ),
)
def ending_subscriptions(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.SUBSCRIPTIONS]:
        if row.status in ("invalid", "expired", "suspended"):
            yield Item(Severity.WARNING, row.node, 0, row.status)
        elif row.days_left is not None and row.days_left <= evidence.limits.attention_expiry_days:
            yield Item(Severity.WARNING, row.node, -row.days_left, _end(row.next_due))


@check(
    Topic.UPDATES,
    reads.VERSIONS,
    singular="node needs a reboot",
    plural="nodes need a reboot",
    next_call=about_one(
        "GetNodeStatus", asks(tables.node_versions, where("reboot_needed", "=", value=True))
    ),
)
def nodes_to_reboot(evidence: Evidence) -> Iterator[Item]:
    for row in evidence[reads.VERSIONS]:
        if row.reboot_needed:
            yield Item(Severity.NOTICE, row.node, arguments={"node": row.node})


@check(
    Topic.UPDATES,
    reads.VERSIONS,
    singular="node of another version",
    plural="nodes of different versions",
    next_call=asks(tables.node_versions),
)
def different_versions(evidence: Evidence) -> Iterator[Item]:
    rows = [row for row in evidence[reads.VERSIONS] if row.pve_version]
    if len({row.pve_version for row in rows}) > 1:
        for row in rows:
            yield Item(Severity.NOTICE, row.node, detail=row.pve_version)


@check(
    Topic.UPDATES,
    reads.UPDATES,
    singular="update pending",
    plural="updates pending",
    next_call=asks(tables.updates),
)
def pending_updates(evidence: Evidence) -> Iterator[Item]:
    by_node: dict[str, int] = {}
    for row in evidence[reads.UPDATES]:
        by_node[row.node] = by_node.get(row.node, 0) + 1
    for node, number in by_node.items():
        yield Item(Severity.NOTICE, node, number, str(number), number=number)


def _end(time: object) -> str:
    return f"{time:%Y-%m-%d}"
