"""Tools for storages, their content, backups and pools."""

from pvemcp_server.tools.storage import (
    backup_contents,
    backups,
    content,
    deletions,
    downloads,
    pools,
    restores,
    storages,
)

__all__ = [
    "backup_contents",
    "backups",
    "content",
    "deletions",
    "downloads",
    "pools",
    "restores",
    "storages",
]
