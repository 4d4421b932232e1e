"""The SDK's connection behind a session: the only private attribute of the SDK that we read.

A session's subscriber has to be kept with its connection, and removed when the connection ends.
`Connection.state` and `Connection.exit_stack` are public and meant for this ("push cleanup from
handlers"), but in mcp 2.x the context of a handler leads to the connection only through a private
attribute: `mcp.server.context.Context.connection` is not passed to handlers yet.
"""

from mcp.server.connection import Connection
from mcp.server.session import ServerSession


def connection_of(session: ServerSession) -> Connection:
    """Return the connection that lives as long as the client's session."""
    return session._connection  # noqa: SLF001 - see above
