"""Everything an administrator does, once: pages, REST API and command line call these.

Each change is written to the audit with who made it, from where, and what it was.
"""

from pvemcp_server.admin.context import AdminContext

__all__ = ["AdminContext"]
