"""Run the commands of docs/users/install.md that install the packages and serve.

`make wheels` first. Needs uv (from constraints-dev.txt), and pipx for its part; packages of others
come from the configured index. Takes some minutes, so the suite does not run it; arguments name the
programs to try.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "users" / "install.md"
DIST = REPOSITORY / "dist"
PORT = 8897
READY_SECONDS = 300  # uvx and pipx install first
KEPT = ("SSL_CERT_FILE", "UV_", "PIP_", "XDG_")


def examples() -> list[str]:
    """Return the scripts of the page; each ends with the command that serves."""
    section = PAGE.read_text().partition("## uvx, pipx or pip\n")[2].partition("\n## ")[0]
    return re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def environment(home: Path) -> dict[str, str]:
    """Make an empty environment for pip in a new home; return the variables for the commands."""
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    programs = [home / "venv" / "bin", home / ".local" / "bin", os.environ["PATH"]]
    return {
        **{name: value for name, value in os.environ.items() if name.startswith(KEPT)},
        "HOME": str(home),
        "PATH": os.pathsep.join(map(str, programs)),
        "UV_PYTHON": sys.executable,
        "PIPX_DEFAULT_PYTHON": sys.executable,
        "PVEMCP_PORT": str(PORT),
        "PVEMCP_STATE_DIR": str(home / "state"),
    }


def is_ready(process: subprocess.Popen[bytes]) -> bool:
    """Return whether the server answers /readyz before it ends or the time is over."""
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=5):
                return True
        except OSError:
            time.sleep(0.2)
    return False


def attempt(example: str) -> bool:
    """Run an example in an empty home; return whether its server gets ready."""
    with tempfile.TemporaryDirectory() as name:
        *steps, serve = example.replace("\\\n", " ").splitlines()
        variables = environment(Path(name))
        for step in steps:
            subprocess.run(["sh", "-c", step], check=True, cwd=REPOSITORY, env=variables)
        with subprocess.Popen(
            ["sh", "-c", f"exec {serve}"],
            cwd=REPOSITORY,
            env=variables,
            stdout=subprocess.DEVNULL,
        ) as process:
            ready = is_ready(process)
            process.terminate()
    return ready


def main() -> None:
    if not list(DIST.glob("pvemcp_server-*.whl")):
        raise SystemExit("No wheels in dist/: make wheels")
    for example in examples():
        program, began = example.split()[0], time.monotonic()
        if program not in (sys.argv[1:] or [program]):
            continue
        if program != "pip" and not shutil.which(program):
            print(f"{program} is not installed: its way is not tried")
            continue
        print(example, end="", flush=True)
        ready = attempt(example)
        print(f"{'ready' if ready else 'FAILED'}  {time.monotonic() - began:.0f} s\n", flush=True)
        if not ready:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
