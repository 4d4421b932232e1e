"""Who may do what: callers, roles and what they reach."""

from pvemcp_server.access.access import Access, open_access
from pvemcp_server.access.model import Area, Caller, Effect, Grant, Resources, Role

__all__ = ["Access", "Area", "Caller", "Effect", "Grant", "Resources", "Role", "open_access"]
