"""GetAttention: checks over the tables, and the tool that runs them."""

from pvemcp_server.tools.attention import attention

__all__ = ["attention"]
