"""Copying a guest's disks to another node, again and again."""

from typing import Final

from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.jobs import Replication

SECONDS: Final = 3.0


async def replicate(job: Replication, state: ClusterState) -> None:
    """Bring the other node up to date; Proxmox makes no task of it."""
    began = state.now
    job.last_try, job.is_wanted_now = int(began), False
    unreachable = f"command '/usr/bin/ssh {job.target}' failed: exit code 255"
    obstacle = job.obstacle if state.nodes[job.target].online else unreachable
    if obstacle:
        job.fail_count += 1
        job.error = obstacle
        return
    await state.clock.sleep(SECONDS)
    job.last_sync, job.duration = int(began), SECONDS
    job.fail_count, job.error = 0, ""
