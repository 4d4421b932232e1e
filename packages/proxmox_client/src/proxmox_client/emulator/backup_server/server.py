"""A running emulated backup server: one listener with its own certificate."""

import logging
from typing import Final
from uuid import uuid4

from proxmox_client.emulator.backup_server import api
from proxmox_client.emulator.backup_server.state import (
    NODE,
    PRIVILEGES,
    Account,
    BackupServerState,
)
from proxmox_client.emulator.certificates import CertificateAuthority
from proxmox_client.emulator.errors import ApiError, Unauthorized
from proxmox_client.emulator.faults import Fault, FaultKind, Faults
from proxmox_client.emulator.http.connection import ConnectionLimits
from proxmox_client.emulator.http.listener import Listener
from proxmox_client.emulator.http.messages import Request, Response

LOG: Final = logging.getLogger(__name__)
UNAUTHORIZED_DELAY: Final = 3.0
TOKEN_ID: Final = "mcp@pbs!emulator"  # noqa: S105 - its name, not its secret


class EmulatedBackupServer:
    """One emulated backup server; tests may read and change its `state` at any time."""

    def __init__(self, state: BackupServerState, limits: ConnectionLimits | None = None) -> None:
        self.state = state
        self.faults = Faults(state.clock, seed=1)
        self._limits = limits or ConnectionLimits()
        self._certificate = CertificateAuthority(state.name).issue(NODE, "127.0.0.1")
        self._listener: Listener | None = None
        self._port = 0
        self.token = self.add_account(TOKEN_ID, {"/": PRIVILEGES})

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def hosts(self) -> list[str]:
        """Its address, as host:port."""
        return [f"127.0.0.1:{self._port}"]

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint of its certificate, which no authority has signed for clients."""
        return self._certificate.fingerprint

    def add_account(self, token_id: str, privileges: dict[str, frozenset[str]]) -> tuple[str, str]:
        """Add an API token with these privileges by path; return its ID and secret."""
        secret = str(uuid4())
        self.state.accounts[token_id] = Account(secret, privileges)
        return token_id, secret

    async def start(self, address: str = "127.0.0.1", port: int = 0) -> None:
        """Listen on the port; raise OSError if it is in use."""
        certificate = self._certificate
        self._listener = Listener(self.answer, lambda: certificate.context, self._limits)
        self._listener.start(address, port or self._port)
        self._port = self._listener.port

    async def stop(self) -> None:
        """Refuse connections from now on; `start` listens on the same port again."""
        if self._listener is not None:
            await self._listener.stop()
            self._listener = None

    def fault(self, kind: FaultKind | str, **details: object) -> Fault:
        """Add a fault; `details` are the fields of Fault."""
        return self.faults.add(Fault(FaultKind(kind), **details))  # type: ignore[arg-type]  # checked by Fault

    async def answer(self, request: Request) -> Response:
        """Return the response to a request; never raises."""
        try:
            faulty = await self.faults.before_request(NODE, request.method, request.path)
            response = faulty or api.answer(self.state, request)
        except Unauthorized as refusal:
            await self.state.clock.sleep(UNAUTHORIZED_DELAY)
            return api.error(ApiError(refusal.reason, status=401))
        except ApiError as problem:
            return api.error(problem)
        except Exception:
            # A bug of the emulator: log it, answer 500 and go on serving
            LOG.exception("%s %s could not be answered", request.method, request.path)
            return api.error(ApiError("the emulator made a mistake: see its log"))
        return self.faults.after_response(NODE, request.method, request.path, response)
