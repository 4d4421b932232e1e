"""Who acts, on what, and how each change is put on record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from pvemcp_server.audit import Event, Outcome
from pvemcp_server.errors import DoneUnrecorded, Unrecorded
from pvemcp_server.services import Services


@dataclass(frozen=True)
class AdminContext:
    """An administrator at work: `by` is their name, or `cli:` and the name of the system user."""

    services: Services
    by: str
    address: str = ""

    async def changed(self, action: str, *, cluster: str | None = None, **details: Any) -> None:
        """Put a change on record; `action` reads like a tool, `keys.create`.

        This process knows of the change when it returns, others within a second.
        """
        await self.services.store.watch.poll()
        try:
            await self.recorded(action, cluster=cluster, **details)
        except Unrecorded:
            raise DoneUnrecorded(action) from None

    async def recorded(self, action: str, *, cluster: str | None = None, **details: Any) -> None:
        """Put on record what is about to be done; raises Unrecorded where that is impossible."""
        await self.services.audit.admin(
            Event(
                tool=f"admin.{action}",
                key_name=self.by,
                address=self.address,
                cluster=cluster,
                arguments=_plain(details),
                outcome=Outcome.OK,
            )
        )


def given(changes: BaseModel, *clearable: str) -> dict[str, Any]:
    """What is to be changed; null is like left out, but for what may be cleared."""
    values = changes.model_dump(exclude_unset=True)
    return {name: one for name, one in values.items() if one is not None or name in clearable}


def _plain(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in details.items() if value is not None}
