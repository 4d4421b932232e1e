"""A state on each kind of database, and a whole server in this process.

The server has tools of the tests' own behind the real pipeline (`served`), or the product's tools
on the demo clusters (`demo_served`).
"""

import asyncio
import importlib.util
import json
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar
from unittest.mock import patch

import anyio
import httpx2 as httpx
import pytest
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from pydantic import Field, SecretStr
from sqlalchemy import make_url
from tests.server import sqlite_dialect
from tests.server.postgres_proxy import PostgresProxy, postgres_proxy

from proxmox_client.emulator import Emulator, demo
from proxmox_client.emulator.access.roles import all_privileges, builtin_roles
from proxmox_client.emulator.certificates import CertificateAuthority
from proxmox_client.emulator.cluster import EmulatedCluster
from proxmox_client.emulator.state.user_config import AclEntry
from proxmox_client.emulator.tasks.scheduler import Scheduler
from pvemcp_server.access import Access, open_access, passwords
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.app import App, create_app, open_services
from pvemcp_server.audit import Entry
from pvemcp_server.cli.state import State
from pvemcp_server.config import Config
from pvemcp_server.http.server import HttpServer, http_server
from pvemcp_server.settings import Settings
from pvemcp_server.store import Store, migrate, open_store
from pvemcp_server.store.records import TlsMode
from pvemcp_server.tables.rows import Row
from pvemcp_server.toolkit import registry
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import Document, Rows, Tool, tool

sqlite_dialect.register()
_names = count()
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def no_job_is_due_on_a_fast_clock() -> Iterator[None]:
    """Let no emulated cluster with an accelerated clock begin a scheduled job by itself.

    An hour passes there in a short test, so a test before midnight would meet the nightly backup.
    """
    start_due = Scheduler._start_due

    def start(scheduler: Scheduler, after: float, until: float) -> None:
        is_fast = scheduler._state.clock.speed > 1
        start_due(scheduler, until if is_fast else after, until)

    with patch.object(Scheduler, "_start_due", start):
        yield


