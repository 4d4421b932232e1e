"""Tools for storages and what they hold."""

from pvemcp_server.tools.storage import deletion, download, storages

__all__ = ["deletion", "download", "storages"]
