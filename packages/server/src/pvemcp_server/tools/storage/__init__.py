"""Tools for storages, their content, backups and pools."""

from pvemcp_server.tools.storage import backups, content, deletions, downloads, pools, storages

__all__ = ["backups", "content", "deletions", "downloads", "pools", "storages"]
