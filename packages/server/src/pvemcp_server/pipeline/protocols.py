"""What the endpoint needs of the parts below it, no more."""

from typing import Protocol

from pvemcp_server.access.model import Caller
from pvemcp_server.audit import Event
from pvemcp_server.settings import Values


class Authenticator(Protocol):
    """Knows whose secret it is; raises AccessDenied when it is nobody's."""

    async def authenticate(self, secret: str, address: str) -> Caller: ...


class CurrentSettings(Protocol):
    """The settings as they are now."""

    async def current(self) -> Values: ...


class RefusalLog(Protocol):
    """Keeps attempts that were not let in."""

    async def refused(self, event: Event) -> None: ...


class Records(RefusalLog, Protocol):
    """The audit, as far as calls need it."""

    async def intent(self, event: Event) -> str: ...

    async def outcome(self, call_id: str, event: Event) -> None: ...

    async def call(self, event: Event) -> None: ...
