"""Protection of the key: certificates, redirects, proxies, logs, arguments."""

import contextlib
import datetime as dt
import ipaddress
import json
import os
import socket
import ssl
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pvemcp_bridge import options
from pvemcp_bridge.errors import CertificateRefused
from pvemcp_bridge.logs import Masker
from pvemcp_bridge.main import main
from pvemcp_bridge.oauth import account, sign_in
from pvemcp_bridge.target import BadTarget, target
from pvemcp_bridge.tls import Trust

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

KEY = "a-key-that-must-never-show"
HERE = str(Path(__file__).parent)


class Certificate:
    """Self-signed certificate for 127.0.0.1."""

    def __init__(self, folder):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trial")])
        now = dt.datetime.now(dt.UTC)
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(7)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(address, critical=False)
            .sign(key, hashes.SHA256())
        )
        self.file = folder / "cert.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = folder / "key.pem"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.files = {"ssl_certfile": str(self.file), "ssl_keyfile": str(private)}
        der = certificate.public_bytes(serialization.Encoding.DER)
        self.fingerprint = sha256(der).hexdigest()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.file, private)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return Certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def secure(faults, certificate):
    async with faults.running(tls=certificate.context) as server:
        yield server


async def test_trust_holds_for_the_sign_in_as_well(oauth, certificate, monkeypatch, tmp_path):
    for name in ("XDG_STATE_HOME", "HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setitem(sys.modules, "keyring", None)
    browser = ssl.create_default_context(cafile=certificate.file)

    async def open_in_browser(address):
        await oauth.visit(address, verify=browser)
        return True

    monkeypatch.setattr(account, "open_in_browser", open_in_browser)
    async with oauth.running(certificate) as server, oauth.running() as plain:
        for trust in (Trust(fingerprint=certificate.fingerprint), Trust(ca_file=certificate.file)):
            where = target(server.mcp, trust=trust)
            assert "signed in" in await sign_in.login(where, Masker(()))
            assert (await sign_in.logout(where))[1]
        with pytest.raises(CertificateRefused):
            await sign_in.login(target(server.mcp), Masker(()))
        # an authorization server elsewhere: a pin is for the server's own certificate
        plain.resource, plain.access = {"authorization_servers": [server.url]}, server.access
        server.audience = plain.mcp
        for trust in (Trust(), Trust(insecure=True), Trust(fingerprint=certificate.fingerprint)):
            with pytest.raises(CertificateRefused):
                await sign_in.login(target(plain.mcp, trust=trust), Masker(()))
        where = target(plain.mcp, trust=Trust(ca_file=certificate.file))
        assert "signed in" in await sign_in.login(where, Masker(()))


async def test_an_untrusted_certificate_is_reported_at_once_with_hints(bridges, secure, modern):
    async with bridges.running("--url", secure.url, modern=modern) as bridge:
        method = "server/discover" if modern else "initialize"
        error = (await bridge.reply(bridge.request(method)))["error"]
    assert error["data"]["reason"] == "CertificateRefused"
    assert "not trusted" in error["message"]
    assert "--ca" in error["data"]["hint"]
    assert "--fingerprint" in error["data"]["hint"]
    assert secure.calls == []


async def test_each_way_to_trust_a_certificate_works(bridges, secure, certificate):
    colons = ":".join(f"{byte:02X}" for byte in bytes.fromhex(certificate.fingerprint))
    for trust in (
        ("--insecure",),
        ("--ca", str(certificate.file)),
        ("--fingerprint", certificate.fingerprint),
        ("--fingerprint", f"sha256:{colons}"),
    ):
        async with bridges.running("--url", secure.url, *trust) as bridge:
            assert await bridge.open(), trust


async def test_an_unverified_certificate_is_warned_of_once_and_by_the_doctor(bridges, secure):
    async with bridges.running("--url", secure.url, "--insecure") as bridge:
        await bridge.open()
        await bridge.end()
    assert "".join(bridge.log).count("certificate is not verified") == 1
    async with bridges.running("doctor", "--url", secure.url, "--insecure") as doctor:
        code = await doctor.process.wait()
        output = (await doctor.process.stdout.read()).decode()
    assert code == 0
    assert output.startswith("warn  trust     --insecure:")


async def test_a_certificate_other_than_the_pinned_one_is_rejected(bridges, secure, certificate):
    other = "0" * 64
    options = ("--url", secure.url, "--fingerprint", other, "--insecure")
    async with bridges.running(*options) as bridge:
        error = (await bridge.initialize())["error"]
    assert error["data"]["reason"] == "CertificateRefused"
    assert "fingerprint" in error["message"]
    assert secure.calls == []


async def test_https_to_a_plain_http_server_is_reported(bridges, server):
    url = server.url.replace("http:", "https:")
    async with bridges.running("--url", url) as bridge:
        error = (await bridge.initialize())["error"]
    assert "TLS failed: the server does not speak TLS at this port." in error["message"]
    assert "speaks HTTPS" in error["message"]
    async with bridges.running("doctor", "--url", url) as doctor:
        output = (await doctor.process.stdout.read()).decode()
    assert "FAIL  TLS       TLS failed: the server does not speak TLS at this port." in output
    assert "_ssl" not in output


@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_a_redirect_within_the_origin_is_followed(shared_bridge, shared_server, faults, code):
    shared_server.fail("tools/call", faults.status(code, headers={"location": "/mcp/"}))
    reply = await shared_bridge.reply(shared_bridge.call("destroy", {"a": 1}))
    assert json.loads(reply["result"]["content"][0]["text"]) == {"a": 1}
    assert [call.path for call in shared_server.of("tools/call")] == ["/mcp", "/mcp/"]


async def test_a_redirect_to_another_origin_is_refused(bridges, server, faults):
    async with (
        faults.running() as other,
        bridges.running("--url", server.url, env={"MCP_API_KEY": KEY}) as bridge,
    ):
        await bridge.open()
        server.fail("tools/call", faults.status(307, headers={"location": other.url}))
        error = (await bridge.reply(bridge.call("look")))["error"]
    assert error["data"]["reason"] == "Redirected"
    assert "another origin" in error["message"]
    assert other.calls == []


async def test_a_redirect_from_https_to_http_is_refused(bridges, secure, faults):
    target = secure.url.replace("https:", "http:")
    async with bridges.running("--url", secure.url, "--insecure") as bridge:
        await bridge.open()
        secure.fail("tools/call", faults.status(307, headers={"location": target}))
        error = (await bridge.reply(bridge.call("look")))["error"]
    assert error["data"]["reason"] == "Redirected"


async def test_a_redirect_loop_ends(shared_bridge, shared_server, faults):
    shared_server.fail("tools/call", faults.status(308, headers={"location": "/mcp"}), 9)
    error = (await shared_bridge.reply(shared_bridge.call("destroy")))["error"]
    assert "circle" in error["message"]


def argv_of(pid):
    """Return the arguments of a process that all users can see; empty without /proc."""
    file = Path(f"/proc/{pid}/cmdline")
    return file.read_text() if file.exists() else ""


async def test_the_key_is_sent_as_bearer_token_and_not_in_argv(bridges, server, tmp_path):
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    for env in ({"MCP_API_KEY": KEY}, {"MCP_API_KEY_FILE": str(file)}):
        async with bridges.running("--url", server.url, env=env) as bridge:
            await bridge.open()
            assert KEY not in argv_of(bridge.process.pid)
        assert server.calls[-1].headers["authorization"] == f"Bearer {KEY}"


async def test_the_key_moves_to_x_api_key_when_authorization_is_taken(bridges, server):
    options = ("--url", server.url, "--header", "Authorization: Basic cHJveHk6c2VjcmV0")
    async with bridges.running(*options, "--api-key", KEY) as bridge:
        await bridge.open()
    assert server.calls[-1].headers["authorization"] == "Basic cHJveHk6c2VjcmV0"
    assert server.calls[-1].headers["x-api-key"] == KEY


async def test_a_custom_header_does_not_override_protocol_headers(bridges, server):
    options = (
        "--header",
        "User-Agent: mine",
        "--header",
        "ACCEPT: text/plain",
        "--header",
        "X-A: b",
    )
    async with bridges.running("--url", server.url, *options, modern=True) as bridge:
        await bridge.open()
    headers = server.calls[-1].headers
    assert headers["user-agent"] == "mine"
    assert headers["x-a"] == "b"
    assert headers["accept"] == "application/json, text/event-stream"


async def test_keys_in_url_and_file_are_both_sent_and_masked(bridges, server, tmp_path):
    file = tmp_path / "key"
    file.write_text(KEY)
    options = (f"{server.url}/another-key-of-the-url", "--api-key-file", str(file))
    async with bridges.running(*options, "--log-level", "debug") as bridge:
        await bridge.open()
        await bridge.end()
        assert KEY not in bridge.log
        assert "another-key-of-the-url" not in bridge.log
    assert server.calls[-1].path == "/mcp/another-key-of-the-url"
    assert server.calls[-1].headers["authorization"] == f"Bearer {KEY}"


async def test_an_ipv6_address_is_reached(bridges, faults):
    if not socket.has_ipv6:
        pytest.skip("this system has no IPv6")
    async with faults.running(host="::1") as server:
        assert server.url.startswith("http://[::1]:")
        async with bridges.running("--url", server.url) as bridge:
            assert await bridge.open()


async def test_arguments_override_the_environment(bridges, server):
    env = {"MCP_API_KEY": "of-the-environment", "MCP_URL": "http://127.0.0.1:1/"}
    async with bridges.running("-u", server.url, "-k", KEY, env=env) as bridge:
        await bridge.open()
    assert server.calls[-1].headers["authorization"] == f"Bearer {KEY}"


async def test_a_url_that_contains_the_key_is_enough(bridges, server):
    async with bridges.running(f"{server.url}/{KEY}") as bridge:
        await bridge.open()
    assert {call.path for call in server.calls} == {f"/mcp/{KEY}"}


async def test_a_url_without_a_path_means_its_mcp_endpoint(bridges, server):
    async with bridges.running(env={"MCP_URL": server.url.removesuffix("/mcp")}) as bridge:
        await bridge.open()
    assert {call.path for call in server.calls} == {"/mcp"}


@pytest.mark.parametrize("place", ["header", "path"])
async def test_the_key_appears_in_no_log_and_no_error(bridges, server, faults, tmp_path, place):
    log = tmp_path / "bridge.log"
    url = f"{server.url}/{KEY}" if place == "path" else server.url
    env = {"MCP_API_KEY": KEY} if place == "header" else {}
    options = ("--log-level", "debug", "--log-file", str(log), "--url", url)
    async with bridges.running(*options, env=env) as bridge:
        await bridge.open()
        echo = f"no such thing: {KEY} in /mcp/{KEY}".encode()
        server.fail("tools/call", faults.status(500, echo))
        reply = await bridge.reply(bridge.call("destroy"))
        server.fail("notifications/roots/list_changed", faults.status(400, echo))
        bridge.notify("notifications/roots/list_changed")
        await bridge.end()
        assert "no such thing: ***" in reply["error"]["message"]
        assert KEY not in json.dumps(reply) + bridge.log + log.read_text()
        assert "no such thing" in log.read_text()


async def test_text_of_a_server_gives_a_terminal_no_orders_in_the_log(bridges, server, faults):
    async with bridges.running("--log-level", "debug", "--url", server.url) as bridge:
        await bridge.open()
        orders = "\x1b]0;title\x07\x1b[2J\x9b2J\n2026-11-30 forged"
        server.fail("notifications/roots/list_changed", faults.status(400, orders.encode()))
        bridge.notify("notifications/roots/list_changed")
        await bridge.end()
        lines = bridge.log.splitlines()
        assert any("title" in line for line in lines)
        assert all(line.isprintable() and "pvemcp-bridge" in line for line in lines)


async def test_proxy_variables_and_no_proxy_are_respected(bridges, server):
    proxied = {"HTTP_PROXY": server.url, "MCP_URL": "http://pve.example:8811/mcp"}
    async with bridges.running(env=proxied) as bridge:
        await bridge.open()
    assert {call.path for call in server.calls} == {"http://pve.example:8811/mcp"}
    direct = {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.1", "MCP_URL": server.url}
    async with bridges.running(env=direct) as bridge:
        assert await bridge.open()


@pytest.mark.parametrize("status", [403, 407])
async def test_a_proxy_that_refuses_is_reported_at_once(bridges, server, faults, status):
    server.fail("CONNECT", faults.status(status))
    env = {"HTTPS_PROXY": server.url, "MCP_URL": "https://pve.example/mcp"}
    async with bridges.running(env=env) as bridge:
        error = (await bridge.initialize())["error"]
    assert error["data"]["reason"] == "ProxyRefused"
    assert str(status) in error["message"]
    assert "HTTPS_PROXY" in error["data"]["hint"]
    assert server.names() == ["CONNECT"]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "gopher://x", "http://x:port"])
