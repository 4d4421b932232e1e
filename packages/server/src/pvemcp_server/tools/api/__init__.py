"""The whole API of Proxmox: find a method, call it.

A role has to name these tools: "every tool that only reads" does not include them, because
Proxmox's privileges alone bound what they answer. Writing takes a permission of its own.
"""

from pvemcp_server.tools.api import call, find

__all__ = ["call", "find"]
