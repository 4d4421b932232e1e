"""GetAttention: checks over the tables, and the tool that runs them."""

from pvemcp_server.tools.attention import attention
from pvemcp_server.tools.attention.attention import inventory_findings
from pvemcp_server.tools.attention.model import Severity

__all__ = ["Severity", "attention", "inventory_findings"]
