"""The scheduler: runs backup jobs and replication jobs when they are due."""

import asyncio
from datetime import UTC, datetime
from typing import Final

from proxmox_client.emulator.calendar import next_run
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.jobs import BackupJob, Replication
from proxmox_client.emulator.tasks import backup
from proxmox_client.emulator.tasks.replication import replicate
from proxmox_client.emulator.tasks.runner import TaskRunner

MINUTE: Final = 60.0
ROOT: Final = "root@pam"
SELECTION: Final = ("vmid", "all", "pool", "exclude", "mailto")
"""Options of a backup job that select guests; they are not passed to each node's run."""


class Scheduler:
    """Starts the due jobs of a cluster, once a minute."""

    def __init__(self, state: ClusterState, tasks: TaskRunner) -> None:
        self._state, self._tasks = state, tasks
        self._replications: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Start due jobs every minute until cancelled."""
        last_check = self._state.now
        try:
            while True:
                await self._state.clock.sleep(MINUTE)
                now = self._state.now
                self._start_due(last_check, now)
                last_check = now
        finally:
            for running in self._replications:
                running.cancel()

    def _start_due(self, after: float, until: float) -> None:
        for job in self._state.backup_jobs.values():
            if job.enabled and _is_due(job.schedule, after, until):
                self._back_up(job)
        for replication in list(self._state.replications.values()):
            if replication.removal:
                del self._state.replications[replication.id]
                continue
            if self._must_run(replication, after, until):
                running = asyncio.create_task(replicate(replication, self._state))
                self._replications.add(running)
                running.add_done_callback(self._replications.discard)

    def _must_run(self, job: Replication, after: float, until: float) -> bool:
        if not self._state.nodes[job.source].online or job.disabled:
            return False
        return job.run_now or _is_due(job.due_times, after, until)

    def _back_up(self, job: BackupJob) -> None:
        options = {key: value for key, value in job.options.items() if key not in SELECTION}
        command = backup.scheduled_arguments(job)
        for node in self._state.nodes.values():
            vmids = [
                guest.vmid
                for guest in self._state.guests_on(node.name)
                if job.covers(guest.vmid, self._state.pool_of(guest.vmid)) and not guest.template
            ]
            if node.online and vmids:
                work = backup.dump(vmids, node.name, options, command)
                self._tasks.start(node.name, "vzdump", "", ROOT, work)


def _is_due(schedule: str, after: float, until: float) -> bool:
    last_check = datetime.fromtimestamp(after, UTC)
    return next_run(schedule, last_check).timestamp() <= until
