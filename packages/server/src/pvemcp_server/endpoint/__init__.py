"""Carries MCP: a gate, the transports of all protocol eras, and one pipeline for every call."""

from pvemcp_server.endpoint.endpoint import Endpoint, Services

__all__ = ["Endpoint", "Services"]
