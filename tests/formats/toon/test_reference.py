"""Our TOON beside the reference implementation of the specification, an npm package."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvemcp_formats import Format, Unreadable, encode, toon

pytestmark = pytest.mark.node

# JavaScript puts keys that look like integers first
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(
    lambda key: not key.isdigit()
) | st.sampled_from(["id", "name", "a.b", "my key", "k:", "-", "#", "true"])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["", "- a", "#a", "true", "null", "1", "05", "+1", "a,b", "a|b", "a\tb", "a: b", "[1]: a", '"']
)
# it has no integers beyond 2**53, and writes what it has with fewer digits
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda number: abs(number) < 2**53 or abs(number) >= 1e21
)
scalars = st.none() | st.booleans() | numbers | texts
rows = st.lists(keys, min_size=1, max_size=4, unique=True).flatmap(
    lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, scalars)), max_size=4)
)
documents = st.recursive(
    scalars | rows,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)
delimiters = st.sampled_from(",\t|")
many_examples = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@many_examples
@given(value=documents, delimiter=delimiters)
def test_we_write_what_the_reference_writes(ask_peer, value, delimiter):
    answer = ask_peer(work="encode", input=value, options={"delimiter": delimiter})
    assert toon.encode(value, delimiter=delimiter) == answer["output"]


def test_the_reference_reads_a_table_without_rows(ask_peer):
    text = encode([], Format.TOON, columns=["vmid", "full name"])
    assert ask_peer(work="decode", input=text) == {"output": {"data": []}}


pieces = st.sampled_from([*' \n:,-[]{}"\\#\t|1ax', "\n  ", "- ", "[2]", "{a,b}", "\n\n", "#c\n"])
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), pieces), max_size=3)


def damaged(text, edits):
    """The text with some characters left out, replaced or put in."""
    for where, length, piece in edits:
        position = int(where * len(text))
        text = text[:position] + piece + text[position + length :]
    return text


@many_examples
@given(value=documents, delimiter=delimiters, edits=edits, strict=st.booleans())
def test_we_read_and_refuse_what_the_reference_reads_and_refuses(
    ask_peer, value, delimiter, edits, strict
):
    text = damaged(toon.encode(value, delimiter=delimiter), edits)
    answer = ask_peer(work="decode", input=text, options={"strict": strict})
    if "error" in answer:
        with pytest.raises(Unreadable):
            toon.decode(text, strict=strict)
    else:
        assert toon.decode(text, strict=strict) == answer["output"]


# What version 4 of the specification changed; npm has the fixtures of version 3.3 only.
FOLDING = {"keyFolding", "expandPaths"}
CHANGED = {
    "treats extra brackets after valid array segment as literal key (non-strict)",
    "treats non-integer bracket content as literal key (non-strict)",
    "treats text between bracket segment and colon as literal key (non-strict)",
    "uses list format for objects with nested values",
}


@pytest.fixture(scope="module")
def fixtures(npm_folder: Path) -> list[dict]:
    """The cases of the specification that still hold."""
    folder = npm_folder / "node_modules" / "@toon-format" / "spec" / "tests" / "fixtures"
    if not folder.is_dir():
        pytest.skip(f"no fixtures at {folder}: npm install @toon-format/spec")
    return [
        {"category": group["category"], "options": {}, **case}
        for path in sorted(folder.rglob("*.json"))
        for group in [json.loads(path.read_text())]
        for case in group["tests"]
        if not FOLDING & case.get("options", {}).keys() and case["name"] not in CHANGED
    ]


def do(case):
    """What we answer to a case of the specification."""
    options = {name.removesuffix("Size"): value for name, value in case["options"].items()}
    work = toon.encode if case["category"] == "encode" else toon.decode
    return work(case["input"], **options)


def test_the_fixtures_of_the_specification_hold(fixtures):
    right = [case for case in fixtures if not case.get("shouldError")]
    assert len(right) > 250
    assert [do(case) for case in right] == [case["expected"] for case in right]


def test_what_the_specification_refuses_is_refused(fixtures):
    wrong = [case for case in fixtures if case.get("shouldError")]
    assert len(wrong) > 30
    for case in wrong:
        with pytest.raises(Unreadable):
            do(case)
