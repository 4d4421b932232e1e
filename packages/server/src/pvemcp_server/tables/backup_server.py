"""Datastores, snapshots and jobs of Proxmox Backup Servers."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Annotated, ClassVar, Final, Protocol, TypeVar

from msgspec.structs import replace

from proxmox_client import ProxmoxError, deadline, tolerate_malformed
from proxmox_client.api.backup_server import BackupSnapshot, DatastoreUsage, ServerJob
from proxmox_client.properties import whole_number
from pvemcp_server.clusters import Cluster, offload
from pvemcp_server.clusters.backup_server import hidden_parts
from pvemcp_server.errors import counted
from pvemcp_server.tables import fanout
from pvemcp_server.tables.reach import Reach
from pvemcp_server.tables.registry import (
    PBS_ONLY,
    Across,
    Cost,
    LoadRequest,
    Relation,
    made,
    never_filtered,
    table,
)
from pvemcp_server.tables.rows import Col, Row, Unit, moment, percent, seconds_since, single
from pvemcp_server.tables.series import Forecast, Point, forecast

ROOT: Final = ""  # the namespace of that name
_STORAGES_SECONDS: Final = 5.0  # for those of another cluster, which only say whose backups are
_GC: Final = ("gc_last_run", "gc_status", "gc_ok", "gc_next_run")
_MOST_RECORDED: Final = 10_000  # values of a datastore; the server records 1,500 of a month
_NAMED: Final = 10  # datastores that cannot be read
_PUSHDOWN: Final = {"vmid": "vmids", "datastore": "storages"}
TO_GUEST: Final = Relation(
    "guest",
    "guests",
    {"guest_cluster": "cluster", "vmid": "vmid"},
    "The guest, on the cluster whose storage this is",
)
TO_DATASTORE: Final = Relation(
    "store", "pbs_datastores", {"datastore": "datastore"}, "The datastore it is in"
)


class _OfDatastore(Protocol):
    @property
    def datastore(self) -> str: ...


RowT = TypeVar("RowT", bound=_OfDatastore)


def of_datastore(reach: Reach, row: RowT) -> RowT | None:
    """Cover rows about a datastore that is granted as a storage.

    A guest that is granted covers none: its number may be that of a guest of another cluster.
    """
    return row if reach.scope.covers_storage(row.datastore) else None


server_table = partial(
    table,
    covered=of_datastore,
    pushdown=_PUSHDOWN,
    looks_filtered=never_filtered,  # the loaders note what the account does not see
    rare=True,
    kinds=PBS_ONLY,
)


class PbsDatastore(Row):
    """A datastore of a backup server."""

    minimal: ClassVar[tuple[str, ...]] = (
        "datastore",
        "disk_usage_percentage",
        "disk_total",
        "deduplication_factor",
        "growth_per_day",
        "full_on",
        "gc_last_run",
        "gc_status",
    )

    datastore: Annotated[str, Col("Name", aliases=("name", "store"))]
    disk_usage_percentage: Annotated[
        float | None, Col("Space in use", Unit.PERCENT, ("usage_percentage",))
    ]
    disk_usage: Annotated[int | None, Col("Space in use", Unit.BYTES, ("used", "disk_used"))]
    disk_total: Annotated[int | None, Col("Space", Unit.BYTES, ("total", "disk_max"))]
    disk_free: Annotated[int | None, Col("Space left", Unit.BYTES, ("free", "available"))]
    deduplication_factor: Annotated[
        float | None,
        Col(
            "Size of its backups, divided by the space they take; of the last garbage collection",
            aliases=("dedup", "deduplication"),
        ),
    ]
    growth_per_day: Annotated[
        int | None, Col("Growth per day over the last month", Unit.BYTES, ("growth",))
    ]
    growth_uncertainty: Annotated[
        int | None, Col("What the growth may differ by (95 %)", Unit.BYTES)
    ]
    full_on: Annotated[
        datetime | None, Col("When it is full at that growth; null: not in ten years", Unit.TIME)
    ]
    full_earliest: Annotated[
        datetime | None, Col("Earliest time by the uncertainty of the growth", Unit.TIME)
    ]
    full_latest: Annotated[
        datetime | None, Col("Latest time by it; null: perhaps never", Unit.TIME)
    ]
    gc_last_run: Annotated[datetime | None, Col("Start of its last garbage collection", Unit.TIME)]
    gc_status: Annotated[
        str | None, Col("How its last one ended: OK, WARNINGS: n, running, or the error")
    ]
    gc_ok: Annotated[bool | None, Col("Whether its last garbage collection went well")]
    gc_next_run: Annotated[datetime | None, Col("Its next garbage collection", Unit.TIME)]
    pending_bytes: Annotated[
        int | None, Col("Space of unused chunks that are too young to remove", Unit.BYTES)
    ]
    error: Annotated[str | None, Col("Why it cannot be read, in Proxmox's words")]


class PbsSnapshot(Row):
    """A backup at one time on a backup server."""

    minimal: ClassVar[tuple[str, ...]] = (
        "datastore",
        "namespace",
        "backup_type",
        "backup_id",
        "backup_time",
        "size",
        "verification",
    )

    datastore: Annotated[str, Col("Datastore it is in", aliases=("store",))]
    namespace: Annotated[str, Col("Namespace it is in; empty for the root", aliases=("ns",))]
    backup_type: Annotated[
        str,
        Col(
            "What it is of: a VM, a container, another machine",
            values=("vm", "ct", "host"),
            meanings={"vm": "qemu kvm", "ct": "lxc container"},
        ),
    ]
    backup_id: Annotated[str, Col("Number of the guest, or name of the machine")]
    vmid: Annotated[int | None, Col("Guest it is of, if it is of one", aliases=("guest_id",))]
    guest_cluster: Annotated[
        str | None,
        Col("Cluster with a storage for this datastore and namespace; null: none or several asked"),
    ]
    backup_time: Annotated[
        datetime | None, Col("When it was made", Unit.TIME, ("time", "creation", "created", "date"))
    ]
    size: Annotated[
        int | None, Col("Size before deduplication; null while it is being made", Unit.BYTES)
    ]
    owner: Annotated[str | None, Col("Account that owns its group")]
    comment: Annotated[str | None, Col("First line of its notes", aliases=("notes",))]
    protected: Annotated[bool, Col("Whether it is protected from pruning")]
    encrypted: Annotated[bool, Col("Whether its data is encrypted with a key")]
    verification: Annotated[
        str,
        Col(
            "Result of its last verification; none: never verified",
            values=("ok", "failed", "none"),
            aliases=("verification_state",),
        ),
    ]
    verified: Annotated[
        bool | None,
        Col("Whether its last verification succeeded; null: never verified"),
    ]
    verification_time: Annotated[
        datetime | None, Col("When that verification began", Unit.TIME, ("verified_at",))
    ]
    verification_age: Annotated[
        int | None, Col("Time since then; never verified: since it was made", Unit.SECONDS)
    ]


class PbsJob(Row):
    """A job of a backup server, with its last run."""

    minimal: ClassVar[tuple[str, ...]] = (
        "type",
        "id",
        "datastore",
        "schedule",
        "next_run",
        "last_run",
        "last_run_status",
    )

    type: Annotated[
        str,
        Col(
            "What it does",
            values=("verify", "prune", "sync", "gc"),
            meanings={"gc": "garbage_collection", "verify": "verification", "prune": "retention"},
        ),
    ]
    id: Annotated[str, Col("Job id; of a garbage collection its datastore", aliases=("job",))]
    datastore: Annotated[str, Col("Datastore it works on", aliases=("store",))]
    namespace: Annotated[str, Col("Namespace it works on; empty for the root", aliases=("ns",))]
    schedule: Annotated[str | None, Col("Calendar event; null: it runs by hand only")]
    next_run: Annotated[datetime | None, Col("Next run", Unit.TIME)]
    last_run: Annotated[datetime | None, Col("Start of its last run", Unit.TIME)]
    last_run_end: Annotated[datetime | None, Col("End of it", Unit.TIME)]
    last_run_status: Annotated[
        str | None, Col("OK, WARNINGS: n, running, or the error", aliases=("state", "status"))
    ]
    last_run_ok: Annotated[bool | None, Col("Whether the last run went well")]
    remote: Annotated[str | None, Col("Remote that a sync job copies from, or to")]
    direction: Annotated[str | None, Col("Of a sync job", values=("pull", "push"))]
    comment: Annotated[str | None, Col("Comment of the job")]


@server_table("pbs_datastores", tool="ListStorage", cost=Cost.ONE)
async def pbs_datastores(cluster: Cluster, request: LoadRequest) -> list[PbsDatastore]:
    """Datastores of Proxmox Backup Servers: fill, deduplication, growth, garbage collection."""
    stores = await _datastores(cluster, request)
    collections: dict[str, ServerJob] = {}
    if stores and request.wants_column(*_GC):
        failure = f"Garbage collections of {cluster.name} are not known"
        jobs = await cluster.optional(cluster.pbs.gc_jobs(), failure)
        collections = {job.store: job for job in jobs or ()}
    recorded = sum(len(store.history) for store in stores)  # any number, from a hostile server

    def row(store: DatastoreUsage) -> list[PbsDatastore]:
        return [_datastore(store, collections.get(store.store))]

    return await made(cluster, stores, row, recorded)


async def _fill_guest_cluster(
    rows: Sequence[PbsSnapshot], server: Cluster, clusters: Sequence[Cluster]
) -> Sequence[PbsSnapshot]:
    """Fill in whose guests the backups are of, by the storages that clusters have on the server."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)

    async def read(cluster: Cluster) -> None:
        failure = f"Which backups of {server.name} are of guests of {cluster.name} is not known"
        with deadline(_STORAGES_SECONDS), tolerate_malformed() as left_out:
            storages = await cluster.optional(cluster.pve.storages(), failure)
        if left_out:
            cluster.note_malformed(left_out)
        for storage in storages or ():
            if server.pbs.is_target_of(storage):
                found[storage.datastore or "", storage.namespace or ROOT].add(cluster.name)

    await asyncio.gather(*map(read, clusters))
    owner = {place: single(names) for place, names in found.items()}
    return await offload(
        len(rows),
        lambda: [
            replace(row, guest_cluster=owner.get((row.datastore, row.namespace))) for row in rows
        ],
    )


