"""Which backup tasks were runs of which backup job.

Proxmox keeps no such link; the command that a task logs first names what the job says. A task
that cannot reach its storage fails before that, and names the storage only.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Self

from proxmox_client.api.backups import BackupJob
from proxmox_client.api.tasks import TaskRow
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.reach import Reach
from pvemcp_server.tables.registry import LoadRequest
from pvemcp_server.tables.values import moment

_RECENT = 20  # backup tasks of each node that are looked at
_AT_ONCE = 8  # logs read together
_MOST_READ = 80  # logs of one cluster
_SCHEDULER = "root@pam"  # as whom Proxmox runs its jobs
_HEAD = 3  # lines of a log in which the command stands
_COMMAND = "INFO: starting new backup job: vzdump"
_NO_STORAGE = re.compile(r"TASK ERROR: .*?storage '(?P<storage>[^']+)'")
_ONE_RUN = timedelta(minutes=10)  # a run starts a task on each node, nearly at once


@dataclass(frozen=True)
class Run:
    """The last run of a job: all its tasks, the worst of them for its outcome."""

    start: datetime
    status: str
    ok: bool | None
    upid: str

    @classmethod
    def of(cls, tasks: Sequence[TaskRow]) -> Self | None:
        """The newest run among tasks of one job."""
        started = [(begin, one) for one in tasks if (begin := moment(one.start_time))]
        if not started:
            return None
        newest = max(begin for begin, _ in started)
        run = [(begin, one) for begin, one in started if newest - begin <= _ONE_RUN]
        begin, worst = max(run, key=lambda pair: _badness(pair[1]))
        status = worst.status or ("RUNNING" if worst.running else "unknown")
        return cls(begin, status, None if worst.running else worst.ok, worst.upid)


@dataclass(frozen=True)
class Command:
    """What a backup task was told to do."""

    vmids: frozenset[int]
    options: Mapping[str, str]

    @classmethod
    def read(cls, line: str) -> Self:
        """Take the logged command apart: guests first, then options with their values."""
        words = _words(line.removeprefix(_COMMAND))
        guests = list(takewhile(str.isdecimal, words))
        rest = iter(words[len(guests) :])
        options = {key.removeprefix("--"): value for key, value in zip(rest, rest, strict=False)}
        return cls(frozenset(map(int, guests)), options)

    def fits(self, job: BackupJob) -> bool:
        """Whether that job would have started it."""
        if "job-id" in self.options:
            return self.options["job-id"] == job.id
        return (
            self.options.get("storage") == job.storage
            and self.options.get("pool") == job.pool
            and (self.options.get("all") == "1") == job.all
            and (job.all or self.vmids == set(job.vmids))
        )


@dataclass(frozen=True)
class Unsaid:
    """A backup task that failed before it told its command, for a storage it could not reach."""

    job_id: str  # the job that writes there; none when several do

    @classmethod
    def read(cls, storage: str, jobs: Sequence[BackupJob]) -> Self:
        """Whose run it was, when only one job that is switched on writes to that storage."""
        writing = [job.id for job in jobs if job.enabled and job.storage == storage]
        return cls(writing[0] if len(writing) == 1 else "")

    def fits(self, job: BackupJob) -> bool:
        """Whether that job started it."""
        return job.id == self.job_id


Told = Command | Unsaid


async def last_runs(
    cluster: Cluster,
    reach: Reach,
    wanted: Sequence[BackupJob],
    jobs: Sequence[BackupJob],
    want: LoadRequest,
) -> dict[str, Run]:
    """The last run of each wanted job among all jobs, as far as the nodes' task lists reach."""
    if not wanted:
        return {}

    async def listed(node: str) -> list[TaskRow]:
        return await cluster.pve.node(node).tasks(type="vzdump", limit=_RECENT)

    found = await fanout.quietly(
        cluster,
        await fanout.all_nodes(cluster, LoadRequest()),
        reach.node,
        lambda view, some: fanout.each(view, some, listed, want, "backup tasks of node"),
    )
    started = (task for answer in found.values() for task in answer)
    tasks = {task.upid: task for task in started if _is_of_a_job(task)}
    commands = await _commands(cluster, reach, tasks, wanted, jobs, want)
    return {
        job.id: run
        for job in wanted
        if (run := Run.of([tasks[upid] for upid, one in commands.items() if one.fits(job)]))
    }


async def _commands(
    cluster: Cluster,
    reach: Reach,
    tasks: Mapping[str, TaskRow],
    wanted: Sequence[BackupJob],
    jobs: Sequence[BackupJob],
    want: LoadRequest,
) -> dict[str, Told]:
    """What tasks were told, the newest first, until the last run of every job is known whole.

    A job that is switched off is not looked for further back: it may never have run.
    """

    async def told(upid: str) -> Told | None:
        return await _told(cluster, upid, jobs)

    commands: dict[str, Told] = {}
    looked_for = [job for job in wanted if job.enabled]
    newest = sorted(tasks.values(), key=lambda task: task.start_time, reverse=True)
    for start in range(0, min(len(newest), _MOST_READ), _AT_ONCE):
        some = [task.upid for task in newest[start : start + _AT_ONCE]]
        heads = await fanout.quietly(
            cluster,
            some,
            lambda upid: reach.node(tasks[upid].node),
            lambda view, upids: fanout.each(view, upids, told, want, "log of task"),
        )
        commands |= {upid: command for upid, command in heads.items() if command}
        _note_unsaid(cluster, heads.values())
        older = newest[start + _AT_ONCE :]
        if older and all(
            _is_whole(job, commands, tasks, older[0].start_time) for job in looked_for
        ):
            return commands
    if len(newest) > _MOST_READ:
        cluster.notes.add(
            f"Last runs on {cluster.name} were looked for among its newest {_MOST_READ} backup "
            "tasks only."
        )
    return commands


def _is_whole(
    job: BackupJob, commands: Mapping[str, Told], tasks: Mapping[str, TaskRow], older: int
) -> bool:
    """Whether tasks that began at `older` or before cannot belong to the job's last run."""
    begun = [tasks[upid].start_time for upid, command in commands.items() if command.fits(job)]
    return bool(begun) and max(begun) - older > _ONE_RUN.total_seconds()


async def _told(cluster: Cluster, upid: str, jobs: Sequence[BackupJob]) -> Told | None:
    log = await cluster.pve.task(upid).log(limit=_HEAD)
    for line in log.lines:
        if line.text.startswith(_COMMAND):
            return Command.read(line.text)
        if found := _NO_STORAGE.match(line.text):
            return Unsaid.read(found["storage"], jobs)
    return None


def _note_unsaid(cluster: Cluster, told: Iterable[Told | None]) -> None:
    if Unsaid("") in told:
        cluster.notes.add(
            f"Backup tasks of {cluster.name} could not reach their storage and failed before they "
            "said for which job: ListTasks with type=vzdump and status=error shows them."
        )


def _is_of_a_job(task: TaskRow) -> bool:
    """Whether the scheduler may have started it: a person with a token is somebody else."""
    return task.user == _SCHEDULER and not task.token_id


def _words(command: str) -> list[str]:
    """The words of a command; one that is cut in the middle of a quotation is taken as it is."""
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _badness(task: TaskRow) -> int:
    if task.running:
        return 2
    return 3 if not task.ok else int(task.status != "OK")
