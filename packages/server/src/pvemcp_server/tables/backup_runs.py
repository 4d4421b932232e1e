"""Matches backup tasks with the backup jobs that started them.

Proxmox keeps no such link. The command that a task logs first repeats all options of the job but
its id, schedule and comment, and has `quiet`, which only the scheduler sets (PVE/Jobs/VZDump.pm).
A task that fits several jobs belongs to none of them. A task that cannot reach its storage fails
before it logs its command, and its log names the storage only: its job is inferred and noted.
"""

import re
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, Self

from proxmox_client.api.backups import BackupJob
from proxmox_client.api.tasks import TaskRow
from proxmox_client.json_decoder import split_list
from proxmox_client.properties import parse, whole_number
from pvemcp_server.clusters import Cluster
from pvemcp_server.shown_names import listed_names
from pvemcp_server.tables import fanout
from pvemcp_server.tables.reach import Reach
from pvemcp_server.tables.registry import LoadRequest
from pvemcp_server.tables.rows import moment

_RECENT = 20  # newest backup tasks of each node
_AT_ONCE = 8  # logs read together
_MOST_READ = 80  # logs of one cluster
_SCHEDULER = "root@pam"  # the user of Proxmox's scheduler
_HEAD = 3  # first lines of a log, among them the command
_LONGEST = 8_000  # characters of a command; to split a longer one takes quadratic time
_COMMAND = "INFO: starting new backup job: vzdump"
_QUIET = "quiet"
_PATHS = "exclude-path"  # repeated, once for each path
_LISTS = {"exclude", "mailto"}
_GROUPS = {"prune-backups": "", "fleecing": "enabled", "performance": ""}  # with default keys
# options of a job that its command does not repeat, or not as an option
_NOT_LOGGED = frozenset(
    {"id", "type", "enabled", "schedule", "starttime", "dow", "comment", "next-run"}
    | {"repeat-missed", "vmid", _QUIET}
)
_NO_STORAGE = re.compile(r"TASK ERROR: .*?storage '(?P<storage>[^']+)'")
_ONE_RUN = timedelta(minutes=10)  # a run starts a task on each node, nearly at once


@dataclass(frozen=True)
class Run:
    """The last run of a job: all its tasks, with the outcome of the worst of them."""

    start: datetime
    seconds: int | None  # until the last of its tasks ended; None while one runs
    status: str
    ok: bool | None
    upid: str

    @classmethod
    def newest(cls, tasks: Sequence[TaskRow]) -> Self | None:
        """Return the newest run among the tasks of one job; it has one task on each node."""
        started = [(start, task) for task in tasks if (start := moment(task.start_time))]
        if not started:
            return None
        started.sort(key=lambda pair: pair[0], reverse=True)
        run: dict[str, tuple[datetime, TaskRow]] = {}
        for start, task in started:
            if started[0][0] - start <= _ONE_RUN:
                run.setdefault(task.node, (start, task))
        ends = [task.end_time for _, task in run.values()]
        began = min(task.start_time for _, task in run.values())
        seconds = None if None in ends else max(0, max(filter(None, ends)) - began)
        start, worst = max(run.values(), key=lambda pair: _severity(pair[1]))
        status = "running" if worst.running else worst.status or "unknown"
        return cls(start, seconds, status, None if worst.running else worst.ok, worst.upid)


Option = str | frozenset[Any]
"""The value of an option, in a form that is equal for a job and its command."""


def _comparable(
    options: Mapping[str, Any], *, but: frozenset[str] = frozenset()
) -> dict[str, Option]:
    """Return options in a form that is equal for a job and its command, without empty ones."""
    values = {name: _value(name, value) for name, value in options.items() if name not in but}
    return {
        name: value for name, value in values.items() if value and (name, value) != ("all", "0")
    }


def _value(name: str, value: Any) -> Option:
    if name in _GROUPS:
        return frozenset(parse(value, _GROUPS[name]).items())
    if name == _PATHS:
        return frozenset(map(str, value) if isinstance(value, list) else str(value).split("\0"))
    if name in _LISTS:
        return frozenset(split_list(str(value)))
    return "" if value is None else str(int(value) if isinstance(value, bool) else value)


