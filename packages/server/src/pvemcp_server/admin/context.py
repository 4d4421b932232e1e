"""The administrator who acts, and how each change is recorded in the audit."""

from dataclasses import dataclass, field
from typing import Any

from pvemcp_server.admin.permission import NO_AUTHORITY, Authority, Permission
from pvemcp_server.audit import Event, Outcome
from pvemcp_server.errors import DoneUnrecorded, NotPermitted, Unrecorded
from pvemcp_server.services import Services


@dataclass(frozen=True)
class AdminContext:
    """An administrator with the server's services.

    `by` is their name, `cli:` with the name of the system user, or `token:` with the name of the
    service token, which is then also `acting`. `session_id` is the session that the request came
    in, on the pages and the REST API. Operations check `authority`: by default it permits none.
    """

    services: Services
    by: str
    address: str = ""
    session_id: str = field(default="", repr=False)
    authority: Authority = NO_AUTHORITY
    acting: str | None = None

    def is_account(self, name: str) -> bool:
        """Return whether this administrator, who has signed in, has the name."""
        return bool(self.session_id) and name == self.by

    async def require(self, permission: Permission) -> None:
        """Record a refusal and raise NotPermitted unless the actor has the permission."""
        if not self.authority.permits(permission):
            reason = f"not permitted to {self.authority}"
            await self.refused(permission.operation, reason)
            raise NotPermitted(f"{permission.operation} is {reason}.")

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
                acting=self.acting,
                address=self.address,
                cluster=cluster,
                arguments={name: value for name, value in details.items() if value is not None},
                outcome=Outcome.OK,
            )
        )

    async def refused(self, action: str, reason: str) -> None:
        """Record an operation that the actor may not run."""
        await self.services.audit.refused(
            Event(
                tool=f"admin.{action}",
                key_name=self.by,
                acting=self.acting,
                address=self.address,
                outcome=Outcome.REFUSED,
                reason=reason,
            )
        )
