"""State on both databases: SQLite, and a PostgreSQL that the tests start themselves."""

import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from proxmox_client.emulator.access.roles import all_privileges, builtin_roles
from proxmox_client.emulator.cluster import Cluster as EmulatedCluster
from proxmox_client.emulator.state.people import Grant
from pvemcp_server.access import Access, open_access
from pvemcp_server.config import Config
from pvemcp_server.store import Store, open_store

_names = count()


def _server_programs() -> Path | None:
    """Where Debian's package keeps initdb and pg_ctl, the newest version first."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("pg_ctl")
    if not folders and on_path:
        folders = [Path(on_path).resolve().parent]
    return folders[0] if folders else None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL of our own, reached by a socket in a temporary folder; answers that folder."""
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
def new_postgres_database(postgres_server: str) -> Callable[[], str]:
    """Makes an empty schema with a user of its own and answers the URL.

    A database for each test would cost eight megabytes and a second each.
    """
    psql = shutil.which("psql") or "psql"

    def create() -> str:
        name = f"state_{os.getpid()}_{next(_names)}"
        command = [psql, "-h", postgres_server, "-U", "pvemcp", "-d", "postgres", "-qc"]
        subprocess.run(
            [*command, f"CREATE ROLE {name} LOGIN; CREATE SCHEMA AUTHORIZATION {name}"],
            check=True,
            capture_output=True,
        )
        return f"postgresql://{name}@/postgres?host={postgres_server}"

    return create


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    """The configuration of a server with an empty state, on each kind of database in turn."""
    if request.param == "sqlite":
        return Config(state_dir=tmp_path / "var")
    create = request.getfixturevalue("new_postgres_database")
    return Config(state_dir=tmp_path / "var", database_url=create())


@pytest.fixture(scope="session")
async def new_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a SQLite state as it is when new, to copy: migrations take their time."""
    folder = tmp_path_factory.mktemp("new") / "var"
    async with open_store(Config(state_dir=folder)):
        pass
    return folder


@pytest.fixture
async def store(config: Config, new_state: Path) -> AsyncIterator[Store]:
    if config.database_url is None:
        shutil.copytree(new_state, config.state_dir)
    async with open_store(config) as opened:
        yield opened


@pytest.fixture
async def other_store(config: Config, store: Store) -> AsyncIterator[Store]:
    """The same state as another process has it open."""
    async with open_store(config) as opened:
        yield opened


@pytest.fixture
async def access(store: Store) -> AsyncIterator[Access]:
    async with open_access(store) as opened:
        yield opened


@pytest.fixture(scope="session")
def run_line() -> Callable[[EmulatedCluster, str], None]:
    """Runs a `pveum` line on an emulated cluster."""
    return _run_line


def _run_line(cluster: EmulatedCluster, line: str) -> None:
    """Run a line as a shell and Proxmox would; fail where they do."""
    done = False
    for number, alternatives in enumerate(line.split(" && ")):
        assert number == 0 or done
        done = any(_command(cluster, one) for one in alternatives.split(" || "))
    assert done, line


def _command(cluster: EmulatedCluster, text: str) -> bool:
    people, release = cluster.state.people, cluster.state.release
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
        case ["pveum", "acl", "modify", path, option, whom, "--roles", roles]:
            kind = {"--users": "user", "--tokens": "token"}[option]
            user, _, token = whom.partition("!")
            assert user in people.users
            assert kind == "user" or token in people.users[user].tokens
            for role in roles.split(","):
                assert role in built_in or role in people.roles
                kept = [
                    one
                    for one in people.grants
                    if (one.path, one.kind, one.whom, one.role) != (path, kind, whom, role)
                ]
                people.grants = [*kept, Grant(path, kind, whom, role)]
        case other:
            raise AssertionError(other)
    return True
