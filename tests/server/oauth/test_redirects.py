"""Redirect URIs: what a client may register, and which requests match it."""

from datetime import UTC, datetime

from tests.cases import walk

from pvemcp_server.oauth.redirects import is_allowed, is_loopback, matches
from pvemcp_server.store.records import OAuthClientRecord

LOOPBACK = "http://127.0.0.1:3000/callback"
REGISTERED = (LOOPBACK, "https://claude.example/api/callback?x=1", "cursor://app/oauth")


def client(*uris):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return OAuthClientRecord("x", "x", False, {"redirect_uris": list(uris)}, now, now)


@walk(
    ("uri", "allowed"),
    [
        ("https://claude.ai/api/mcp/auth_callback", True),
        ("https://x.example:8443/a?b=c", True),
        ("http://localhost/callback", True),
        ("http://127.0.0.1:3000/callback", True),
        ("http://[::1]:3000/callback", True),
        ("cursor://anysphere.cursor-retrieval/oauth/callback", True),
        ("vscode://vscode.github-authentication/done", True),
        ("com.example.app:/oauth", True),
        ("http://x.example/callback", False),
        ("http://127.0.0.1.evil.example/", False),
        ("http://localhost.evil.example/", False),
        ("http://localhost@evil.example/", False),
        ("https://user:password@x.example/", False),
        ("https://x.example/#fragment", False),
        ("https://x.example/#", False),
        ("https://x.example\\@evil.example/", False),
        ("https:///callback", False),
        ("https://", False),
        ("//x.example/callback", False),
        ("/callback", False),
        ("", False),
        ("javascript:alert(1)", False),
        ("JavaScript:alert(1)", False),
        ("data:text/html,x", False),
        ("file:///etc/passwd", False),
        ("vbscript:x", False),
        ("blob:https://x.example/1", False),
        ("about:blank", False),
        ("ftp://x.example/", False),
        ("ms-settings:privacy", False),
        ("https://x.example/ a", False),
        ("https://x.example/\n", False),
        ("https://x.example/\u202e", False),
        ("https://ex\u0430mple.example/", False),
        ("https://x.example:99999/", False),
        ("http://[::1/", False),
        ("https://x.example/" + "a" * 500, False),
    ],
)
def test_what_a_client_may_register(uri, allowed):
    assert is_allowed(uri) is allowed


@walk(
    ("uri", "matched"),
    [
        *((uri, True) for uri in REGISTERED),
        ("http://127.0.0.1/callback", True),
        ("http://127.0.0.1:65535/callback", True),
        ("http://localhost:3000/callback", False),
        ("http://[::1]:3000/callback", False),
        ("https://127.0.0.1:3000/callback", False),
        ("http://127.0.0.1:3000/callback/", False),
        ("http://127.0.0.1:3000/callback?x=1", False),
        ("http://127.0.0.1:3000/callback/../evil", False),
        ("http://127.0.0.1:3000@evil.example/callback", False),
        ("http://127.0.0.1:/callback", False),
        ("https://claude.example/api/callback", False),
        ("https://claude.example:443/api/callback?x=1", False),
        ("https://CLAUDE.example/api/callback?x=1", False),
        ("https://claude.example/api/callback?x=1&y=2", False),
        ("https://evil.example/api/callback?x=1", False),
        ("cursor://app/other", False),
        ("vscode://app/oauth", False),
    ],
)
def test_a_request_matches_exactly_but_for_a_loopback_port(uri, matched):
    assert matches(client(*REGISTERED), uri) is matched


@walk(("uri", "loopback"), [(LOOPBACK, True), ("https://localhost/x", False), ("a.b:/x", False)])
def test_a_loopback_redirect_is_recognized_for_its_warning(uri, loopback):
    assert is_loopback(uri) is loopback
