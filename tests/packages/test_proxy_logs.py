"""The examples of reverse proxies write no key into an access log, wherever a client put it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = (*(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.cfg"))
EXAMPLE = re.compile(r"^```(nginx|caddy|haproxy)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MASKS = {
    "nginx": r'"~(?P<flag>\*?)(?P<pattern>\S+)" +"(?P<shown>\$before\*+)";',
    "caddy": r'request>uri regexp "(?P<flag>\(\?i\))?(?P<pattern>\S+)" "(?P<shown>\S+)"',
    "haproxy": r"path,regsub\('(?P<pattern>\S+)','(?P<shown>[^']+)'(?:,(?P<flag>i))?\)",
}
KEY = "pvemcp_0123456789_secret"
PATHS = (
    *(f"/mcp/{KEY}", f"/sse/{KEY}/messages", f"/pve/mcp/{KEY}", f"/MCP/{KEY}", f"/Sse/{KEY}"),
    *(f"/%6dcp/{KEY}", f"/mcp%2f{KEY}", f"/mcp;/{KEY}", f"/{KEY}", f"/x/{KEY.upper()}"),
    f"/mcp/{KEY[:6]}%5F{KEY[7:]}",
    f"/x/{KEY[:6]}%5F{KEY[7:]}",
)


def examples() -> Iterator[tuple[Path, str, str]]:
    """Yield each example with its file and language."""
    for path in PLACES:
        if path.suffix == ".cfg":
            yield path, "haproxy", path.read_text()
        for language, text in EXAMPLE.findall(path.read_text()):
            yield path, language, text


EXAMPLES = [
    pytest.param(language, text, id=f"{path.name} {language}")
    for path, language, text in examples()
    if re.search("log", text)
]


def masked(language: str, text: str, uri: str) -> str:
    """Return what the example writes into its log for a URI."""
    for mask in re.finditer(MASKS[language], text):
        pattern = mask["pattern"].replace("(?<", "(?P<")
        shown = mask["shown"].replace("$before", r"\g<before>").replace("$1", r"\1")
        flags = re.IGNORECASE if mask["flag"] else re.NOFLAG
        expression = f"{pattern}.*" if language == "nginx" else pattern  # a map has the whole value
        if re.search(expression, uri, flags):
            return re.sub(expression, shown.replace(r"\\1", r"\1"), uri, count=1, flags=flags)
    return uri


def test_every_page_with_a_proxy_is_found():
    assert len(EXAMPLES) >= 7


@pytest.mark.parametrize(("language", "text"), EXAMPLES)
def test_no_key_is_in_the_log_of_a_proxy(language, text):
    query = () if language == "haproxy" else (f"/mcp?key={KEY}", f"/x?a=1&k={KEY}")
    for uri in (*PATHS, *query):
        shown = masked(language, text, uri)
        assert shown.endswith("***"), uri
        assert "secret" not in shown.lower(), uri
    assert masked(language, text, "/admin/keys") == "/admin/keys"
