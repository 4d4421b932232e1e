"""Who acts, on what, and how each change is put on record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pvemcp_server.audit import Event, Outcome
from pvemcp_server.endpoint.services import Services


@dataclass(frozen=True)
class Acting:
    """An administrator at work: `by` is their name, or `cli:` and the name of the system user."""

    services: Services
    by: str
    address: str = ""

    async def changed(self, action: str, *, cluster: str | None = None, **details: Any) -> None:
        """Put a change on record; `action` reads like a tool, `keys.create`.

        This process knows of the change when it returns, others within a second.
        """
        await self.services.store.watch.now()
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


def _plain(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in details.items() if value is not None}
