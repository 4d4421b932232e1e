"""The administrator who acts, and how each change is recorded in the audit."""

from dataclasses import dataclass, field
from typing import Any

from pvemcp_server.audit import Event, Outcome
from pvemcp_server.errors import DoneUnrecorded, Unrecorded
from pvemcp_server.services import Services


@dataclass(frozen=True)
class AdminContext:
    """An administrator with the server's services.

    `by` is their name, or `cli:` and the name of the system user. `session_id` is the session that
    the request came in, on the pages and the REST API.
    """

    services: Services
    by: str
    address: str = ""
    session_id: str = field(default="", repr=False)

    async def changed(self, action: str, *, cluster: str | None = None, **details: Any) -> None:
        """Record a change that was made; `action` is the operation's name, as `keys.create`.

        When it returns, this process uses the change; other processes follow within a second.
        Raise DoneUnrecorded where the audit cannot be written: the change itself stands.
        """
        await self.services.store.watch.poll()
        try:
            await self.recorded(action, cluster=cluster, **details)
        except Unrecorded:
            raise DoneUnrecorded(action) from None

    async def recorded(self, action: str, *, cluster: str | None = None, **details: Any) -> None:
        """Record an action; raise Unrecorded where that is impossible. Details of None are left
        out."""
        await self.services.audit.admin(
            Event(
                tool=f"admin.{action}",
                key_name=self.by,
                address=self.address,
                cluster=cluster,
                arguments={name: value for name, value in details.items() if value is not None},
                outcome=Outcome.OK,
            )
        )
