"""Access control: keys, roles, callers, administrators and clusters."""

from pvemcp_server.access.access import Access, open_access
from pvemcp_server.access.external import ExternalAdmins
from pvemcp_server.access.model import Area, Caller, Effect, Grant, Resources, Role

__all__ = [
    "Access",
    "Area",
    "Caller",
    "Effect",
    "ExternalAdmins",
    "Grant",
    "Resources",
    "Role",
    "open_access",
]
