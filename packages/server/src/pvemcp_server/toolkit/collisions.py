"""What a write collides with, how long it takes, and since when its guest is as the plan says.

A plan shows these facts in its dry run, and beside its question or approval. They are no part of
what is agreed to, because they change: when a task ends, no user is asked again. They take few
requests for a whole cluster, whatever the number of guests.
"""

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final, TypeVar

from proxmox_client import ProxmoxError
from proxmox_client.api.backups import BackupJob
from proxmox_client.api.replication import ReplicationStatus
from proxmox_client.api.resources import GuestResource
from proxmox_client.api.tasks import TaskRow
from proxmox_client.properties import whole_number
from pvemcp_server.clusters import Cluster
from pvemcp_server.shown_names import shown_name
from pvemcp_server.tables.rows import moment
from pvemcp_server.tables.tasks import CONSOLES
from pvemcp_server.toolkit.past_tasks import time_taken
from pvemcp_server.toolkit.plan import Plan

T = TypeVar("T")

_SHORTEST: Final = timedelta(minutes=10)  # that a write may take, where no past task says more
_MOST: Final = 5  # facts of a kind that are shown
_NODES: Final = 8  # whose replications are read
_BACKUP: Final = "vzdump"
_AT_REST: Final = frozenset({"started", "stopped", "ignored", "disabled"})  # states of HA
_STOPS: Final = frozenset(f"{kind}{verb}" for kind in ("qm", "vz") for verb in ("stop", "shutdown"))
_PAUSES: Final = frozenset({"qmpause", "qmsuspend", "vzsuspend"})
_JOBS: Final = 1_000  # backup jobs that are due
_LATEST: Final = 20  # tasks of a guest that are looked at


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Facts around a plan, as sentences; empty where there are none."""

    takes: str = ""
    since: str = ""
    collides: str = ""

    @property
    def text(self) -> str:
        """What is shown beside a question."""
        return " ".join(filter(None, (self.since, self.collides)))

    @property
    def fields(self) -> dict[str, str]:
        """Those that exist, as fields of a dry run."""
        named = {"takes": self.takes, "since": self.since, "collides": self.collides}
        return {name: text for name, text in named.items() if text}


async def circumstances(
    cluster: Cluster, plans: Sequence[Plan], own: Iterable[str] = ()
) -> Circumstances:
    """Return what is known; `own` are facts about other calls of this server.

    What is due while such a write lasts counts, by the longest of its past tasks.
    """
    vmids = frozenset[int]().union(*(plan.vmids for plan in plans))
    storages = frozenset[str]().union(*(plan.storages for plan in plans))
    pasts = [plan.past for plan in plans if plan.past]
    if not (vmids or storages or pasts):
        return Circumstances(collides=" ".join(own))
    guests = {v: g for v, g in (await cluster.inventory_view()).by_vmid.items() if v in vmids}
    around = _Surroundings(cluster, guests, storages)
    taken, since, running, jobs, replications = await asyncio.gather(
        time_taken(cluster, pasts),
        _since(plans),
        around.tasks(),
        around.backup_jobs(),
        around.replications(),
    )
    until = datetime.now(UTC) + max(taken.longest or _SHORTEST, _SHORTEST)
    facts = [
        *own,
        *running,
        *_due(jobs, guests, until),
        *_replicated(replications, until),
        *_of_ha(plans, guests),
        *([f"Not known: {', '.join(around.unknown)}."] if around.unknown else ()),
    ]
    return Circumstances(taken.text, since, " ".join(facts))


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What else happens on a cluster to these guests and storages."""

    cluster: Cluster
    guests: Mapping[int, GuestResource]
    storages: frozenset[str]
    unknown: list[str] = field(default_factory=list)  # what could not be read

    async def tasks(self) -> list[str]:
        """Return the tasks that run on the guests and storages, with their begin."""
        if not (self.guests or self.storages):
            return []
        rows = await self._read(self.cluster.pve.cluster.tasks(), "running tasks", [])
        places = {guest.node for guest in self.guests.values()}
        works = ((_subject(row, self.guests, self.storages, places), row) for row in rows)
        facts = [
            f"{shown_name(row.type)} on {subject} since {_time(row.start_time)}"
            for subject, row in works
            if subject and row.running and row.type not in CONSOLES
        ]
        return _sentences("Running", facts)

    async def backup_jobs(self) -> list[BackupJob]:
        """Return the backup jobs of the cluster."""
        if not self.guests:
            return []
        return await self._read(self.cluster.pve.cluster.backup_jobs(), "backup jobs", [])

    async def replications(self) -> list[ReplicationStatus]:
        """Return the replications of the guests, with their state."""
        if not self.guests:
            return []
        pve = self.cluster.pve
        every = await self._read(pve.cluster.replications(), "replications", [])
        jobs = [job for job in every if job.guest in self.guests and not job.disabled]
        nodes = sorted({self.guests[job.guest].node for job in jobs})[:_NODES]
        none: list[ReplicationStatus] = []
        answers = await asyncio.gather(
            *(
                self._read(pve.node(n).replications(), f"replications of {shown_name(n)}", none)
                for n in nodes
            )
        )
        ids = {job.id for job in jobs}
        return [state for answer in answers for state in answer if state.id in ids]

    async def _read(self, answer: Awaitable[T], what: str, default: T) -> T:
        try:
            return await answer
        except ProxmoxError:  # the plan itself needs none of it
            self.unknown.append(what)
            return default


