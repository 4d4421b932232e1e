"""The Content-Security-Policy of the admin pages, and of the views that one of them shows."""

from typing import Final

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
VIEW_POLICY: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; form-action 'none'; frame-ancestors 'self'; "
    "base-uri 'none'"
)
"""A view is a document of its own in a sandbox without an origin: its inline script reaches neither
the page nor its session, and it may be shown by a page of this server only."""
