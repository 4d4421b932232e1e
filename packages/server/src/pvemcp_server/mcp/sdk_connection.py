"""What the SDK's session does not offer: the only two private attributes of the SDK that we read.

A session's subscriber has to be kept with its connection, and removed when the connection ends.
`Connection.state` and `Connection.exit_stack` are public and meant for this ("push cleanup from
handlers"), but in mcp 2.x the context of a handler leads to the connection only through a private
attribute: `mcp.server.context.Context.connection` is not passed to handlers yet.

A question needs an id of ours. `CallOptions.request_id` is public, but `ServerSession.send_request`
does not take it, and the channel of the running request is private.
"""

import mcp_types as types
from mcp.server.connection import Connection
from mcp.server.session import ServerSession


def connection_of(session: ServerSession) -> Connection:
    """Return the connection that lives as long as the client's session."""
    return session._connection  # noqa: SLF001 - see above


async def elicit_with_id(
    session: ServerSession, message: str, form: types.ElicitRequestedSchema, request_id: str
) -> types.ElicitResult:
    """Ask the user on the stream of the running request, like `elicit_form`, under this id."""
    params = types.ElicitRequestFormParams(message=message, requested_schema=form)
    channel = session._request_outbound  # noqa: SLF001 - see above
    result = await channel.send_raw_request(
        "elicitation/create",
        params.model_dump(by_alias=True, mode="json", exclude_none=True),
        {"request_id": request_id},
    )
    return types.ElicitResult.model_validate(result, by_name=False)
