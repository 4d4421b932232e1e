"""Install the packages in each way that the docs name, from wheels and a checkout, and serve.

`make wheels` first. Needs uv (from constraints-dev.txt), and pipx for its part; packages of others
come from the configured index. Takes about two minutes, so the suite does not run it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DIST = REPOSITORY / "dist"
PACKAGES = REPOSITORY / "packages"
PORT = 8897
READY_SECONDS = 120
KEPT = ("PATH", "SSL_CERT_FILE", "UV_", "PIP_", "XDG_")


def ways(folder: Path) -> Iterator[tuple[str, list[Sequence[str | Path]], Sequence[str | Path]]]:
    """Yield each way: its name, the commands that install, and the one that starts `pvemcp`."""
    server, *others = sorted(DIST.glob("pvemcp_*.whl"), key=lambda each: "server" not in each.name)
    uvx = ("uvx", "--python", sys.executable)
    beside = [word for wheel in others for word in ("--with", wheel)]
    yield "uvx, wheels", [], (*uvx, *beside, "--from", f"{server}[demo]", "pvemcp")
    yield "uvx, checkout", [], (*uvx, "--from", f"{PACKAGES / 'server'}[demo]", "pvemcp")
    venv = folder / "venv"
    make = (sys.executable, "-m", "venv", venv)
    parts = (PACKAGES / "proxmox_client", PACKAGES / "formats", PACKAGES / "bridge")
    install = (venv / "bin" / "pip", "install", "-q", *parts, f"{PACKAGES / 'server'}[demo]")
    yield "pip, checkout", [make, install], (venv / "bin" / "pvemcp",)
    if shutil.which("pipx"):
        before = [word for wheel in others for word in ("--preinstall", wheel)]
        install = ("pipx", "install", "--quiet", *before)
        yield (
            "pipx, wheels",
            [(*install, "--python", sys.executable, f"{server}[demo]")],
            (folder / ".local" / "bin" / "pvemcp",),
        )
    else:
        print("pipx is not installed: its way is not tried")


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


def main() -> None:
    if not list(DIST.glob("pvemcp_server-*.whl")):
        raise SystemExit("No wheels in dist/: make wheels")
    for each in ("uvx", "pipx"):
        print(f"{each}: {shutil.which(each) or 'missing'}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {k: v for k, v in os.environ.items() if k.startswith(KEPT)} | {"HOME": name}
        for way, preparation, command in ways(folder):
            began = time.monotonic()
            for step in preparation:
                subprocess.run(step, check=True, cwd=folder, env=environment)
            state = folder / way.replace(", ", "-")
            serve = (*command, "run", "--demo-if-empty", "--port", str(PORT))
            with subprocess.Popen(
                serve,
                cwd=folder,
                env={**environment, "PVEMCP_STATE_DIR": str(state)},
                stdout=subprocess.DEVNULL,
            ) as process:
                ready = is_ready(process)
                process.terminate()
            print(f"{way:<14} {'ready' if ready else 'FAILED'}  {time.monotonic() - began:.0f} s")
            if not ready:
                raise SystemExit(1)


if __name__ == "__main__":
    main()
