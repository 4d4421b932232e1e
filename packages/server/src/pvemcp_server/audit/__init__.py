"""Who did what: every call and refused attempt, in a chain that shows tampering."""

from pvemcp_server.audit.audit import Audit, open_audit
from pvemcp_server.audit.event import Event, Kind, Outcome
from pvemcp_server.audit.mask import mask

__all__ = ["Audit", "Event", "Kind", "Outcome", "mask", "open_audit"]
