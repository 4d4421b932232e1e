"""Fixtures: the admin site of a whole application in this process."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from proxmox_client.emulator import Clock, EmulatedBackupServer, Emulator, demo
from proxmox_client.emulator import EmulatedCluster as Emulated
from proxmox_client.emulator.state.user_config import AclEntry as Acl
from proxmox_client.emulator.state.user_config import Token, User
from pvemcp_server.access import Access, ExternalAdmins, open_access
from pvemcp_server.access.sessions import RECENT
from pvemcp_server.app import App, create_app, open_services
from pvemcp_server.config import Config
from pvemcp_server.mcp.endpoint import Services
from pvemcp_server.settings import Settings
from pvemcp_server.store import Store, open_store
from pvemcp_server.store.records import AdminRole, ClusterKind, TlsMode

ADMIN, PASSWORD = "ada", "correct horse battery"


@dataclass
class State:
    """What the command line opens, as tests open it."""

    config: Config
    store: Store
    access: Access
    settings: Settings


@dataclass
class Front:
    """The application, and a browser that may be signed in."""

    app: App
    services: Services
    http: httpx.AsyncClient
    csrf: str = ""

    async def sign_in(self, name: str = ADMIN, password: str = PASSWORD) -> httpx.Response:
        """Sign in through the API; the client keeps the cookie."""
        self.http.cookies.clear()
        answer = await self.http.post(
            "/admin/api/session", json={"name": name, "password": password}
        )
        self.csrf = answer.json().get("csrf", "")
        return answer

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.http.get(path, **options)

    async def post(self, path: str, **fields: Any) -> httpx.Response:
        """Post a form as htmx does."""
        headers = {"X-CSRF-Token": self.csrf, "HX-Request": "true"}
        return await self.http.post(path, data=fields, headers=headers)

    async def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request to the API with the session's CSRF token."""
        headers = {"X-CSRF-Token": self.csrf}
        return await self.http.request(method, f"/admin/api{path}", headers=headers, **options)

    async def become(self, role: AdminRole) -> None:
        """Give the signed-in administrator another role, also as the last owner."""
        (admin,) = await self.services.store.admins.all(name=ADMIN)
        await self.services.store.admins.change(admin.id, role=role)

    async def forget_proof(self) -> None:
        """Let the last proof of who the administrator is lie too far back."""
        for session in await self.services.store.sessions.all():
            before = session.verified_at - RECENT
            await self.services.store.sessions.change(session.digest, verified_at=before)

    async def add_cluster(self, emulated: Emulated | EmulatedBackupServer) -> None:
        """Configure the emulated cluster or backup server."""
        token_id, secret = emulated.token
        is_server = isinstance(emulated, EmulatedBackupServer)
        await self.services.access.clusters.create(
            emulated.name,
            emulated.hosts,
            kind=ClusterKind.PBS if is_server else ClusterKind.PVE,
            token_id=token_id,
            secret=secret,
            tls_mode=TlsMode.PINNED,
            fingerprints=[emulated.fingerprint] if is_server else emulated.fingerprints.values(),
        )
        await self.services.store.watch.poll()


OpenFront = Callable[..., AbstractAsyncContextManager[Front]]


@pytest.fixture
def open_front(tmp_path: Path, new_state: Path) -> OpenFront:
    """Open the application on its own state, with one administrator."""

    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Front]:
        config = Config(state_dir=tmp_path / "state", log_level="warning", **options)
        shutil.copytree(new_state, config.state_dir, dirs_exist_ok=True)
        external = ExternalAdmins.configured(config)
        async with open_store(config) as store, open_access(store, external) as access:
            state = State(config, store, access, Settings(store))
            await access.admins.create(ADMIN, PASSWORD, must_change=False)
            async with open_services(state) as services:
                app = create_app(services)
                transport = httpx.ASGITransport(app=app.asgi)
                async with httpx.AsyncClient(
                    transport=transport, base_url="http://localhost"
                ) as http:
                    yield Front(app, services, http)

    return opened


@pytest.fixture
async def stranger(open_front: OpenFront) -> AsyncIterator[Front]:
    """Provide a browser without a session."""
    async with open_front() as front:
        yield front


@pytest.fixture
async def front(stranger: Front) -> Front:
    """Provide a browser with the administrator's session."""
    await stranger.sign_in()
    return stranger


@pytest.fixture(scope="module")
async def emulator(anyio_backend: str) -> AsyncIterator[Emulator]:
    """Start the demo clusters, shared by the tests of a module."""
    async with Emulator(demo(), clock=Clock(200.0)) as running:
        yield running


@pytest.fixture
async def equipped(front: Front, emulator: Emulator) -> Front:
    """Provide a signed-in browser with the two demo clusters configured."""
    for emulated in emulator:
        await front.add_cluster(emulated)
    return front


@pytest.fixture
def new_token() -> Callable[..., tuple[str, str]]:
    """Create an API token with roles on paths: `new_token(emulated, ("/vms", "PVEAuditor"))`."""

    def make(emulated: Emulated, *grants: tuple[str, str]) -> tuple[str, str]:
        people = emulated.state.user_config
        user = people.users.setdefault("narrow@pve", User("narrow@pve"))
        secret = f"00000000-0000-0000-0000-{len(user.tokens):012d}"
        user.tokens["reader"] = Token("reader", secret, privsep=True)
        account = "narrow@pve!reader"
        for path, role in grants:
            people.acl.append(Acl(path, "user", "narrow@pve", role))
            people.acl.append(Acl(path, "token", account, role))
        return account, secret

    return make
