"""Deletion of guests."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from proxmox_client.api.firewall import FirewallRule
from proxmox_client.api.replication import ReplicationJob
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.errors import BadArgument, Precondition, counted
from pvemcp_server.shown_names import shown_name
from pvemcp_server.tables import BackupJob, LoadRequest, backup_jobs
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ItsCluster, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.past_tasks import past_tasks
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.undo import Undo
from pvemcp_server.toolkit.write_target import TargetGuest, target_guest
from pvemcp_server.tools.granted_rows import granted_rows
from pvemcp_server.tools.guest_losses import GuestLosses, guest_losses, refuse_protection

RepeatedName = Annotated[str, Field(max_length=253, description="Its name, to be sure")]
Purge = Annotated[
    bool, Field(description="Also remove it from HA, its backup and replication jobs")
]


@tool(
    "DeleteVm",
    view="plan",
    title="Delete guest",
    area=Area.VMS,
    effect=Effect.DESTROY,
    toolset=Toolset.LIFECYCLE,
    needs=(needs.GUESTS, needs.ALLOCATE),
)
async def delete_vm(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    vmid: VmId,
    name: RepeatedName,
    purge: Purge = False,
) -> Plan:
    """Delete a stopped VM or container with its disks and snapshots; its backups stay."""
    guest = await target_guest(call, cluster_name, vmid)
    _require_name(guest, name)
    _require_stopped(guest)
    losses = await guest_losses(call, guest)
    refuse_protection(losses)
    every = guest.cluster.pve.cluster.replications()
    jobs = await guest.cluster.optional(every, "Its replication jobs are not known")
    replications = [job for job in jobs or () if job.guest == vmid]
    _require_purge(guest, replications, purge=purge)
    request = LoadRequest(vmids=frozenset({vmid}), columns=frozenset({"id", "vmids"}))
    covering = await granted_rows(call, guest.cluster, backup_jobs, request)
    rules = await guest.cluster.optional(
        guest.api.firewall.rules(), "Its firewall rules are not known"
    )
    return Plan(
        cluster=guest.cluster,
        guest=guest,
        would=f"Delete {guest.label} from {shown_name(guest.node)}.",
        loses=f"{losses.lost} {losses.backed_up}",
        warnings=(
            *losses.staying,
            *_references(guest, replications, rules or ()),
            *_in_jobs(covering or (), vmid, purge=purge),
        ),
        ids={"vmid": vmid, "name": name, "purge": purge, **_left(losses)},
        digest=losses.configs.current.digest,
        past=past_tasks(guest, "qmdestroy", "vzdestroy"),
        act=partial(guest.api.destroy, purge=purge or None),
        undo=await _undo(losses, guest),
    )


def _require_name(guest: TargetGuest, name: str) -> None:
    """Raise BadArgument unless the caller means this guest: a wrong VMID is one digit away."""
    if name not in (guest.status.name, guest.resource.name):
        raise BadArgument("name", f"{guest.label} has another name than {name!r}.")


def _require_stopped(guest: TargetGuest) -> None:
    if guest.state == "stopped":
        return
    action = "Shutdown" if guest.state == "running" else "Stop"
    raise Precondition(
        f"{guest.label} is {guest.state}.", hint=f"ChangeVmState with action {action} stops it."
    )


def _require_purge(
    guest: TargetGuest, replications: Sequence[ReplicationJob], *, purge: bool
) -> None:
    """Raise Precondition for what Proxmox refuses to leave behind: HA and replication."""
    if purge:
        return
    if guest.status.ha.managed:
        raise Precondition(
            f"HA manages {guest.label}, so Proxmox deletes it only with purge.",
            hint="purge=true removes it from HA, and from its backup and replication jobs.",
        )
    if replications:
        ids = ", ".join(shown_name(job.id) for job in replications)
        raise Precondition(
            f"{guest.label} is replicated (job {ids}), so Proxmox deletes it only with purge.",
            hint="Removing the job in Proxmox removes its copies too; purge=true leaves them.",
        )


def _references(
    guest: TargetGuest,
    replications: Sequence[ReplicationJob],
    rules: Sequence[FirewallRule],
) -> Iterator[str]:
    """Yield sentences on what refers to the guest."""
    if guest.status.ha.managed:
        yield "It is removed from HA."
    for job in replications:
        copies = f"its copies on {shown_name(job.target)} stay"
        yield f"Replication job {shown_name(job.id)} is removed; {copies}."
    if guest.resource.pool:
        yield f"It leaves pool {shown_name(guest.resource.pool)}."
    if rules:
        yield f"Its {counted(len(rules), 'firewall rule')} and permissions on it go too."


def _in_jobs(jobs: Sequence[BackupJob], vmid: int, *, purge: bool) -> Iterator[str]:
    """Yield a sentence on the backup jobs that name the guest."""
    named = [job.id for job in jobs if vmid in job.vmids and not (job.all_guests or job.pool)]
    if not named:
        return
    ids = ", ".join(map(shown_name, named))
    if purge:
        yield f"It is removed from backup job {ids}."
    else:
        yield f"Backup job {ids} names it and will fail on it: purge=true removes it there too."


def _left(losses: GuestLosses) -> dict[str, Any]:
    return {} if losses.backups is None else {"backups_left": len(losses.backups)}


async def _undo(losses: GuestLosses, guest: TargetGuest) -> Undo | None:
    """Return the call that restores its last backup, where it was if that node has the backup."""
    if not losses.backups:
        return None
    backup = losses.backups[0]
    arguments = {
        "cluster_name": guest.cluster.name,
        "backup": backup.volid,
        "vmid": guest.vmid,
    }
    view = await guest.cluster.inventory_view()
    places = {s.node for s in view.storages if s.storage == backup.storage and s.shared}
    if guest.node in {*places, backup.node}:
        arguments["node"] = guest.node
    if guest.resource.pool in {pool.pool for pool in view.pools}:
        arguments["pool"] = guest.resource.pool
    return Undo(NextCall("RestoreBackup", arguments))
