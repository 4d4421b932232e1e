"""What speaks against taking a node away now, judged from the facts about it."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Final, NamedTuple

from pvemcp_server.errors import counted
from pvemcp_server.shown_names import LONGEST_VOLUME, listed_names, quoted, shown_name, shown_phrase
from pvemcp_server.tables import CephHealth
from pvemcp_server.tables.tasks import CONSOLES
from pvemcp_server.toolkit.room import capacity_without, readable
from pvemcp_server.tools.maintenance.facts import HA_MAINTENANCE, Facts, HighAvailability
from pvemcp_server.tools.maintenance.placement import Placement

_NAMED: Final = 3  # things that a finding names
_NEAR: Final = timedelta(hours=24)  # backup jobs that begin within it are named, until tonight
_SOON: Final = timedelta(hours=1)  # and those within it should be waited for
_FLAGS: Final = "OSDMAP_FLAGS"  # the check of Ceph that only says that flags are set


class Weight(IntEnum):
    """What a finding means for the verdict; the most severe comes first."""

    UNSAFE = 0
    UNKNOWN = 1
    PREPARE = 2
    FACT = 3


VERDICTS: Final = {
    Weight.UNSAFE: "unsafe",
    Weight.UNKNOWN: "unknown",
    Weight.PREPARE: "prepare",
    Weight.FACT: "safe",
}


class Finding(NamedTuple):
    """A sentence and its weight."""

    weight: Weight
    text: str


def findings(facts: Facts, placed: Sequence[Placement] | None) -> list[Finding]:
    """Return all findings, the most severe first."""
    found = [
        *_of_node(facts),
        *_of_quorum(facts),
        *_of_ceph(facts),
        *_of_tasks(facts),
        *_of_guests(facts, placed),
        *_of_ha(facts, placed or ()),
        *_of_room(facts, placed),
        *_of_backups(facts),
        *_of_replications(facts),
        *_of_storages(facts),
    ]
    return sorted(found, key=lambda finding: finding.weight)


def verdict(found: Sequence[Finding]) -> str:
    """Return the verdict of the most severe finding."""
    return VERDICTS[min((finding.weight for finding in found), default=Weight.FACT)]


def _of_node(facts: Facts) -> Iterator[Finding]:
    if facts.is_offline:
        yield Finding(
            Weight.UNKNOWN, "It is offline already: what ran there is down, and cannot be moved."
        )
    if not facts.is_complete:
        yield Finding(Weight.UNKNOWN, "A part could not be looked at: see the notes.")
    if not facts.covers_all:
        yield Finding(
            Weight.UNKNOWN,
            "The role of this key covers a part of the cluster: the rest was not looked at.",
        )


def _of_quorum(facts: Facts) -> Iterator[Finding]:
    quorum = facts.quorum
    if quorum is None:
        yield Finding(Weight.UNKNOWN, "Whether the cluster keeps its quorum is not known.")
    elif not quorum.total:
        return  # a node without a cluster
    elif not quorum.quorate:
        yield Finding(Weight.UNSAFE, "The cluster has no quorum now.")
    elif quorum.left < quorum.needed:
        yield Finding(
            Weight.UNSAFE,
            f"Quorum is lost without it: {quorum.left} of {quorum.total} votes are left, "
            f"{quorum.needed} are needed.",
        )
    else:
        last = ", so no other may fail" if quorum.left == quorum.needed else ""
        text = f"Quorum holds: {quorum.left} of {quorum.total} votes are left{last}."
        yield Finding(Weight.FACT, text)


def _of_ceph(facts: Facts) -> Iterator[Finding]:
    if not facts.has_ceph:
        return
    if facts.ceph is None:
        yield Finding(Weight.UNKNOWN, "Whether Ceph can do without it is not known.")
        return
    health = facts.ceph.health
    if health is None:
        yield Finding(Weight.FACT, "Ceph is not installed here: its storages are elsewhere.")
        return
    yield from _of_ceph_health(health, facts.node)
    if not facts.is_offline:
        yield from _of_osds(health, facts.ceph.osds)


def _of_ceph_health(health: CephHealth, node: str) -> Iterator[Finding]:
    if troubles := [check for check in health.checks if not check.startswith(_FLAGS)]:
        named = _listed([quoted(each[:LONGEST_VOLUME]) for each in troubles])
        yield Finding(Weight.UNSAFE, f"Ceph is not healthy: {named}.")
    monitors = health.monitors
    if node in monitors and 2 * (len(monitors) - 1) <= len(monitors):
        text = f"Ceph loses its quorum: it has {counted(len(monitors), 'monitor')}, one there."
        yield Finding(Weight.UNSAFE, text)


def _of_osds(health: CephHealth, osds: int | None) -> Iterator[Finding]:
    if osds is None:
        yield Finding(Weight.UNKNOWN, "Which OSDs of Ceph are there is not known.")
    elif osds:
        there = f"OSDs of Ceph there: {osds}"
        if any("noout" in check for check in (*health.checks, *health.muted)):
            yield Finding(Weight.FACT, f"{there}; noout is set.")
        else:
            yield Finding(Weight.PREPARE, f"{there}; run `ceph osd set noout` first.")


def _of_tasks(facts: Facts) -> Iterator[Finding]:
    if facts.tasks is None:
        if not facts.is_offline:
            yield Finding(Weight.UNKNOWN, "Which tasks run there is not known.")
        return
    tasks = [row for row in facts.tasks if row.type not in CONSOLES]
    if names := [shown_phrase(f"{row.type} {row.id or ''}".strip()) for row in tasks]:
        number = counted(len(names), "running task")
        yield Finding(Weight.PREPARE, f"{number} would be cut off: {_listed(names)}.")


def _of_guests(facts: Facts, placed: Sequence[Placement] | None) -> Iterator[Finding]:
    if facts.guests is None:
        yield Finding(Weight.UNKNOWN, "What runs there is not known.")
        return
    rows = [row for row in facts.guests if not row.is_template]
    running = sum(row.status == "running" for row in rows)
    if unknown := sum(row.status == "unknown" for row in rows):
        asks = "" if facts.is_offline else "; GetVmStatus asks the node"
        text = f"The state of {counted(unknown, 'guest')} is unknown{asks}."
        yield Finding(Weight.UNKNOWN, text)
    if facts.is_offline or not running:
        return
    if facts.is_alone:
        number = counted(running, "running guest")
        yield Finding(Weight.PREPARE, f"No other node is online: {number} stop with it.")
        return
    if missed := running - len(placed or ()):
        text = f"Whether {counted(missed, 'running guest')} can move is not known."
        yield Finding(Weight.UNKNOWN, text)
    yield from _of_placements(placed or ())


def _of_placements(placed: Sequence[Placement]) -> Iterator[Finding]:
    if stuck := [each for each in placed if each.obstacle]:
        number = counted(len(stuck), "running guest")
        text = f"{number} cannot move (stuck): shut down first what must not be cut off."
        yield Finding(Weight.PREPARE, text)
    movable = [each for each in placed if not each.obstacle and not each.by_ha]
    if movable:
        number = counted(len(movable), "running guest")
        containers = sum(each.type == "lxc" for each in movable)
        restarted = f"; {counted(containers, 'container')} restart to move" if containers else ""
        text = f"{number} without HA (movable) stop unless they are moved first{restarted}."
        yield Finding(Weight.PREPARE, text)
    copied = [each for each in placed if not each.obstacle and each.copied]
    if copied:
        size = readable(sum(each.copied for each in copied))
        text = f"Moves of {counted(len(copied), 'guest')} copy local disks of {size}."
        yield Finding(Weight.FACT, text)
    if hosts := [
        shown_phrase(each.label) for each in placed if each.cpu_is_host and not each.obstacle
    ]:
        text = f"CPU type host moves live to equal processors only: {_listed(hosts)}."
        yield Finding(Weight.FACT, text)


def _of_ha(facts: Facts, placed: Sequence[Placement]) -> Iterator[Finding]:
    if facts.ha is None:
        yield Finding(Weight.UNKNOWN, "What HA would move is not known.")
        return
    if facts.node in facts.ha.in_maintenance:
        yield Finding(Weight.FACT, "It is in HA maintenance.")
    moved = [each for each in placed if each.by_ha and not each.obstacle]
    if moved:
        yield _of_shutdown(facts.ha, facts.node, moved)


def _of_shutdown(ha: HighAvailability, node: str, moved: Sequence[Placement]) -> Finding:
    """Return what becomes of HA guests: by default a reboot stops them and moves none."""
    number = counted(len(moved), "HA guest")
    if ha.shutdown_policy == "migrate":
        return Finding(Weight.FACT, f"HA moves {number} when it shuts down (policy migrate).")
    policy = f"policy {shown_name(ha.shutdown_policy) if ha.shutdown_policy else 'not known'}"
    return Finding(
        Weight.PREPARE,
        f"A reboot stops {number} ({policy}); to move them first, run on a node: "
        f"`{HA_MAINTENANCE.format(node)}`.",
    )


def _of_room(facts: Facts, placed: Sequence[Placement] | None) -> Iterator[Finding]:
    moves = placed is None or any(not each.obstacle for each in placed)
    is_unknown = any(row.status == "unknown" for row in facts.guests or ())
    if facts.is_offline or not facts.covers_all or not (moves or is_unknown):
        return
    capacity = capacity_without(facts.nodes or (), facts.node)
    if capacity is None:
        yield Finding(Weight.UNKNOWN, "The memory that is in use there is not known.")
        return
    figures = (
        f"it uses {readable(capacity.used)} of memory, the others have {readable(capacity.free)} "
        "free"
    )
    blind = [row.node for row in facts.nodes or () if row.status == "unknown"]
    if capacity.suffices:
        yield Finding(Weight.FACT, f"Room elsewhere: {figures}.")
    elif blind:
        text = f"Room elsewhere is not known: {figures}, without {_listed(blind)}."
        yield Finding(Weight.UNKNOWN, text)
    else:
        yield Finding(Weight.PREPARE, f"No room elsewhere: {figures}.")


def _of_backups(facts: Facts) -> Iterator[Finding]:
    if facts.backup_jobs is None:
        yield Finding(Weight.UNKNOWN, "Which backup jobs begin soon is not known.")
        return
    here = {row.vmid for row in facts.guests or ()}
    due = [
        row
        for row in facts.backup_jobs
        if row.enabled and row.next_run and row.node in (None, facts.node)
    ]
    colliding = sorted((row for row in due if here.intersection(row.vmids)), key=_next_run)
    for number, row in enumerate(colliding):
        left = row.next_run - facts.now
        if left > _NEAR and number:  # the next one is named whenever it is
            break
        guests = counted(len(here.intersection(row.vmids)), "guest")
        yield Finding(
            Weight.PREPARE if left <= _SOON else Weight.FACT,
            f"Backup job {shown_name(row.id)} begins {row.next_run:%Y-%m-%d %H:%MZ} with {guests} "
            "of it.",
        )
    if here and not colliding:
        yield Finding(Weight.FACT, "No backup job with guests of it is due.")


def _of_replications(facts: Facts) -> Iterator[Finding]:
    if facts.replications is None:
        yield Finding(Weight.UNKNOWN, "Which replications depend on it is not known.")
    elif facts.replications:
        number = counted(len(facts.replications), "replication")
        yield Finding(Weight.FACT, f"{number} from or to it cannot run until it is back.")


def _of_storages(facts: Facts) -> Iterator[Finding]:
    if facts.storages is None:
        yield Finding(Weight.UNKNOWN, "Which storages it has alone is not known.")
        return
    local = [
        f"{shown_name(row.storage)} ({listed_names(row.content)})"
        for row in facts.storages
        if row.node == facts.node and not row.shared
    ]
    if local and not facts.is_alone:
        yield Finding(Weight.FACT, f"Unreachable without it: {_listed(local)}.")


def _next_run(job: Any) -> datetime:
    next_run: datetime = job.next_run
    return next_run


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
