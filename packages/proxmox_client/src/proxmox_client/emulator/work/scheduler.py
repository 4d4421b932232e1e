"""What is due is done: backup jobs and replications, minute by minute."""

import asyncio
from datetime import UTC, datetime
from typing import Final

from proxmox_client.emulator.calendar import next_run
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.jobs import BackupJob, Replication
from proxmox_client.emulator.work import backup
from proxmox_client.emulator.work.board import TaskBoard
from proxmox_client.emulator.work.replication import replicate

MINUTE: Final = 60.0
ROOT: Final = "root@pam"
SELECTION: Final = ("vmid", "all", "pool", "exclude", "mailto")
"""Options of a job that say whom it saves, not how."""


class Scheduler:
    """Starts the tasks of a cluster's jobs when their time has come."""

    def __init__(self, state: ClusterState, tasks: TaskBoard) -> None:
        self._state, self._tasks = state, tasks
        self._copying: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Look every minute until cancelled."""
        looked = self._state.now
        try:
            while True:
                await self._state.clock.sleep(MINUTE)
                now = self._state.now
                self._start_due(looked, now)
                looked = now
        finally:
            for copying in self._copying:
                copying.cancel()

    def _start_due(self, after: float, until: float) -> None:
        for job in self._state.backup_jobs.values():
            if job.enabled and _is_due(job.schedule, after, until):
                self._back_up(job)
        for replication in self._state.replications.values():
            if self._is_due_here(replication, after, until):
                copying = asyncio.create_task(replicate(replication, self._state))
                self._copying.add(copying)
                copying.add_done_callback(self._copying.discard)

    def _is_due_here(self, job: Replication, after: float, until: float) -> bool:
        if not self._state.nodes[job.source].online or job.disabled:
            return False
        return job.is_wanted_now or _is_due(job.schedule, after, until)

    def _back_up(self, job: BackupJob) -> None:
        options = {key: value for key, value in job.options.items() if key not in SELECTION}
        told = {key: value for key, value in job.options.items() if key != "vmid"}
        command = backup.command_of(job.vmids, told)
        for node in self._state.nodes.values():
            here = [
                guest.vmid
                for guest in self._state.guests_on(node.name)
                if job.covers(guest.vmid, self._state.pool_of(guest.vmid)) and not guest.template
            ]
            if node.online and here:
                work = backup.dump(here, node.name, options, command)
                self._tasks.start(node.name, "vzdump", "", ROOT, work)


def _is_due(schedule: str, after: float, until: float) -> bool:
    moment = datetime.fromtimestamp(after, UTC)
    return next_run(schedule, moment).timestamp() <= until
