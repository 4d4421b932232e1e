"""Tools for nodes, their tasks and what changed there."""

from pvemcp_server.tools.nodes import changes, logs, nodes, status, task_stop, tasks

__all__ = ["changes", "logs", "nodes", "status", "task_stop", "tasks"]
