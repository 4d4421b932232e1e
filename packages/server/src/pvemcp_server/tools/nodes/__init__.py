"""Tools for nodes and their tasks."""

from pvemcp_server.tools.nodes import nodes, status, tasks

__all__ = ["nodes", "status", "tasks"]