def _server_programs() -> Path | None:
    """Return the folder of initdb and pg_ctl; the newest version of Debian's packages first."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("pg_ctl")
    if not folders and on_path:
        folders = [Path(on_path).resolve().parent]
    return folders[0] if folders else None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Start PostgreSQL on a socket in a temporary folder, and return the folder."""
    programs = _server_programs()
    if programs is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql to test on it")
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    with tempfile.TemporaryDirectory(prefix="pvemcp-pg-", ignore_cleanup_errors=True) as folder:
        if os.geteuid() == 0:  # initdb refuses to run as root
            shutil.chown(folder, user)
        as_user = {"user": user} if os.geteuid() == 0 else {}

        def run(*command: str) -> None:
            subprocess.run(command, check=True, capture_output=True, cwd=folder, **as_user)

        data, log = f"{folder}/data", f"{folder}/log"
        run(str(programs / "initdb"), "-D", data, "-U", "pvemcp", "-A", "trust", "-E", "UTF8")
        options = f"-c listen_addresses='' -k {folder} -c fsync=off -c max_connections=60"
        run(str(programs / "pg_ctl"), "-D", data, "-l", log, "-o", options, "-w", "start")
        try:
            yield folder
        finally:
            run(str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")


@pytest.fixture(scope="session")
def run_on_postgres(postgres_server: str) -> Iterator[Callable[[str], None]]:
    """Return a function that runs SQL as the superuser; one psql serves the whole session."""
    command = [shutil.which("psql") or "psql", "-h", postgres_server, "-U", "pvemcp"]
    options = ["-d", "postgres", "-qAtX", "-v", "ON_ERROR_STOP=1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*command, *options], text=True, **pipes) as psql:

        def run(sql: str) -> None:
            psql.stdin.write(f"{sql}\n\\echo done\n")
            psql.stdin.flush()
            assert "done\n" in psql.stdout, "psql has ended with the error on stderr"

        yield run
        psql.stdin.close()


@pytest.fixture(scope="session")
def new_postgres_database(
    postgres_server: str, run_on_postgres: Callable[[str], None]
) -> Callable[[], str]:
    """Return a function that creates an empty schema with its own user, and returns its URL.

    A database for each test would take 8 MB and a second.
    """

    def create() -> str:
        name = f"state_{os.getpid()}_{next(_names)}"
        run_on_postgres(f"CREATE ROLE {name} LOGIN; CREATE SCHEMA AUTHORIZATION {name};")
        return f"postgresql://{name}@/postgres?host={postgres_server}"

    return create


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    """Configure a server with an empty state, on each kind of database in turn."""
    if request.param == "sqlite":
        return Config(state_dir=tmp_path / "var")
    create = request.getfixturevalue("new_postgres_database")
    return Config(state_dir=tmp_path / "var", database_url=create())


@pytest.fixture(scope="session", autouse=True)
def real_hasher() -> Iterator[PasswordHash]:
    """Replace argon2id's cost of 0.2 s and 64 MiB by a low one; return the real hasher."""
    real = passwords._hasher
    quick = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(passwords, "_hasher", quick)
        yield real


@pytest.fixture(scope="session", autouse=True)
def revision_read_once() -> Iterator[None]:
    """Read the newest revision once for each folder of migrations; Alembic takes 10 ms for it."""
    read = migrate.newest_revision
    newest = cache(lambda _folder: read())
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(migrate, "newest_revision", lambda: newest(migrate.MIGRATIONS))
        yield


@pytest.fixture(scope="session")
async def new_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a SQLite state to copy, which is faster: migrated, and with the built-in roles."""
    folder = tmp_path_factory.mktemp("new") / "var"
    async with open_store(Config(state_dir=folder)) as store, open_access(store):
        pass
    return folder


@dataclass(frozen=True)
class ServedState:
    """A SQLite state to copy, in which the endpoint is enabled, and an administrator's key."""

    folder: Path
    key: str
    key_id: str


@pytest.fixture(scope="session")
async def served_state(tmp_path_factory: pytest.TempPathFactory, new_state: Path) -> ServedState:
    """Prepare once what every server of a test begins with."""
    folder = tmp_path_factory.mktemp("served") / "var"
    shutil.copytree(new_state, folder)
    async with open_store(Config(state_dir=folder)) as store, open_access(store) as access:
        await Settings(store).change({"enabled": True}, by="test")
        key, secret = await access.keys.create("test", role="Administrator", toolsets=list(Toolset))
    return ServedState(folder, secret, key.id)


@pytest.fixture(scope="session")
def fill_postgres(
    postgres_server: str,
    run_on_postgres: Callable[[str], None],
    new_postgres_database: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Config], Awaitable[None]]:
    """Return a function that copies the state of `new_state` to a new PostgreSQL schema.

    The first call creates the state to copy, with the migrations.
    """
    folder = tmp_path_factory.mktemp("new") / "var"
    command = [_server_programs() / "pg_dump", "-h", postgres_server, "-U", "pvemcp"]
    dumps: dict[str, str] = {}

    async def fill(config: Config) -> None:
        if not dumps:
            new = Config(state_dir=folder, database_url=new_postgres_database())
            async with open_store(new) as store, open_access(store):
                pass
            schema = make_url(new.database).username
            done = await anyio.run_process([*command, "-d", "postgres", "-n", schema])
            dumps[schema] = done.stdout.decode().replace(f"CREATE SCHEMA {schema};", "")
        ((schema, dump),) = dumps.items()
        run_on_postgres(dump.replace(schema, make_url(config.database).username))
        shutil.copytree(folder, config.state_dir)

    return fill


@pytest.fixture
async def migrated(config: Config, new_state: Path, request: pytest.FixtureRequest) -> None:
    """Copy the state of `new_state` to that of `config`, which is faster than the migrations."""
    if config.database_url is None:
        shutil.copytree(new_state, config.state_dir)
    else:
        await request.getfixturevalue("fill_postgres")(config)


@pytest.fixture
async def store(config: Config, migrated: None) -> AsyncIterator[Store]:
    async with open_store(config) as opened:
        yield opened


@pytest.fixture
async def other_store(config: Config, store: Store) -> AsyncIterator[Store]:
    """Open the same state again, like another process."""
    async with open_store(config) as opened:
        yield opened


@pytest.fixture
async def access(store: Store) -> AsyncIterator[Access]:
    async with open_access(store) as opened:
        yield opened


@pytest.fixture(scope="session")
def run_line() -> Callable[[EmulatedCluster, str], None]:
    """Return a function that runs a `pveum` line on an emulated cluster."""
    return _run_line


def _run_line(cluster: EmulatedCluster, line: str) -> None:
    """Run a line like a shell and Proxmox; fail where they fail."""
    done = False
    for number, alternatives in enumerate(line.split(" && ")):
        assert number == 0 or done
        done = any(_command(cluster, text) for text in alternatives.split(" || "))
    assert done, line


def _command(cluster: EmulatedCluster, text: str) -> bool:
    people, release = cluster.state.user_config, cluster.state.release
    built_in = builtin_roles(release)
    match shlex.split(text.removesuffix(" 2>/dev/null")):
        case ["pveum", "role", "add", name, "--privs", privileges]:
            names = frozenset(privileges.split(","))
            if name in people.roles or name.upper().startswith("PVE") or name in built_in:
                return False
            assert names <= all_privileges(release)
            people.roles[name] = names
        case ["pveum", "role", "modify", name, "--privs", privileges, "--append", "1"]:
            assert name in people.roles
            people.roles[name] |= frozenset(privileges.split(","))
        case ["pveum", "acl", "modify", path, option, account, "--roles", roles]:
            kind = {"--users": "user", "--tokens": "token"}[option]
            user, _, token = account.partition("!")
            assert user in people.users
            assert kind == "user" or token in people.users[user].tokens
            for role in roles.split(","):
                assert role in built_in or role in people.roles
                entry = AclEntry(path, kind, account, role)
                others = [
                    other
                    for other in people.acl
                    if (other.path, other.kind, other.ugid, other.role)
                    != (path, kind, account, role)
                ]
                people.acl = [*others, entry]
        case other:
            raise AssertionError(other)
    return True


@pytest.fixture(scope="module")
def node_tools() -> ModuleType:
    """Return scripts/node_tools.py as a module, with its packages installed."""
    if shutil.which("npm") is None:
        pytest.skip("no npm: the clients come from there")
    spec = importlib.util.spec_from_file_location(
        "node_tools", REPOSITORY / "scripts" / "node_tools.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["node_tools"] = module
    spec.loader.exec_module(module)
    module.installed()
    return module


class Thing(Row, kw_only=True):
    minimal: ClassVar[tuple[str, ...]] = ("vmid", "name", "tags")

    vmid: int
    name: str = ""
    tags: tuple[str, ...] = ()
    cpu_usage: float = 0.0


@dataclass
class FakeTools:
    """Tools for tests, and what they have done."""

    things: list[Thing] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    tools: dict[str, Tool] = field(default_factory=dict)
    loses: str = ""  # what a deletion costs
    name: str = "workshop"  # it stands in for the cluster of a plan

    def changed(self) -> None:
        """Accept the report of a write, as a cluster does."""


def _declare(shop: FakeTools) -> None:
    @tool("ListThings", area=Area.VMS, effect=Effect.READ)
    async def list_things(call: Call, min_cpu: float = 0.0) -> Rows:
        """List things."""
        call.notes.add("Thing 7 did not answer.")
        return Rows([one for one in shop.things if one.cpu_usage >= min_cpu], Thing.minimal)

    @tool("GetThing", area=Area.VMS, effect=Effect.READ)
    async def get_thing(
        call: Call, vmid: Annotated[int, Field(ge=100, description="Number")]
    ) -> Document:
        """Get a thing."""
        return {"vmid": vmid, "name": "web", "cpu_usage": 12.345}

    @tool("Break", area=Area.NODES, effect=Effect.READ)
    async def break_down(call: Call) -> Document:
        """Fail unexpectedly."""
        raise RuntimeError("secret detail")

    @tool("Wait", area=Area.NODES, effect=Effect.READ)
    async def wait(call: Call, steps: int = 0) -> Document:
        """Report progress and wait until released."""
        shop.started.set()
        try:
            for step in range(steps):
                await call.conversation.progress(step + 1, steps, f"step\u200b {step + 1}")
            await shop.release.wait()
        except asyncio.CancelledError:
            shop.cancelled.set()
            raise
        return {"waited": True}

    @tool("StartThing", area=Area.VMS, effect=Effect.WRITE)
    async def start_thing(call: Call, vmid: int) -> Plan:
        """Start a thing."""
        return _plan(shop, f"Start thing {vmid}.", vmid)

    @tool("DeleteThing", area=Area.STORAGE, effect=Effect.DESTROY)
    async def delete_thing(call: Call, vmid: int) -> Plan:
        """Delete a thing."""
        return _plan(shop, f"Delete thing {vmid}.", vmid)


def _plan(shop: FakeTools, sentence: str, vmid: int) -> Plan:
    async def act() -> None:
        shop.done.append(sentence)

    return Plan(cluster=shop, would=sentence, ids={"vmid": vmid}, act=act, loses=shop.loses)  # type: ignore[arg-type]


@pytest.fixture
def fake_tools(monkeypatch: pytest.MonkeyPatch) -> FakeTools:
    """Test tools, declared like any other, but not in the product's registry."""
    shop = FakeTools([Thing(vmid=100 + n, name=f"vm{n}", cpu_usage=n / 2) for n in range(5)])
    monkeypatch.setattr(registry, "_TOOLS", {})
    _declare(shop)
    shop.tools = dict(registry.tools())
    return shop


VERSION = "2026-07-28"


class Modern:
    """Plain HTTP in the wire form of 2026-07-28."""

    def __init__(self, http: httpx.AsyncClient, path: str) -> None:
        self.http = http
        self.path = path

    def message(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        meta = {
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = params or {}
        meta |= params.get("_meta", {})
        return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}

    def headers(self, method: str, params: dict[str, Any] | None = None) -> dict[str, str]:
        headers = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSION,
            "Mcp-Method": method,
        }
        name = (params or {}).get("name") or (params or {}).get("uri")
        return headers | ({"Mcp-Name": name} if name else {})

    async def send(
        self, method: str, params: dict[str, Any] | None = None, **headers: str
    ) -> httpx.Response:
        exchange = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(
            self.path,
            content=json.dumps(self.message(method, params)),  # also what httpx would not encode
            headers={"Content-Type": "application/json"} | self.headers(method, params) | exchange,
        )

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        answer = await self.send("tools/call", {"name": name, "arguments": arguments})
        return answer.json()


@dataclass
class Served:
    """A running server."""

    app: App
    state: State
    url: str
    key: str
    key_id: str
    server: HttpServer
    http: httpx.AsyncClient
    fake_tools: FakeTools

    def twin(self) -> "AbstractAsyncContextManager[Served]":
        """Start another server on the same state."""
        return _served(self.state, self.fake_tools, self.key, self.key_id)

    @property
    def mcp(self) -> str:
        return f"{self.url}/mcp/{self.key}"

    @property
    def modern(self) -> Modern:
        """Plain HTTP with the administrator's key."""
        return Modern(self.http, f"/mcp/{self.key}")

    async def recorded(self) -> list[Entry]:
        """Return the entries of the audit, oldest first."""
        audit = self.app.endpoint.services.audit
        await audit.flush()
        return list(reversed(await audit.find()))

    async def new_key(self, name: str, **options: Any) -> str:
        _, secret = await self.state.access.keys.create(name, **options)
        await self.state.store.watch.poll()
        return secret


Serving = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serving(fake_tools: FakeTools, tmp_path: Path, served_state: ServedState) -> Serving:
    """Return how to start a server on a free loopback port; an administrator's key exists."""
    return _serving(fake_tools, tmp_path, served_state)


@pytest.fixture(scope="module")
def module_serving(tmp_path_factory: pytest.TempPathFactory, served_state: ServedState) -> Serving:
    """Start the server with the product's own tools, once for a whole module."""
    product = FakeTools(tools=dict(registry.tools()))
    return _serving(product, tmp_path_factory.mktemp("served"), served_state)


def _serving(fake_tools: FakeTools, folder: Path, served_state: ServedState) -> Serving:
    @asynccontextmanager
    async def serve(
        origins: tuple[str, ...] = (), public_url: str | None = None, **settings: Any
    ) -> AsyncIterator[Served]:
        config = Config(
            state_dir=folder / "state",
            port=0,
            log_level="warning",
            allowed_origins=origins,
            public_url=public_url,
        )
        if not config.state_dir.exists():
            shutil.copytree(served_state.folder, config.state_dir)
        async with open_store(config) as store, open_access(store) as access:
            state = State(config, store, access, Settings(store))
            if settings:
                await state.settings.change(settings, by="test")
            async with _served(state, fake_tools, served_state.key, served_state.key_id) as served:
                yield served

    return serve


@pytest.fixture
async def demo_pve(anyio_backend: object) -> AsyncIterator[Emulator]:
    """Emulate the demo clusters in this process."""
    async with Emulator(demo()) as pve:
        yield pve


ServeDemo = Callable[[Path, Emulator], AbstractAsyncContextManager[Served]]


@pytest.fixture(scope="session")
def serve_demo(served_state: ServedState) -> ServeDemo:
    """Return how to start the product with its own tools on emulated clusters.

    Where the folder has a state, it is that one that is served.
    """

    @asynccontextmanager
    async def serve(folder: Path, pve: Emulator) -> AsyncIterator[Served]:
        config = Config(state_dir=folder, port=0, log_level="warning")
        is_new = not config.state_dir.exists()
        if is_new:
            shutil.copytree(served_state.folder, folder)
        async with open_store(config) as store, open_access(store) as access:
            for emulated in pve if is_new else ():
                await _add_cluster(access, emulated.name, emulated)
            state = State(config, store, access, Settings(store))
            product = FakeTools(tools=dict(registry.tools()))
            async with _served(state, product, served_state.key, served_state.key_id) as served:
                yield served

    return serve


@pytest.fixture
async def demo_served(
    tmp_path: Path, demo_pve: Emulator, serve_demo: ServeDemo
) -> AsyncIterator[Served]:
    """Start the product with its own tools on the demo clusters."""
    async with serve_demo(tmp_path / "state", demo_pve) as served:
        yield served


@pytest.fixture
def renew_inventory(demo_served: Served) -> Callable[[], Awaitable[None]]:
    """Return how to renew the inventory and compare watched resources, at once."""

    async def renew() -> None:
        endpoint = demo_served.app.endpoint
        for connection in endpoint.services.clusters._open.values():
            connection.inventory.invalidate()
        await endpoint.watcher.compare_all()

    return renew


async def _add_cluster(access: Any, name: str, emulated: Any) -> None:
    token_id, secret = emulated.token
    await access.clusters.create(
        name,
        emulated.hosts,
        token_id=token_id,
        secret=secret,
        tls_mode=TlsMode.PINNED,
        fingerprints=emulated.fingerprints.values(),
    )


@asynccontextmanager
async def _served(
    state: State, fake_tools: FakeTools, key: str, key_id: str
) -> AsyncIterator[Served]:
    async with open_services(state) as services:
        app = create_app(services, fake_tools.tools)
        server = http_server(
            app.asgi,
            state.config,
            app.endpoint.drain,
            leave=app.leave,
            knows_key=state.access.authenticator.knows,
        )
        async with _running(server) as url, _client(url) as http:
            yield Served(app, state, url, key, key_id, server, http, fake_tools)


@asynccontextmanager
async def _running(server: HttpServer) -> AsyncIterator[str]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        with anyio.fail_after(30):
            while not server.started:  # noqa: ASYNC110 - there is no event for it
                await anyio.sleep(0.01)
        host, port = server.addresses[0]
        yield f"http://{host}:{port}"
        server.stop()


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=30)


@pytest.fixture
async def served(serving: Serving) -> AsyncIterator[Served]:
    async with serving() as running:
        yield running


@dataclass
class Processes:
    """Starts servers that share nothing but a PostgreSQL database and the tools' doings."""

    config: Config
    fake_tools: FakeTools
    _stack: AsyncExitStack
    _key: tuple[str, str] | None = None

    async def start(self) -> Served:
        """Start one more server."""
        store = await self._stack.enter_async_context(open_store(self.config))
        access = await self._stack.enter_async_context(open_access(store))
        state = State(self.config, store, access, Settings(store))
        if self._key is None:
            await state.settings.change({"enabled": True}, by="test")
            key, secret = await access.keys.create("test", role="Administrator")
            self._key = secret, key.id
        running = _served(state, self.fake_tools, *self._key)
        served = await self._stack.enter_async_context(running)
        with anyio.fail_after(20):
            await store.fleet.joined()
        return served


@pytest.fixture
async def postgres_config(
    tmp_path: Path,
    new_postgres_database: Callable[[], str],
    fill_postgres: Callable[[Config], Awaitable[None]],
) -> Config:
    """Configure a server whose state is a PostgreSQL database with the built-in roles."""
    url = new_postgres_database()
    config = Config(state_dir=tmp_path / "var", database_url=url, port=0, log_level="warning")
    await fill_postgres(config)
    return config


@pytest.fixture
async def processes(postgres_config: Config, fake_tools: FakeTools) -> AsyncIterator[Processes]:
    async with AsyncExitStack() as stack:
        yield Processes(postgres_config, fake_tools, stack)


@pytest.fixture
async def two_processes(processes: Processes) -> tuple[Served, Served]:
    return await processes.start(), await processes.start()


@pytest.fixture
async def behind_proxy(
    postgres_config: Config, postgres_server: str, fake_tools: FakeTools, tmp_path: Path
) -> AsyncIterator[tuple[Served, PostgresProxy]]:
    """Start a server whose PostgreSQL can be away."""
    assert postgres_config.database_url is not None
    url = postgres_config.database_url.get_secret_value()
    async with (
        postgres_proxy(tmp_path / "proxy", postgres_server) as proxy,
        AsyncExitStack() as stack,
    ):
        through = SecretStr(url.replace(postgres_server, str(proxy.folder)))
        config = postgres_config.model_copy(update={"database_url": through})
        yield await Processes(config, fake_tools, stack).start(), proxy


@pytest.fixture
def http(served: Served) -> httpx.AsyncClient:
    return served.http


@pytest.fixture
def modern(served: Served) -> Modern:
    return served.modern


@pytest.fixture(params=["https", "http"])
async def endless_head(
    anyio_backend: str, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[str, str]]:
    """Start a server whose answers never begin; yield its URL and its authority."""
    authority = CertificateAuthority("test")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            while True:
                writer.write(b"HTTP/1.1 100\r\n\r\n" * 1_000)
                await writer.drain()
        writer.transport.abort()

    has_tls = request.param == "https"
    context = authority.issue("endless", "127.0.0.1").context if has_tls else None
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"{request.param}://127.0.0.1:{port}", authority.pem