@server_table(
    "pbs_snapshots",
    tool="ListBackups",
    cost=Cost.PER_NAMESPACE,
    relations=(TO_GUEST, TO_DATASTORE),
    across=Across("guest_cluster", "storages", _fill_guest_cluster),
)
async def pbs_snapshots(cluster: Cluster, request: LoadRequest) -> list[PbsSnapshot]:
    """Backups on Proxmox Backup Servers, in all namespaces, with verification and owner."""
    pbs = cluster.pbs
    readable = [store.store for store in await _datastores(cluster, request) if not store.error]
    spaces = await fanout.each(cluster, readable, pbs.namespaces, request, "datastore")
    places = {
        f"{store}/{space.name}": (store, space.name)
        for store, some in spaces.items()
        for space in some
    }
    vmid = single(request.vmids)

    async def read(place: str) -> list[BackupSnapshot]:
        store, namespace = places[place]
        return await pbs.snapshots(store, namespace, str(vmid) if vmid else None)

    answers = await fanout.each(cluster, places, read, request, "snapshots of")
    pairs = [(places[place], snapshot) for place, some in answers.items() for snapshot in some]
    rows = await made(cluster, pairs, lambda pair: [_snapshot(*pair)])
    return [row for row in rows if not request.vmids or row.vmid in request.vmids]


