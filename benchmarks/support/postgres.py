"""PostgreSQL of a benchmark's own, on a socket in a temporary folder."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil


class PostgresServer:
    """A server in a folder that it owns; it can be restarted, crash and freeze."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        self._programs = folders[0] if folders else Path(shutil.which("pg_ctl") or "pg_ctl").parent
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self.url = f"postgresql://pvemcp@/postgres?host={folder}"

    def create(self) -> None:
        """Create the files of a new server and start it."""
        self._run("initdb", "-U", "pvemcp", "-A", "trust", "-E", "UTF8")
        options = f"-c listen_addresses='' -k {self._folder}"
        self._run("pg_ctl", "-l", f"{self._folder}/log", "-o", options, "-w", "start")

    def restart(self, mode: str = "fast") -> None:
        """Restart it; with the mode `immediate` it crashes first."""
        self._run("pg_ctl", "-l", f"{self._folder}/log", "-m", mode, "-w", "restart")

    def stop(self) -> None:
        """Stop it as a crash does, since its data are not needed again."""
        self._run("pg_ctl", "-m", "immediate", "-w", "stop")

    def freeze(self) -> None:
        """Stop all its processes where they are."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let its processes go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        main = psutil.Process(int((self._folder / "data/postmaster.pid").read_text().split()[0]))
        for process in (main, *main.children(recursive=True)):
            if process.is_running():
                process.send_signal(number)

    def _run(self, program: str, *options: str) -> None:
        # initdb refuses to run as root
        as_user = {"user": "postgres"} if os.geteuid() == 0 else {}
        subprocess.run(
            (str(self._programs / program), "-D", f"{self._folder}/data", *options),
            check=True,
            capture_output=True,
            cwd=self._folder,
            env=self._environment,
            **as_user,
        )


@contextmanager
def postgres_server(environment: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """Start PostgreSQL with an empty database; stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="pvemcp-bench-", ignore_cleanup_errors=True) as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        server = PostgresServer(Path(folder), environment or {})
        server.create()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def postgres() -> Iterator[str]:
    """Start PostgreSQL and yield the URL of an empty database; stop it at the end."""
    with postgres_server() as server:
        yield server.url
