"""The check of our wording finds planted sentences, and passes plain ones."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_language.py"
_spec = importlib.util.spec_from_file_location("check_language", SCRIPT)
check_language = importlib.util.module_from_spec(_spec)
sys.modules["check_language"] = check_language  # its NamedTuples look their module up
_spec.loader.exec_module(check_language)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("# Nobody waits for it in vain.", ["Nobody", "in vain"]),
        ('"""Tell whoever asked."""', ["Tell", "whoever"]),
        ("was_told = True", ["told"]),
        ("<p>The person declined; look anew.</p>", ["The person", "anew"]),
        ("The error for a name that there is not.", ["that there is"]),
        ("A mended line was heeded meanwhile.", ["mended", "heeded", "meanwhile"]),
    ],
)
def test_a_planted_word_is_found(line, found):
    assert [finding.found for finding in check_language.check_words("page", line)] == found


@pytest.mark.parametrize(
    "line",
    [
        "# Circuit breaker: later reads fail fast instead of waiting again.",
        '"""Return the intelligent, amended, untold answer."""',  # parts of other words
        "recommend the renewal of a fixed certificate",
    ],
)
def test_plain_sentences_pass(line):
    assert list(check_language.check_words("page", line)) == []


@pytest.mark.parametrize("opener", ["The", "What", "A", "It", "Rows", "Returns", "Whether"])
def test_a_docstring_that_opens_without_a_verb_is_found(opener):
    text = f'def names():\n    """{opener} names."""\n'
    (finding,) = check_language.check_docstrings("module.py", text)
    assert (finding.line, finding.found) == (1, opener)


@pytest.mark.parametrize(
    "text",
    [
        'def names():\n    """Return the names."""\n',
        'async def names():\n    """GET /nodes. Needs Sys.Audit."""\n',
        '@property\ndef names():\n    """Names of the nodes."""\n',
        '@table("guests", cost=1)\ndef guests():\n    """Virtual machines and containers."""\n',
        "def names():\n    return []\n",
    ],
)
def test_a_verb_or_a_described_thing_may_open_a_docstring(text):
    assert list(check_language.check_docstrings("module.py", text)) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("asked = 1\n", ["asked"]),
        ("first, (said, *told) = rows\n", ["said", "told"]),
        ("wanted: int = 1\n", ["wanted"]),
        ("def read(wanted, *, asked=None):\n    return wanted\n", ["wanted", "asked"]),
        ("rows = [asked for asked in names]\n", ["asked"]),
        ("with open(name) as told:\n    pass\n", ["told"]),
        ("if said := read():\n    pass\n", ["said"]),
        ("guest = asked_nodes = call.asked\n", []),  # parts of names, and attributes
    ],
)
def test_a_vague_name_of_a_variable_or_argument_is_found(text, names):
    found = check_language.check_names("module.py", text)
    assert sorted(finding.found for finding in found) == sorted(names)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("packages/server/src/pvemcp_server/tools/api/masking.py", ["masking"]),
        ("tests/e2e/browsing.py", ["browsing"]),
        ("packages/server/src/pvemcp_server/caching/rows.py", ["caching"]),
        ("packages/server/src/pvemcp_server/store/setting_repository.py", []),
        ("tests/e2e/test_starting.py", []),  # a test says what is tested
    ],
)
def test_a_module_or_package_that_is_named_by_an_activity_is_found(path, names):
    assert [finding.found for finding in check_language.check_module(path)] == names


def test_a_finding_fails_the_command_and_names_the_line(tmp_path):
    planted = tmp_path / "planted.md"
    planted.write_text("Plain.\n\nNobody knows.\n")
    done = subprocess.run([sys.executable, SCRIPT, planted], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{planted}:3: 'Nobody': name the actor")


def test_every_exemption_has_a_file_and_a_reason():
    for path, reason in check_language.EXEMPT.items():
        assert (SCRIPT.parents[1] / path).is_file()
        assert reason
