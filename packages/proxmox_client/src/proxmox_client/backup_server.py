"""Client of one Proxmox Backup Server, for reads."""

from typing import ClassVar

from proxmox_client.api.access import Permissions
from proxmox_client.api.backup_server import (
    BackupServerVersion,
    BackupSnapshot,
    DatastoreUsage,
    Namespace,
    ServerJob,
)
from proxmox_client.api.storage import StorageConfig
from proxmox_client.auth import ApiToken, BackupServerToken, Credential
from proxmox_client.base_client import BaseClient
from proxmox_client.errors import BadParameters
from proxmox_client.hosts import BACKUP_SERVER_PORT
from proxmox_client.paths import join
from proxmox_client.tls import normalize_fingerprint
from proxmox_client.transport import Transport


class BackupServer(BaseClient):
    """An asynchronous client of one Proxmox Backup Server, with one API token.

    Its arguments and errors are those of `Client`; the default port is 8007. All calls are reads.
    """

    default_port: ClassVar[int] = BACKUP_SERVER_PORT

    def is_target_of(self, storage: StorageConfig) -> bool:
        """Return whether a storage of a cluster is on this server, by certificate or host."""
        if storage.type != "pbs":
            return False
        if storage.fingerprint and normalize_fingerprint(storage.fingerprint) in self.fingerprints:
            return True
        names = {host.name.casefold() for host in self.hosts}
        return (storage.server or "").strip("[]").casefold() in names

    async def version(self) -> BackupServerVersion:
        """GET /version. Needs an account, but no privilege.

        Source: src/api2/version.rs.
        """
        return await self.transport.get("/version", BackupServerVersion)

    async def permissions(self) -> Permissions:
        """GET /access/permissions. Needs an account; privileges by path, as in Proxmox VE.

        Source: src/api2/access/mod.rs.
        """
        return await self.transport.get("/access/permissions", Permissions)

    async def datastores(self) -> list[DatastoreUsage]:
        """GET /status/datastore-usage. Needs Datastore.Audit on /datastore/{store}.

        A datastore of which only a namespace is visible has no sizes.

        Source: src/api2/status.rs.
        """
        return await self.transport.get("/status/datastore-usage", list[DatastoreUsage])

    async def namespaces(self, store: str) -> list[Namespace]:
        """GET /admin/datastore/{store}/namespace. Needs Datastore.Audit; the root is one of them.

        Source: src/api2/admin/namespace.rs.
        """
        path = join("admin", "datastore", store, "namespace")
        return await self.transport.get(path, list[Namespace])

    async def snapshots(
        self, store: str, namespace: str = "", backup_id: str | None = None
    ) -> list[BackupSnapshot]:
        """GET /admin/datastore/{store}/snapshots. Needs Datastore.Audit, else only own ones.

        Only those of this namespace, not of the namespaces below it.

        Source: src/api2/admin/datastore.rs.
        """
        path = join("admin", "datastore", store, "snapshots")
        sent = {"ns": namespace or None, "backup-id": backup_id}
        return await self.transport.get(path, list[BackupSnapshot], **sent)

    async def verify_jobs(self) -> list[ServerJob]:
        """GET /admin/verify. Needs Datastore.Audit or Datastore.Verify on the datastore.

        Source: src/api2/admin/verify.rs.
        """
        return await self.transport.get("/admin/verify", list[ServerJob])

    async def prune_jobs(self) -> list[ServerJob]:
        """GET /admin/prune. Needs Datastore.Audit or Datastore.Modify on the datastore.

        Source: src/api2/admin/prune.rs.
        """
        return await self.transport.get("/admin/prune", list[ServerJob])

    async def sync_jobs(self) -> list[ServerJob]:
        """GET /admin/sync. Needs Datastore.Audit on the datastore and Remote.Audit on the remote.

        From 3.3 on jobs that push are listed only on request; older servers refuse the parameter.

        Source: src/api2/admin/sync.rs.
        """
        try:
            return await self.transport.get(
                "/admin/sync", list[ServerJob], **{"sync-direction": "all"}
            )
        except BadParameters:
            return await self.transport.get("/admin/sync", list[ServerJob])

    async def gc_jobs(self) -> list[ServerJob]:
        """GET /admin/gc. Needs Datastore.Audit on the datastore; one for each.

        Source: src/api2/admin/gc.rs.
        """
        return await self.transport.get("/admin/gc", list[ServerJob])

    def _use(self, auth: Credential | None) -> None:
        if not isinstance(auth, ApiToken | None):
            raise TypeError("a backup server is read with an API token")
        token = auth and BackupServerToken(auth.token_id, auth.secret)
        self.transport = Transport(self._pool, token)