def _due(
    jobs: Iterable[BackupJob], guests: Mapping[int, GuestResource], until: datetime
) -> list[str]:
    """Return the backup jobs that begin until then with some of the guests."""
    due = (job for job in jobs if job.enabled and _is_due(job.next_run, until))
    begun = islice(due, _JOBS)
    covered = [(job, job.covered(guests.values())) for job in begun]
    facts = [f"{_time(job.next_run)} of {listed(vmids)}" for job, vmids in covered if vmids]
    return _sentences("Backup due", facts)


def _replicated(states: Iterable[ReplicationStatus], until: datetime) -> list[str]:
    """Return the replications that run, or begin until then."""
    facts = []
    for state in states:
        job = f"{shown_name(state.id)} to {shown_name(state.target)}"
        if state.pid:
            facts.append(f"{job} runs")
        elif state.last_try and _is_due(state.next_sync, until):
            facts.append(f"{job} is due {_time(state.next_sync)}")
    return _sentences("Replication", facts)


def _is_due(epoch: float | None, until: datetime) -> bool:
    time = moment(epoch)
    return time is not None and time <= until


def _subject(
    row: TaskRow,
    guests: Mapping[int, GuestResource],
    storages: frozenset[str],
    nodes: Iterable[str],
) -> str:
    """Return what of the plan a task is about, by its id; empty if it is about something else."""
    owner, _, storage = row.id.rpartition("@")
    for vmid in (row.id, owner):
        if (number := whole_number(vmid)) in guests:
            return str(number)
    if storage in storages:
        return shown_name(storage)
    if row.type == _BACKUP and not row.id and row.node in nodes:
        return f"several guests of {shown_name(row.node)}"
    return ""


def _of_ha(plans: Sequence[Plan], guests: Mapping[int, GuestResource]) -> list[str]:
    """Return the guests that the HA manager is at work on, or has given up."""
    states = {vmid: guest.ha_state for vmid, guest in guests.items()}
    states |= {plan.guest.vmid: plan.guest.status.ha.state for plan in plans if plan.guest}
    facts = [
        f"{v} is in state {shown_name(s)}" for v, s in states.items() if s and s not in _AT_REST
    ]
    return _sentences("HA", facts)


async def _since(plans: Sequence[Plan]) -> str:
    """Return since when the guests run; of a single one that does not, who stopped it."""
    guests = [plan.guest for plan in plans if plan.guest]
    now = datetime.now(UTC)
    uptimes = [guest.status.uptime for guest in guests if guest.status.uptime]
    begun = sorted(filter(None, (moment(now.timestamp() - uptime) for uptime in uptimes)))
    if len(guests) == 1 and guests[0].state != "running":
        guest = guests[0]
        types = _PAUSES if guest.state == "paused" else _STOPS
        node = guest.cluster.pve.node(guest.node)
        try:
            rows = await node.tasks(vmid=guest.vmid, limit=_LATEST, source="archive")
        except ProxmoxError:
            return ""
        last = next((row for row in rows if row.type in types and row.ok), None)
        user = f" by {shown_name(last.user)}" if last and last.user else ""
        by = last and f"{shown_name(last.type)}{user}"
        return f"Last {shown_name(guest.state)} {_time(last.start_time)} ({by})." if last else ""
    if not begun:
        return ""
    first, last_begun = (f"{time:%Y-%m-%d %H:%MZ}" for time in (begun[0], begun[-1]))
    if first == last_begun:
        return f"Running since {first}."
    return f"Running since {first} to {last_begun}."


def _sentences(kind: str, facts: Sequence[str]) -> list[str]:
    """Return the facts as one sentence, the first of many."""
    if not facts:
        return []
    unique = list(dict.fromkeys(facts))
    more = f" and {len(unique) - _MOST} more" if len(unique) > _MOST else ""
    return [f"{kind}: {', '.join(unique[:_MOST])}{more}."]


def listed(vmids: Collection[int]) -> str:
    """Return VMIDs for a sentence, the first of many."""
    more = f" and {len(vmids) - _MOST} more" if len(vmids) > _MOST else ""
    return f"{', '.join(map(str, sorted(vmids)[:_MOST]))}{more}"


def _time(epoch: float | None) -> str:
    time = moment(epoch)
    return f"{time:%Y-%m-%d %H:%MZ}" if time else "before"
