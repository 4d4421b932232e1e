"""Carries MCP: a gate, the transports of all protocol eras, and one pipeline for every call."""
