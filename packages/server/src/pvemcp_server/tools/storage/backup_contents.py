"""What a backup contains: the configuration of its guest, and its files."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from proxmox_client import BadParameters
from proxmox_client.api.configs import LxcConfig
from proxmox_client.api.storage import BackupFile
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import Precondition
from pvemcp_server.tables import Backup
from pvemcp_server.tables.config_options import shown
from pvemcp_server.tables.rows import Col, Row, Unit, moment
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import AnyNode, ItsCluster
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.registry import Document, document, tool
from pvemcp_server.tools.guests.config import disk_fields, network_fields
from pvemcp_server.tools.storage.backup_lookup import NamedBackup, backup_named


class BackupContents(Row):
    """The configuration of a guest at the time of a backup."""

    cluster: Annotated[str, Col("Cluster")]
    volid: Annotated[str, Col("Volume id of the backup")]
    node: Annotated[str, Col("Node that was asked; for a shared storage one of many")]
    creation: Annotated[datetime | None, Col("When it was made", Unit.TIME)]
    size: Annotated[int, Col("Size of the backup", Unit.BYTES)]
    vmid: Annotated[int | None, Col("Guest it is of")]
    name: Annotated[str, Col("Name of the guest then")]
    type: Annotated[Literal["qemu", "lxc"], Col("Virtual machine (qemu) or container (lxc)")]
    description: Annotated[str | None, Col("Notes of the guest")]
    tags: Annotated[list[str], Col("Tags")]
    cores: Annotated[int | None, Col("Cores, per socket (qemu)", Unit.COUNT)]
    memory_mb: Annotated[int, Col("Memory", Unit.MIB)]
    os_type: Annotated[str | None, Col("Kind of operating system")]
    disks: Annotated[list[dict[str, Any]], Col("Disks; backup=false are not in it")]
    networks: Annotated[list[dict[str, Any]], Col("Network devices")]
    other: Annotated[dict[str, Any], Col("Everything else, as given; secrets are hidden")]


Folder = Annotated[
    str | None, Field(max_length=4_096, description="As / or /root.pxar.didx/etc (PBS)")
]
MOST_FILES: Final = 200  # entries of a folder in an answer
_TO_GET_ONE: Final = (
    "Files are listed, not read: Proxmox's own page downloads one (File Restore of the backup), "
    "and RestoreBackup to a new guest gives all of them."
)
_KINDS: Final = {"d": "folder", "f": "file", "l": "link", "h": "link", "v": "archive"}
_IN_FIELDS = {"name", "hostname", "description", "tags", "cores", "memory", "ostype"}


@tool(
    "GetBackupContents",
    area=Area.STORAGE,
    effect=Effect.READ,
    toolset=Toolset.LIFECYCLE,
    answer=BackupContents,
    needs=(needs.STORAGES, needs.BACKUPS_OF_GUESTS, needs.BACKUPS_ON_STORAGES),
)
async def get_backup_contents(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    backup: NamedBackup,
    node: AnyNode = None,
    folder: Folder = None,
) -> Document:
    """Get the guest's configuration inside a backup, or list a folder of its files."""
    cluster, row = await backup_named(call, cluster_name, backup, node)
    if folder is not None:
        return await _files(call, cluster, row, folder)
    config = await cluster.pve.node(row.node).backup_config(row.volid)
    devices = {disk.id for disk in config.disks} | {network.id for network in config.networks}
    return document(
        BackupContents(
            cluster=cluster.name,
            volid=row.volid,
            node=row.node,
            creation=row.creation,
            size=row.size,
            vmid=row.vmid,
            name=config.name,
            type="lxc" if isinstance(config, LxcConfig) else "qemu",
            description=(config.description or "").strip() or None,
            tags=config.tag_list,
            cores=config.cores,
            memory_mb=config.memory_mb,
            os_type=config.os_type,
            disks=[disk_fields(disk) for disk in config.disks],
            networks=[network_fields(network) for network in config.networks],
            other={
                key: shown(key, value)
                for key, value in sorted(config.raw.items())
                if key not in _IN_FIELDS | devices
            },
        )
    )


async def _files(call: Call, cluster: Cluster, backup: Backup, folder: str) -> Document:
    """Return the entries of a folder in a backup; raise Precondition where Proxmox lists none."""
    folder = "/" + folder.strip("/")
    storage = cluster.pve.storage(backup.node, backup.storage)
    try:
        files = await storage.backup_files(backup.volid, folder)
    except BadParameters as error:
        if "storage" not in error.errors:
            raise
        raise Precondition(
            "Proxmox lists files only in backups on a Proxmox Backup Server, and "
            f"{backup.storage} is none.",
            hint="RestoreBackup to a new guest gives its files.",
        ) from error
    files.sort(key=lambda each: (each.leaf, each.name))
    call.notes.add(_TO_GET_ONE)
    if len(files) > MOST_FILES:
        call.notes.add(f"The first {MOST_FILES} of {len(files):,} entries of the folder.")
    return {
        "cluster": cluster.name,
        "volid": backup.volid,
        "node": backup.node,
        "folder": folder,
        "files": [_file(each) for each in files[:MOST_FILES]],
    }


def _file(entry: BackupFile) -> dict[str, Any]:
    known = {"size": entry.size, "modified": moment(entry.mtime)}
    row = {"name": entry.name, "type": _KINDS.get(entry.type, entry.type)}
    return row | {name: value for name, value in known.items() if value is not None}
