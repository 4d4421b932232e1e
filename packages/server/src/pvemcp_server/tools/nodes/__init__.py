"""Tools for nodes, their tasks and what changed there."""

from pvemcp_server.tools.nodes import changes, logs, nodes, status, tasks

__all__ = ["changes", "logs", "nodes", "status", "tasks"]