async def test_an_unsupported_proxy_is_reported(bridges, proxy):
    env = {"ALL_PROXY": proxy, "MCP_URL": "http://pve.example/mcp"}
    async with bridges.running(env=env) as bridge:
        error = (await bridge.initialize())["error"]
    assert error["data"]["reason"] == "ProxyRefused"
    assert "not an HTTP proxy" in error["message"]


async def test_a_proxy_that_cannot_reach_the_server_is_retried(bridges, server, faults):
    server.fail("CONNECT", faults.status(502))
    server.fail("CONNECT", faults.status(403))
    env = {"HTTPS_PROXY": server.url, "MCP_URL": "https://pve.example/mcp"}
    async with bridges.running(env=env) as bridge:
        assert "403" in (await bridge.initialize())["error"]["message"]
    assert server.names() == ["CONNECT", "CONNECT"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "No server URL"),
        (("--url", "pve.example/mcp"), "must start with https://"),
        (("--url", "http://pve.example:port"), "malformed"),
        (("--url", "http://x", "--ca", "/nowhere.pem"), "does not exist"),
        (("--url", "http://x", "--ca", HERE), "is a folder; name a file"),
        (("--url", "http://x", "--ca", __file__), "contains no certificate in PEM"),
        (("--url", "http://x", "--log-file", "/nowhere/log"), "cannot be written: "),
        (("--url", "http://x", "--fingerprint", "12:34"), "64 hexadecimal digits"),
        (("--url", "http://x", "--header", "nonsense"), "Name: value"),
        (("--url", "http://x", "--header", "no name: x"), "Name: value"),
        (("--url", "http://x", "--timeout", "soon"), "number of seconds"),
        (("--url", "http://x", "--api-key-file", "/nowhere"), "cannot be read: No such file"),
        (("--url", "http://x", "--api-key-file", os.devnull), "/dev/null is empty"),
        (("--url", "http://caf\udce9"), "not text"),
        (("--url", "http://x", "--log-level", "loud"), "debug, info"),
        (("--url", "http://x", "--nonsense"), "unrecognized"),
        (("--url", "http://x", "--non\nsense\x1b"), "unrecognized"),
        (("--url",), "expected one argument"),
        (("http://x", "--url", "http://x"), "unexpected argument"),
        (("install", "--url", "http://x"), "required: --client"),
        (("install", "--url", "http://x", "--client", "nosuch"), "--client is one of"),
        (("doctor", "--nonsense"), "unrecognized"),
    ],
)
def test_an_invalid_option_ends_with_a_message(monkeypatch, capsys, given, words):
    monkeypatch.setattr(sys, "argv", ["pvemcp-bridge", *given])
    for name in [name for name in os.environ if name.startswith("MCP_")]:
        monkeypatch.delenv(name)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert words in message
    assert "Errno" not in message
    assert message.count("\n") == 1
    assert message.startswith("pvemcp-bridge: ")
    assert "\x1b" not in message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_a_key_may_be_saved_in_each_encoding_of_unicode(tmp_path, encoding):
    file = tmp_path / "key"
    file.write_bytes(f"{KEY}\r\n".encode(encoding))
    settings = options.settings({"url": "http://x", "api_key_file": str(file)}, {})
    assert settings.target.headers["authorization"] == f"Bearer {KEY}"
    file.write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(BadTarget, match="is not text in UTF-8"):
        options.settings({"url": "http://x", "api_key_file": str(file)}, {})


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_a_bridge_without_a_client_ends_with_a_message(monkeypatch, name):
    monkeypatch.setattr(sys, "argv", ["pvemcp-bridge", "--url", "http://x"])
    monkeypatch.setattr(sys, name, None)
    with pytest.raises(SystemExit, match="a client opens both"):
        main()


@pytest.mark.parametrize("command", ["doctor", "install"])
def test_an_output_that_cannot_be_written_ends_a_command_with_a_message(
    monkeypatch, capsys, command
):
    words = {"doctor": ["doctor"], "install": ["install", "--client", "cursor", "--print"]}
    monkeypatch.setattr(
        sys, "argv", ["pvemcp-bridge", *words[command], "--url", "http://127.0.0.1:1"]
    )
    full = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115 - its end fails too
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "pvemcp-bridge: No space left on device: the output.\n"
    with contextlib.suppress(OSError):
        full.close()


async def test_an_invalid_option_ends_the_process_without_a_traceback(bridges):
    async with bridges.running("--url", "http://x", "--timeout", "soon") as bridge:
        assert await bridge.process.wait() == 2
        await bridge.end()
        assert "number of seconds" in bridge.log
        assert "Traceback" not in bridge.log
