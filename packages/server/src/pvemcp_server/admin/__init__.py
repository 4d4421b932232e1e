"""Administration: operations that pages, REST API and command line share.

An operation is declared once, in the module of its subject (see `operation.py`); route and
command follow from it. Each change is recorded in the audit with who made it, from where, and
what it changed. This package imports nothing, so that `pvemcp --version` stays fast.
"""

from typing import Final

SUBJECTS: Final = (
    *("overview", "doctor", "approvals", "keys", "connections", "connection_rules", "bridge"),
    *("roles", "clusters", "tools", "queries", "audit", "settings", "admins", "service_tokens"),
)
"""The modules of this package that declare operations, in the order in which pages and API show
them. The page of a subject, if it has one, is `web/pages/` with the same name; commands that are
not derived are in `cli/` with the same name."""
