"""Replication of a guest's disks to another node."""

from typing import Final

from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.jobs import Replication

SECONDS: Final = 3.0


async def replicate(job: Replication, state: ClusterState) -> None:
    """Run a replication job once; as in Proxmox it is not a task and failures are counted."""
    started = state.now
    job.last_try, job.run_now = int(started), False
    unreachable = f"command '/usr/bin/ssh {job.target}' failed: exit code 255"
    obstacle = job.obstacle if state.nodes[job.target].online else unreachable
    if obstacle:
        job.fail_count += 1
        job.error = obstacle
        return
    await state.clock.sleep(SECONDS)
    job.last_sync, job.duration = int(started), SECONDS
    job.fail_count, job.error = 0, ""
