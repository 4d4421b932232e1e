"""The AI server for Proxmox VE: an MCP endpoint over all configured clusters."""

from importlib.metadata import version

__version__ = version("pvemcp-server")