@server_table("pbs_jobs", tool="ListBackupJobs", cost=Cost.ONE, relations=(TO_DATASTORE,))
async def pbs_jobs(cluster: Cluster, request: LoadRequest) -> list[PbsJob]:
    """Jobs of Proxmox Backup Servers: verify, prune, sync and garbage collection, last runs."""
    pbs = cluster.pbs
    await _datastores(cluster, request)  # notes what the account does not see
    await _note_hidden(cluster, "Remote.Audit")
    reads = {
        "verify": pbs.verify_jobs,
        "prune": pbs.prune_jobs,
        "sync": pbs.sync_jobs,
        "gc": pbs.gc_jobs,
    }

    async def read(kind: str) -> list[ServerJob]:
        return await reads[kind]()

    answers = await fanout.each(cluster, reads, read, request, "jobs of type")
    pairs = [
        (kind, job)
        for kind, jobs in answers.items()
        for job in jobs
        if request.wants_storage(job.store)
    ]
    return await made(cluster, pairs, lambda pair: [_job(*pair)])


async def _datastores(cluster: Cluster, request: LoadRequest) -> Sequence[DatastoreUsage]:
    """Return the requested visible datastores; note those that cannot be read, or are hidden."""
    visible = (await cluster.inventory_view()).datastores
    await _note_hidden(cluster, "Datastore.Audit")
    stores = [store for store in visible if request.wants_storage(store.store)]
    unreadable = [store for store in stores if store.error]
    for store in unreadable[:_NAMED]:
        cluster.notes.add(
            f"Datastore {store.store} of {cluster.name} cannot be read: {store.error!r}."
        )
    if more := len(unreadable[_NAMED:]):
        cluster.notes.add(f"{counted(more, 'more datastore')} of {cluster.name} cannot be read.")
    return stores


