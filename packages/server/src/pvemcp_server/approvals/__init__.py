"""Approvals: calls of clients that cannot ask their user, decided by an administrator.

A call waits under a number. An administrator decides that exact plan, and the client's next
identical call carries it out, once.
"""

from pvemcp_server.approvals.approvals import (
    APPROVED_LIFE,
    TIME,
    WAITING_LIFE,
    Approvals,
    PlannedCall,
)
from pvemcp_server.approvals.webhook import Webhook

__all__ = ["APPROVED_LIFE", "TIME", "WAITING_LIFE", "Approvals", "PlannedCall", "Webhook"]
