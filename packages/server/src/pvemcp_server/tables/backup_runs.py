"""Which backup tasks were runs of which backup job.

Proxmox keeps no such link; the command that a task logs first names what the job says.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Self

from proxmox_client.api.backups import BackupJob
from proxmox_client.api.tasks import TaskRow
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.registry import Want
from pvemcp_server.tables.values import moment

_RECENT = 20  # backup tasks of each node that are looked at
_AT_ONCE = 8  # logs read together
_MOST_READ = 80  # logs of one cluster
_SCHEDULER = "root@pam"  # as whom Proxmox runs its jobs
_HEAD = 3  # lines of a log in which the command stands
_COMMAND = "INFO: starting new backup job: vzdump"
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
        words = shlex.split(line.removeprefix(_COMMAND))
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


async def last_runs(cluster: Cluster, jobs: Sequence[BackupJob], want: Want) -> dict[str, Run]:
    """The last run of each job, as far as the nodes' task lists reach."""
    if not jobs:
        return {}
    found = await fanout.each(
        cluster,
        await fanout.all_nodes(cluster, Want()),
        lambda node: cluster.pve.node(node).tasks(type="vzdump", limit=_RECENT),
        want,
        "backup tasks of node",
    )
    started = (task for answer in found.values() for task in answer)
    tasks = {task.upid: task for task in started if task.user == _SCHEDULER}
    commands = await _commands(cluster, tasks, jobs, want)
    return {
        job.id: run
        for job in jobs
        if (run := Run.of([tasks[upid] for upid, one in commands.items() if one.fits(job)]))
    }


async def _commands(
    cluster: Cluster, tasks: Mapping[str, TaskRow], jobs: Sequence[BackupJob], want: Want
) -> dict[str, Command]:
    """What tasks were told, the newest first, until the last run of every job is known whole.

    A job that is switched off is not looked for further back: it may never have run.
    """
    commands: dict[str, Command] = {}
    looked_for = [job for job in jobs if job.enabled]
    newest = sorted(tasks.values(), key=lambda task: task.start_time, reverse=True)
    for start in range(0, min(len(newest), _MOST_READ), _AT_ONCE):
        some = [task.upid for task in newest[start : start + _AT_ONCE]]
        heads = await fanout.each(
            cluster, some, lambda upid: _command(cluster, upid), want, "log of task"
        )
        commands |= {upid: command for upid, command in heads.items() if command}
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
    job: BackupJob, commands: Mapping[str, Command], tasks: Mapping[str, TaskRow], older: int
) -> bool:
    """Whether tasks that began at `older` or before cannot belong to the job's last run."""
    begun = [tasks[upid].start_time for upid, command in commands.items() if command.fits(job)]
    return bool(begun) and max(begun) - older > _ONE_RUN.total_seconds()


async def _command(cluster: Cluster, upid: str) -> Command | None:
    log = await cluster.pve.task(upid).log(limit=_HEAD)
    line = next((one.text for one in log.lines if one.text.startswith(_COMMAND)), None)
    return Command.read(line) if line else None


def _badness(task: TaskRow) -> int:
    if task.running:
        return 2
    return 3 if not task.ok else int(task.status != "OK")