async def _note_hidden(cluster: Cluster, privilege: str) -> None:
    """Note what the account does not see; its privileges are read once for each inventory."""
    cache = (await cluster.inventory.view()).derived
    with suppress(ProxmoxError):  # the rows stand without the note
        if "permissions" not in cache:
            cache["permissions"] = await cluster.pbs.permissions()
        for sentence in hidden_parts(
            cluster.account,
            cluster.name,
            cache["permissions"],
            privilege,
            names_paths=cluster.scope.everything,
        ):
            cluster.notes.add(sentence, advice=True)


def is_ok(status: str | None) -> bool | None:
    """Return whether a task went well; None if it runs or its end is not known."""
    if status in (None, "unknown", "running"):
        return None
    return status == "OK" or str(status).startswith("WARNINGS")


def _status(job: ServerJob | None) -> str | None:
    """Return how a job's last run ended; one without an end is running."""
    if job is None or job.last_run is None:
        return None
    return job.last_state or "running"


def _growth(usage: DatastoreUsage) -> Forecast | None:
    """Return the forecast from the recorded fractions of the last month, unless they are none."""
    total, start, delta = usage.total, usage.history_start, usage.history_delta
    if not total or start is None or not delta or len(usage.history) > _MOST_RECORDED:
        return None
    points = [
        Point(start + step * delta, fraction * total)
        for step, fraction in enumerate(usage.history)
        if fraction is not None
    ]
    return forecast(points, total)


def _datastore(usage: DatastoreUsage, job: ServerJob | None) -> PbsDatastore:
    collected, found, status = usage.garbage_collection, _growth(usage), _status(job)
    factor = collected.deduplication_factor if collected else None
    return PbsDatastore(
        datastore=usage.store,
        disk_usage_percentage=percent(usage.used, usage.total),
        disk_usage=usage.used,
        disk_total=usage.total,
        disk_free=usage.available,
        deduplication_factor=None if factor is None else round(factor, 1),
        growth_per_day=round(found.growth) if found else None,
        growth_uncertainty=round(found.uncertainty) if found else None,
        full_on=moment(found.full) if found else None,
        full_earliest=moment(found.earliest) if found else None,
        full_latest=moment(found.latest) if found else None,
        gc_last_run=moment(job.last_run) if job else None,
        gc_status=status,
        gc_ok=is_ok(status),
        gc_next_run=moment(job.next_run) if job else None,
        pending_bytes=collected.pending_bytes if collected else None,
        error=usage.error,
    )


def _snapshot(place: tuple[str, str], snapshot: BackupSnapshot) -> PbsSnapshot:
    verification = snapshot.verification
    state = verification.state if verification else "none"
    checked = moment(verification.time) if verification else None
    return PbsSnapshot(
        datastore=place[0],
        namespace=place[1],
        backup_type=snapshot.type,
        backup_id=snapshot.id,
        vmid=None if snapshot.type == "host" else whole_number(snapshot.id),
        guest_cluster=None,
        backup_time=moment(snapshot.time),
        size=snapshot.size,
        owner=snapshot.owner,
        comment=snapshot.comment,
        protected=snapshot.protected,
        encrypted=snapshot.is_encrypted,
        verification=state,
        verified=state == "ok" if verification else None,
        verification_time=checked,
        verification_age=seconds_since(checked or moment(snapshot.time)),
    )


def _job(kind: str, job: ServerJob) -> PbsJob:
    status = _status(job)
    return PbsJob(
        type=kind,
        id=job.id or job.store,
        datastore=job.store,
        namespace=job.namespace or ROOT,
        schedule=job.schedule,
        next_run=None if job.disable else moment(job.next_run),
        last_run=moment(job.last_run),
        last_run_end=moment(job.last_end),
        last_run_status=status,
        last_run_ok=is_ok(status),
        remote=job.remote,
        direction=(job.direction or "pull") if kind == "sync" else None,
        comment=job.comment,
    )
