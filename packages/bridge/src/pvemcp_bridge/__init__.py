"""Bridge between an MCP client on standard input and output and an MCP server over HTTP."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("pvemcp-bridge")