@dataclass(frozen=True)
class Command:
    """The vzdump command that a backup task logged."""

    vmids: frozenset[int]
    options: Mapping[str, Option]

    @classmethod
    def parse(cls, line: str) -> Self:
        """Parse the logged command: guests first, then options with their values."""
        command = line.removeprefix(_COMMAND)[:_LONGEST]
        try:
            words = shlex.split(command)
        except ValueError:  # the line ends within a quotation
            words = command.split()
        guests = list(takewhile(lambda number: number is not None, map(whole_number, words)))
        rest = iter(words[len(guests) :])
        values: dict[str, list[str]] = {}
        for key, value in zip(rest, rest, strict=False):
            values.setdefault(key.removeprefix("--"), []).append(value)
        options = {
            name: several if name == _PATHS else several[-1] for name, several in values.items()
        }
        return cls(frozenset(filter(None, guests)), _comparable(options))

    @property
    def is_scheduled(self) -> bool:
        """Whether the scheduler started it, and not a user."""
        return self.options.get(_QUIET) == "1"

    def jobs(self, jobs: "Jobs") -> frozenset[str]:
        """Return the jobs that would have started it."""
        own = {name: value for name, value in self.options.items() if name != _QUIET}
        key = (self.vmids, frozenset(own.items()))
        return jobs.by_command.get(key, frozenset()) if self.is_scheduled else frozenset()


@dataclass(frozen=True)
class StorageFailure:
    """A backup task that could not reach its storage and failed before it logged its command."""

    job_id: str  # the job that writes there; empty when several do

    @classmethod
    def of_storage(cls, storage: str, jobs: "Jobs") -> Self:
        """Assign the task to the only enabled job that writes to this storage."""
        writing = jobs.by_storage.get(storage, [])
        return cls(writing[0] if len(writing) == 1 else "")

    def jobs(self, _jobs: "Jobs") -> frozenset[str]:
        """Return the job that started it."""
        return frozenset({self.job_id} - {""})


Origin = Command | StorageFailure
"""The part of a task's log that identifies its job."""


@dataclass(frozen=True)
class Jobs:
    """The ids of all jobs of a cluster: by the command that each logs, enabled ones by storage."""

    by_command: Mapping[tuple[frozenset[int], frozenset[tuple[str, Option]]], frozenset[str]]
    by_storage: Mapping[str | None, list[str]]

    @classmethod
    def of(cls, every: Sequence[BackupJob]) -> Self:
        """Read the options of each job once, as there may be many tasks to compare with them."""
        by_command = defaultdict[Any, set[str]](set)
        by_storage = defaultdict[str | None, list[str]](list)
        for job in every:
            options = frozenset(_comparable(job.raw, but=_NOT_LOGGED).items())
            by_command[frozenset(job.vmids), options].add(job.id)
            if job.enabled:
                by_storage[job.storage].append(job.id)
        return cls({key: frozenset(ids) for key, ids in by_command.items()}, by_storage)


async def last_runs(
    cluster: Cluster,
    reach: Reach,
    jobs: Sequence[BackupJob],
    every: Sequence[BackupJob],
    request: LoadRequest,
) -> dict[str, Run]:
    """Return the last runs of these jobs, as far as the nodes' task lists go back.

    `every` has all jobs of the cluster, for tasks that only their storage identifies.
    """
    if not jobs:
        return {}

    async def list_tasks(node: str) -> list[TaskRow]:
        return await cluster.pve.node(node).tasks(type="vzdump", limit=_RECENT)

    nodes = await fanout.all_nodes(cluster, LoadRequest())
    answers = await fanout.each_masked(
        cluster,
        nodes,
        reach.node,
        lambda view, nodes: fanout.each(view, nodes, list_tasks, request, "backup tasks of node"),
        request,
    )
    # a task with an API token was started by a user, not by the scheduler
    tasks = {
        task.upid: task
        for answer in answers.values()
        for task in answer
        if task.user == _SCHEDULER and not task.token_id
    }
    known = Jobs.of(every)
    origins = await _origins(cluster, reach, tasks, jobs, known, request)
    jobs_of = {upid: origin.jobs(known) for upid, origin in origins.items()}
    shared = {job_id for fitting in jobs_of.values() if len(fitting) > 1 for job_id in fitting}
    runs = {
        job.id: run
        for job in jobs
        if job.id not in shared
        and (run := Run.newest([tasks[u] for u, fitting in jobs_of.items() if job.id in fitting]))
    }
    if several := sorted(job.id for job in jobs if job.id in shared):
        cluster.notes.add(
            f"Not known on {cluster.name}: last runs of the jobs {listed_names(several)}. Their "
            "tasks fit more than one job with these options, and Proxmox does not record which one "
            "ran."
        )
    unfit = sorted(j.id for j in jobs if j.enabled and j.id not in shared and j.id not in runs)
    if unfit and len(answers) == len(nodes):
        cluster.notes.add(
            f"No run on record on {cluster.name} fits {listed_names(unfit)} as configured now. It "
            "may have run before a change of its options, or longer ago than tasks are kept."
        )
    _note_inferred(cluster, runs, origins)
    return runs


