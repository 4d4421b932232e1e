"""The backup server of the demo: it has the backups that prod lists on its storage pbs-main."""

from collections.abc import Mapping
from typing import Final

from proxmox_client.emulator.backup_server.state import (
    BackupServerState,
    Datastore,
    Job,
    Run,
    Snapshot,
)
from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.sizes import GIB, TIB
from proxmox_client.emulator.state.storage import Volume

NAME: Final = "backup"
DAY: Final = 86_400
HOUR: Final = 3600
_KEY: Final = ":".join(["5f"] * 32)
_ARCHIVED: Final = (101, 103, 150)
_REFUSED: Final = "sync failed with some errors."


def backup_server(clock: Clock, clusters: Mapping[str, ClusterState]) -> BackupServerState:
    """Build the server: datastore main, its namespace archive, and the datastore offsite.

    A verification found corrupt backups, new ones are not verified yet, and the copy from another
    site fails since three days.
    """
    now = int(clock.now())
    state = BackupServerState(NAME, clock)
    main = Datastore("main", 48 * TIB, int(48 * TIB * 0.74), 40 * GIB, comment="Nightly backups")
    main.namespaces[""] = [
        *_of_storages(clusters, main.name, now),
        *(_host("gateway", now - night * DAY - 5 * HOUR) for night in range(3)),
    ]
    main.namespaces["archive"] = [
        _archived(vmid, now - month * 30 * DAY, now) for vmid in _ARCHIVED for month in (2, 3)
    ]
    main.collected = Run(now - 9 * HOUR, now - 7 * HOUR)
    offsite = Datastore("offsite", 12 * TIB, int(12 * TIB * 0.93), 40 * GIB, comment="Other site")
    offsite.namespaces[""] = [
        _archived(vmid, now - day * DAY, now) for vmid in _ARCHIVED for day in (4, 11)
    ]
    offsite.collected = Run(now - 33 * HOUR, now - 32 * HOUR)
    offsite.deduplication = 6.5
    state.datastores = {store.name: store for store in (main, offsite)}
    state.jobs = [
        _job("verify", "v-main", "main", "04:30", now - 4 * HOUR, 2 * HOUR),
        _job("verify", "v-offsite", "offsite", "sun 06:00", now - 3 * DAY, HOUR),
        _job("prune", "p-main", "main", "02:00", now - 6 * HOUR, 40),
        _job("sync", "s-offsite", "offsite", "03:00", now - 5 * HOUR, 90, _REFUSED),
    ]
    state.jobs[-1].remote = "site-b"
    return state


def _job(
    kind: str, id_: str, store: str, schedule: str, started: int, seconds: int, end: str = "OK"
) -> Job:
    return Job(kind, id_, store, schedule, last=Run(started, started + seconds, end))


def _of_storages(clusters: Mapping[str, ClusterState], store: str, now: int) -> list[Snapshot]:
    """Return the backups that the clusters list on their storages with this datastore."""
    volumes = (
        volume
        for cluster in clusters.values()
        for storage in cluster.storages.values()
        if storage.is_backup_server and storage.options.get("datastore") == store
        for volume in storage.everything()
    )
    return [_of_volume(volume, now) for volume in volumes]


def _of_volume(volume: Volume, now: int) -> Snapshot:
    """Return the snapshot behind a volume; last night's verification was before it was made."""
    _, kind, vmid, _ = volume.name.split("/")
    snapshot = Snapshot(kind, vmid, volume.ctime, volume.size, comment=volume.notes)
    snapshot.protected, snapshot.fingerprint = volume.protected, volume.encrypted
    snapshot.verified = volume.verified
    snapshot.verified_at = min(now, volume.ctime + 3 * HOUR)
    return snapshot


def _host(name: str, time: int) -> Snapshot:
    """Return a backup of a machine that is no guest."""
    return Snapshot("host", name, time, 21 * GIB, owner="backup@pbs!gateway", fingerprint=_KEY)


def _archived(vmid: int, time: int, now: int) -> Snapshot:
    """Return an old copy; it was verified once, soon after it was made."""
    verified_at = min(now, time + DAY)
    return Snapshot(
        *("vm", str(vmid), time, 60 * GIB, "archive@pbs!sync"),
        protected=vmid == _ARCHIVED[-1],
        verified="ok",
        verified_at=verified_at,
    )
