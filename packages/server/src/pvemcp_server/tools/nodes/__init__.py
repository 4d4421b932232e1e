"""Tools for nodes and their tasks."""

from pvemcp_server.tools.nodes import logs, nodes, status, tasks

__all__ = ["logs", "nodes", "status", "tasks"]