def _note_inferred(
    cluster: Cluster, runs: Mapping[str, Run], origins: Mapping[str, Origin]
) -> None:
    """Note the jobs whose last run is known by its storage only."""
    inferred = [
        job_id for job_id, run in runs.items() if isinstance(origins[run.upid], StorageFailure)
    ]
    if inferred:
        cluster.notes.add(
            f"Inferred on {cluster.name}: the last run of {listed_names(inferred)}. Its task "
            "failed before it logged its options; it is the only enabled job for the storage in "
            "its log, but a user's backup to it would look the same."
        )


async def _origins(
    cluster: Cluster,
    reach: Reach,
    tasks: Mapping[str, TaskRow],
    jobs: Sequence[BackupJob],
    known: Jobs,
    request: LoadRequest,
) -> dict[str, Origin]:
    """Read the logs of tasks, newest first, until the last run of each job is complete.

    A disabled job doesn't prolong the search: it may never have run.
    """

    async def read(upid: str) -> Origin | None:
        return await _origin(cluster, upid, known)

    origins: dict[str, Origin] = {}
    latest: dict[str, int] = {}  # start of the newest run of each job
    enabled = [job for job in jobs if job.enabled]
    newest = sorted(tasks.values(), key=lambda task: task.start_time, reverse=True)
    for start in range(0, min(len(newest), _MOST_READ), _AT_ONCE):
        batch = [task.upid for task in newest[start : start + _AT_ONCE]]
        answers = await fanout.each_masked(
            cluster,
            batch,
            lambda upid: reach.node(tasks[upid].node),
            lambda view, upids: fanout.each(view, upids, read, request, "log of task"),
            request,
        )
        origins |= {upid: origin for upid, origin in answers.items() if origin}
        unassigned = {upid for upid, origin in answers.items() if origin == StorageFailure("")}
        if any(reach.node(tasks[upid].node) for upid in unassigned):  # hidden tasks must not show
            cluster.notes.add(
                f"Backup tasks of {cluster.name} could not reach their storage and failed before "
                "they said for which job: ListTasks with type=vzdump and status=error shows them."
            )
        for upid, origin in answers.items():
            for job_id in origin.jobs(known) if origin else ():
                latest[job_id] = max(latest.get(job_id, 0), tasks[upid].start_time)
        older = newest[start + _AT_ONCE :]
        # a task that started this long before the newest run of a job can't belong to it
        if older and all(
            latest.get(job.id, 0) - older[0].start_time > _ONE_RUN.total_seconds()
            for job in enabled
        ):
            return origins
    if len(newest) > _MOST_READ:
        cluster.notes.add(
            f"Last runs on {cluster.name} were looked for among its newest {_MOST_READ} backup "
            "tasks only."
        )
    return origins


async def _origin(cluster: Cluster, upid: str, jobs: Jobs) -> Origin | None:
    log = await cluster.pve.task(upid).log(limit=_HEAD)
    for line in log.lines:
        if line.text.startswith(_COMMAND):
            return Command.parse(line.text)
        if match := _NO_STORAGE.match(line.text):
            return StorageFailure.of_storage(match["storage"], jobs)
    return None


def _severity(task: TaskRow) -> int:
    if task.running:
        return 2
    return 3 if not task.ok else int(task.status != "OK")
