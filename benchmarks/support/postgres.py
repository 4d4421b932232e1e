"""PostgreSQL of a benchmark's own, on a socket in a temporary folder."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres() -> Iterator[str]:
    """Start PostgreSQL and yield the URL of an empty database; stop it at the end."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    programs = folders[0] if folders else Path(shutil.which("pg_ctl") or "pg_ctl").parent
    is_root = os.geteuid() == 0
    user = "postgres" if is_root else pwd.getpwuid(os.geteuid()).pw_name
    with tempfile.TemporaryDirectory(prefix="pvemcp-bench-", ignore_cleanup_errors=True) as folder:
        if is_root:  # initdb refuses to run as root
            shutil.chown(folder, user)

        def run(*command: str) -> None:
            as_user = {"user": user} if is_root else {}
            subprocess.run(command, check=True, capture_output=True, cwd=folder, **as_user)

        data = f"{folder}/data"
        run(str(programs / "initdb"), "-D", data, "-U", "pvemcp", "-A", "trust", "-E", "UTF8")
        options = f"-c listen_addresses='' -k {folder}"
        run(
            str(programs / "pg_ctl"),
            "-D",
            data,
            "-l",
            f"{folder}/log",
            "-o",
            options,
            "-w",
            "start",
        )
        try:
            yield f"postgresql://pvemcp@/postgres?host={folder}"
        finally:
            run(str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")
