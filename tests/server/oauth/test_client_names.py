"""Names of clients: whatever a client calls itself stays apart from what this server says."""

import re
from pathlib import Path

import pytest

import pvemcp_server.web
from pvemcp_server.invisible import INVISIBLE
from pvemcp_server.oauth.client_names import MOST_MARKS, UNNAMED, cleaned_name, mixes_scripts

TEMPLATES = Path(pvemcp_server.web.__file__).parent / "templates"
# by template, the expressions that hold a name that a client chose, alone or in the name of a key
NAMES = {
    "oauth_consent.html": ("authorization.client.name",),
    "oauth_connections.html": ("connection.client_name",),
    "connections.html": ("each.client", "each.name"),
    "connection_ended.html": ("name",),
    "approvals_lists.html": ("call.client", "call.key"),
    "audit.html": ("each.name",),
    "audit_entries.html": ("entry.key_name",),
    "audit_entry.html": ("value",),
    "overview_failures.html": ("entry.key_name",),
    "macros.html": ("it.client.name",),
}
CHOSEN = re.compile(
    r"authorization\.(?:client\.name|name)|\bclient_name|it\.client\.name|call\.client"
    r"|each\.client\b|entry\.(?:key_name|client\b)"
)


def test_invisible_characters_are_no_name():
    hidden = [chr(code) for first, last in INVISIBLE for code in range(first, last + 1)]
    for letter in (*hidden, " ", "\xa0", "\u1680", "\u3000", "\u0301", "\ue000", "\U000e0041"):
        assert cleaned_name(letter) == UNNAMED, hex(ord(letter))
        assert cleaned_name(f" {letter}\u0301{letter} ") == UNNAMED, hex(ord(letter))
        assert cleaned_name(f"{letter}Claude{letter}") in ("Claude", "Claud\xe9"), hex(ord(letter))
    assert cleaned_name("".join(hidden)) == UNNAMED


def test_a_name_has_no_quotes_of_ours_and_few_marks():
    assert cleaned_name('Claude\u201d at \xabclaude.ai\xbb "x"') == "Claude' at 'claude.ai' 'x'"
    assert cleaned_name("x" + "\u0316" * 40) == "x" + "\u0316" * MOST_MARKS
    for name in (
        "Claude Code",
        "\u05e7\u05dc\u05d5\u05d3",
        "Caf\xe9 7+",
        "\u514b\u52b3\u5fb7 \U0001f680",
    ):
        assert cleaned_name(name) == name


@pytest.mark.parametrize(
    ("name", "mixed"),
    [
        ("Claude Code 2", False),
        ("Caf\xe9 \u514b\u52b3\u5fb7", False),
        ("\u041a\u043b\u043e\u0434", False),
        ("\u05e7\u05dc\u05d5\u05d3 claude.ai", False),
        ("Cl\u0430ude", True),
        ("C\u03bfde", True),
        ("\u13aalaude", True),
        ("Claude \u0421\u043e\u0434\u0435", True),
    ],
)
def test_scripts_that_look_alike_are_not_mixed_unseen(name, mixed):
    assert mixes_scripts(name) is mixed


def test_pages_keep_the_direction_of_a_name_to_itself():
    for path in TEMPLATES.glob("*.html"):
        text = path.read_text("utf-8")
        used = NAMES.get(path.name, ())
        printed = re.findall(r"(.{0,5})\{\{ ([^{}]+?) \}\}", text)
        for before, expression in printed:
            if CHOSEN.search(expression) or expression.split()[0] in used:
                kept = before == "<bdi>" or expression.endswith("| isolated")
                assert kept or " == " in expression, f"{path.name}: {expression}"
        for name in used:
            assert name in text, f"{path.name} shows {name} no more"
