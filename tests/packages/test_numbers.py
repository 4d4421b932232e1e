"""Numbers in texts of others: the digits of all scripts, and thousands of them, break nothing."""

import ast
from pathlib import Path

import httpx2 as httpx
import pytest

from proxmox_client.properties import whole_number
from pvemcp_bridge.transport import HttpResponse

PACKAGES = Path(__file__).parents[2] / "packages"
METHODS = {"isdigit", "isdecimal", "isnumeric"}
KNOWN = {
    "bounded_request.py": "bytes have ASCII digits only",
    "sse.py": "bytes have ASCII digits only",
    "numbers.py": "the text is a number of ASCII digits already",
    "pagination.py": "it counts tokens",
}


def test_what_may_be_a_number_is_read_in_one_way():
    """Use `whole_number`: `int` raises for some of what the methods of `str` accept."""
    uses = {
        path.name
        for path in PACKAGES.rglob("*.py")
        if "emulator" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in METHODS
    }
    assert uses == set(KNOWN)


@pytest.mark.parametrize("text", ["", None, "²", "٣", "-1", "+1", " 1", "1_0", "1.0", "9" * 5_000])
def test_other_texts_are_no_whole_number(text):
    assert whole_number(text) is None


def test_a_whole_number_may_have_zeros_before():
    assert (whole_number("0"), whole_number("0100")) == (0, 100)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("²", None),
        ("٣", None),
        ("soon", None),
        ("-1", None),
        ("9" * 5_000, 999_999),
        ("Fri, 31 Dec 9999999999 23:59:59 GMT", None),
        (f"Fri, 31 Dec 1999 23:59:59 -{'9' * 400}", None),
        (f"Fri, 31 Dec 1999 23:59:59 +{'9' * 400}", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 999_999),
        ("Fri, 31 Dec 1999 23:59:59 -9999999999", 999_999),
        ("Fri, 31 Dec 1999 23:59:59 +9999999999", 0),
        ("120", 120),
    ],
)
def test_any_retry_after_is_a_pause_or_none(value, seconds):
    response = httpx.Response(429, headers={"retry-after": value.encode()})
    assert HttpResponse(response).retry_after == seconds
