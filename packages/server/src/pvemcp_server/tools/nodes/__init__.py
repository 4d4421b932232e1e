"""Tools for nodes and their tasks."""

from pvemcp_server.tools.nodes import nodes, status, task_list, tasks

__all__ = ["nodes", "status", "task_list", "tasks"]
