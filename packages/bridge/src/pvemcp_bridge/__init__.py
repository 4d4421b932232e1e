"""Carries MCP messages between a client's standard input and a server's HTTP endpoint."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("pvemcp-bridge")
