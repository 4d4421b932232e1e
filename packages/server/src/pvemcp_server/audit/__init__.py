"""The audit: every call and refused attempt, in a hash chain that reveals tampering."""

from pvemcp_server.audit.audit import Audit, Event, Outcome, current_call, open_audit
from pvemcp_server.audit.forwarder import Forwarder, Progress, progress_of
from pvemcp_server.audit.guard import AuditGuard
from pvemcp_server.audit.mask import mask, secret_fields_of
from pvemcp_server.audit.reader import Entry, Kind
from pvemcp_server.store.audit_chain import Finding, Mark
from pvemcp_server.store.audit_search import AuditFilter, Count

__all__ = [
    "Audit",
    "AuditFilter",
    "AuditGuard",
    "Count",
    "Entry",
    "Event",
    "Finding",
    "Forwarder",
    "Kind",
    "Mark",
    "Outcome",
    "Progress",
    "current_call",
    "mask",
    "open_audit",
    "progress_of",
    "secret_fields_of",
]
