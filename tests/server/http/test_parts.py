"""Credentials, client addresses and hosts, with hostile inputs."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import walk

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.http import hosts as hosts_module
from pvemcp_server.http.credentials import take_key
from pvemcp_server.http.hosts import (
    Hosts,
    _warn_of_untrusted_proxy,
    client_address,
    is_known,
    networks,
)
from pvemcp_server.http.path_prefix import PathPrefix
from pvemcp_server.store.key_format import new_id, new_secret

KEY = new_secret(new_id())
PATHS = st.lists(st.sampled_from(["mcp", "sse", KEY, "x", "", "messages", ".well-known", "a b"]))


def scope(path, headers=(), query=""):
    return {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
    }


@given(PATHS, st.sampled_from([b"x-api-key", b"authorization"]), st.booleans())
def test_the_key_is_removed_from_everywhere(parts, header, in_query):
    value = KEY.encode() if header == b"x-api-key" else b"Bearer " + KEY.encode()
    headers = [(header, value)] if parts[:1] in (["mcp"], ["sse"]) else []
    seen = scope("/" + "/".join(parts), headers, f"key={KEY}" if in_query else "")
    credential = take_key(seen)
    assert KEY not in repr(seen)
    assert KEY not in repr(credential)
    assert seen["raw_path"].isascii()


def test_a_key_is_removed_however_often_it_is_encoded():
    for encoded in ("_", "%5f", "%5F", "%255f", "%25255F", "%" + 30 * "25" + "5f"):
        sent = encoded.join(KEY.rsplit("_", 1))
        for path, query in [(f"/x/{sent}/y", "a=1"), ("/x", f"a=1&key={sent}&b=2")]:
            seen = scope(path, (), query)
            take_key(seen)
            left = repr(seen)
            assert KEY[-20:] not in left, encoded
            assert ("/y" in left and "a=1" in left) or "b=2" in left, encoded
    ordinary = "redirect_uri=https%3A%2F%2Fx%2Fcb%3Fa%3D1%2525&q=%C3%A9"
    seen = scope("/x/a%5fb", (), ordinary)
    take_key(seen)
    assert (seen["path"], seen["query_string"]) == ("/x/a%5fb", ordinary.encode())


@walk(
    ("path", "secret", "rest"),
    [
        ("/mcp", "", "/mcp"),
        ("/mcp/", "", "/mcp"),
        ("/mcp/abc", "abc", "/mcp"),
        ("/mcp/abc/", "abc", "/mcp"),
        ("/sse/abc", "abc", "/sse"),
        ("/sse/abc/messages", "abc", "/sse/messages"),
        ("/sse/messages", "", "/sse/messages"),
        ("/mcp/abc/more", "abc", "/mcp/more"),
        ("/other/abc", "", "/other/abc"),
        ("/.well-known/x", "", "/.well-known/x"),
        ("/.well-known/x/mcp", "", "/.well-known/x/mcp"),
        ("/.well-known/x/mcp/abc", "", "/.well-known/x/mcp/***"),
        ("/.well-known/x/mcp/abc/more", "", "/.well-known/x/mcp/***"),
    ],
)
def test_the_key_in_a_path_follows_the_endpoint(path, secret, rest):
    seen = scope(path)
    credential = take_key(seen)
    assert (credential.secret if credential else "") == secret
    assert (seen["path"], seen["raw_path"]) == (rest, quote(rest).encode())


@walk(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "nonsense", "nonsense"),
        ("::1", "198.51.100.1", "::1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1:4711, 10.0.0.2:80", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
    ],
)
def test_only_trusted_proxies_may_name_the_clients_address(peer, forwarded, address):
    headers = [(b"x-forwarded-for", forwarded.encode())]
    seen = {"client": (peer, 1), "headers": headers}
    assert client_address(seen, networks(["10.0.0.0/8"])) == address


@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/8"]])
def test_a_forwarded_address_of_an_untrusted_peer_is_warned_of_once(trusted, caplog):
    _warn_of_untrusted_proxy.cache_clear()
    seen = {"client": ("203.0.113.9", 1), "headers": [(b"x-forwarded-for", b"198.51.100.1")]}
    for _ in range(3):
        assert client_address(seen, networks(trusted)) == "203.0.113.9"
    [warning] = caplog.records
    assert warning.levelname == "WARNING"
    assert "PVEMCP_TRUSTED_PROXIES" in warning.message


@pytest.mark.parametrize(
    ("origin", "host", "headers", "allowed"),
    [
        ("https://public.example", "public.example", [], True),
        ("http://public.example", "public.example", [], False),
        ("http://localhost:8811", "localhost:8811", [], True),
        ("https://localhost:8811", "localhost:8811", [], False),
        ("https://pve.example", "pve.example", [(b"x-forwarded-proto", b"https")], True),
        ("http://pve.example", "pve.example", [(b"x-forwarded-proto", b"https")], False),
        ("https://chat.example", "public.example", [], True),
        ("http://chat.example", "public.example", [], False),
    ],
)
@pytest.mark.parametrize("peer", ["10.0.0.1", "203.0.113.9"])
def test_an_origin_is_compared_with_its_scheme(peer, origin, host, headers, allowed):
    config = Config(
        public_url="https://public.example",
        allowed_hosts=("pve.example",),
        allowed_origins=("https://chat.example",),
        trusted_proxies=("10.0.0.0/8",),
    )
    seen = scope("/mcp", [(b"host", host.encode()), (b"origin", origin.encode()), *headers])
    seen |= {"scheme": "http", "client": (peer, 1)}
    if headers and peer == "203.0.113.9":  # not trusted: the scheme of the connection counts
        allowed = not allowed
    assert (Hosts.of(config).refusal(seen, to_transport=True) is None) is allowed
    own = allowed and origin != "https://chat.example"
    assert (Hosts.of(config).refusal(seen, to_transport=False) is None) is own


@pytest.mark.parametrize(
    ("host", "peer", "origin"),
    [
        ("mcp.example", "203.0.113.9", "https://mcp.example"),  # a proxy ends TLS there
        ("mcp.lan:8811", "203.0.113.9", "http://mcp.lan:8811"),
        ("mcp.lan", "10.0.0.1", "https://mcp.lan"),
    ],
)
def test_the_origin_of_a_page_is_the_one_that_its_browser_names(host, peer, origin):
    config = Config(public_url="https://mcp.example", trusted_proxies=("10.0.0.0/8",))
    seen = scope("/admin/", [(b"host", host.encode()), (b"x-forwarded-proto", b"https")])
    seen |= {"scheme": "http", "client": (peer, 1)}
    assert Hosts.of(config).origin_of(seen) == origin


@walk(
    ("host", "known"),
    [
        ("pve.example", True),
        ("PVE.example:443", True),
        ("public.example", True),
        ("evil.example", False),
        ("pve.example.evil.example", False),
        ("", False),
        ("[::1", False),
        ("1.2.3.4.evil.example", False),
        ("pve.example/admin/static/", False),
        ("pve.example?", False),
        ("evil.example@pve.example", False),
        ("pve.example:99999999", False),
        ("pve.example:x", False),
        ("[::1]:8811", True),
    ],
)
def test_a_host_is_known_by_configuration_or_as_an_address(host, known):
    config = Config(public_url="https://public.example", allowed_hosts=("pve.example",))
    assert is_known(host.lower(), Hosts.of(config).names) is known


def test_a_public_url_may_end_with_a_slash():
    assert (
        Config(public_url="https://public.example:8443/").base_url == "https://public.example:8443"
    )


@walk(
    ("path", "rest"),
    [
        ("/pve", "/"),
        ("/pve/", "/"),
        ("/pve/mcp/key", "/mcp/key"),
        ("/mcp/pve/x", "/mcp/pve/x"),
        ("/pvemcp", "/pvemcp"),
        ("/PVE/mcp", "/PVE/mcp"),
        ("//pve/mcp", "//pve/mcp"),
        ("/pve/pve/mcp", "/pve/mcp"),
        ("/.well-known/x/pve/mcp", "/.well-known/x/mcp"),
        ("/pve/.well-known/x/mcp", "/.well-known/x/mcp"),
        ("/pve/.well-known/x/pve/mcp", "/.well-known/x/pve/mcp"),
        ("/.well-known/pve/mcp", "/.well-known/pve/mcp"),
        ("/.well-known/x/y/pve/mcp", "/.well-known/x/y/pve/mcp"),
    ],
)
def test_a_path_prefix_is_removed_once_and_at_its_places(path, rest):
    assert PathPrefix("/pve").removed_from(path) == rest
    assert PathPrefix().removed_from(path) == path


@walk(
    ("url", "fact"),
    [
        ("https://a/b//c", "plain path"),
        ("https://a//b", "plain path"),
        ("https://a/../b", "plain path"),
        ("https://a/.well-known", "plain path"),
        ("https://a/b%2fc", "plain path"),
        ("https://a/b;c", "plain path"),
        ("https://a/b?c", "plain path"),
        ("https://a/b#c", "plain path"),
        ("https://a/{b}", "plain path"),
        ("https://a/b c", "plain path"),
        ("https://a/bä", "plain path"),
        ("https://a/mcp", "a /mcp of its own"),
        ("https://a/oauth/b", "a /oauth of its own"),
    ],
)
def test_a_public_url_with_another_path_is_refused(url, fact):
    with pytest.raises(ConfigError, match=fact):
        Config.load(public_url=url)


def test_forwarded_addresses_are_parsed_only_as_far_as_they_count(monkeypatch):
    parsed = []
    monkeypatch.setattr(hosts_module, "_host", lambda hop: parsed.append(hop) or hop)
    invented = ",".join(map(str, range(10_000)))
    scope = {
        "client": ("10.0.0.1", 1),
        "headers": [(b"x-forwarded-for", f"{invented}, 192.0.2.7".encode())],
    }
    assert client_address(scope, networks(["10.0.0.0/8"])) == "192.0.2.7"
    assert parsed == ["10.0.0.1", "192.0.2.7"]


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://MCP.example:443/", "https://mcp.example"),
        ("http://mcp.example:80", "http://mcp.example"),
        ("https://mcp.example:", "https://mcp.example"),
        ("https://[2001:db8::443]:443", "https://[2001:db8::443]"),
        ("https://mcp.example:80", "https://mcp.example:80"),
    ],
)
def test_a_url_is_known_as_browsers_send_it(url, origin):
    config = Config(public_url=url, allowed_origins=url.removesuffix("/"))
    assert (config.base_url, config.allowed_origins) == (origin, (origin,))
    hosts, name = Hosts.of(config), origin.partition("://")[2]
    headers = [(b"host", name.encode()), (b"origin", origin.encode())]
    scope = {"headers": headers, "client": ("192.0.2.1", 1), "scheme": "http"}
    assert hosts.refusal(scope, to_transport=False) is None
    assert hosts.base_of(scope) == origin


def test_a_url_with_a_user_is_no_public_url():
    with pytest.raises(ConfigError, match="must begin with http"):
        Config.load(public_url="https://user@mcp.example")
