"""The addresses of OAuth: which resource an indicator names, and below which URL they are."""

from tests.cases import walk

from pvemcp_server.config import Config
from pvemcp_server.http.hosts import Hosts
from pvemcp_server.oauth.addresses import Addresses

MCP, SSE = "https://mcp.example/mcp", "https://mcp.example/sse"


@walk(
    ("indicator", "resource"),
    [
        (None, MCP),
        ("", MCP),
        ("https://mcp.example", MCP),
        ("https://mcp.example/", MCP),
        ("https://mcp.example/mcp/", MCP),
        ("HTTPS://MCP.Example:443/mcp", MCP),
        (SSE, SSE),
        ("http://mcp.example/mcp", None),
        ("https://mcp.example:8443/mcp", None),
        ("https://evil.example/mcp", None),
        ("https://mcp.example@evil.example/mcp", None),
        ("https://user@mcp.example/mcp", None),
        ("https://mcp.example.evil.example/mcp", None),
        ("https://mcp.example/mcp/key", None),
        ("https://mcp.example/admin", None),
        ("https://mcp.example/mcp?x=1", None),
        ("https://mcp.example/mcp#", None),
        ("mcp.example/mcp", None),
        ("https://[mcp/mcp", None),
        ("javascript:alert(1)", None),
    ],
)
def test_the_resource_that_an_indicator_names(indicator, resource):
    assert Addresses("https://mcp.example").resource_of(indicator) == resource


BELOW = "https://Tools.example/Pve/x"


@walk(
    ("indicator", "resource"),
    [
        (None, f"{BELOW}/mcp"),
        (BELOW, f"{BELOW}/mcp"),
        (f"{BELOW}/", f"{BELOW}/mcp"),
        ("HTTPS://tools.EXAMPLE:443/Pve/x/mcp", f"{BELOW}/mcp"),
        (f"{BELOW}/sse/", f"{BELOW}/sse"),
        ("https://tools.example", None),
        ("https://tools.example/mcp", None),
        ("https://tools.example/pve/x/mcp", None),
        ("https://tools.example/Pve/mcp", None),
        ("https://tools.example/Pve/x/x/mcp", None),
        ("https://tools.example/Pve/xmcp", None),
    ],
)
def test_the_resource_that_an_indicator_names_below_a_prefix(indicator, resource):
    assert Addresses(BELOW).resource_of(indicator) == resource


@walk(
    ("public", "host", "base"),
    [
        ("https://MCP.example", b"127.0.0.1:8811", "https://mcp.example"),
        ("https://mcp.example", b"mcp.example", "https://mcp.example"),
        ("https://Tools.example/Pve/", b"127.0.0.1:8811", "https://tools.example/Pve"),
        (None, b"localhost:8811", "http://localhost:8811"),
        (None, b"192.0.2.1:8811", "http://192.0.2.1:8811"),
    ],
)
def test_a_public_url_comes_before_the_name_in_the_request(public, host, base):
    scope = {"headers": [(b"host", host)], "client": ("127.0.0.1", 1), "scheme": "http"}
    assert Hosts.of(Config(public_url=public)).base_of(scope) == base
