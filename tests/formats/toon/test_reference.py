"""Comparison with the reference implementation of TOON, an npm package."""

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
# it has no integers beyond 2**53 and writes large numbers with fewer digits
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
indents = st.integers(1, 4)
many_examples = settings(
    max_examples=400,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@many_examples
@given(value=documents, delimiter=delimiters, indent=indents)
def test_our_text_equals_that_of_the_reference(ask_peer, value, delimiter, indent):
    options = {"delimiter": delimiter, "indentSize": indent}
    answer = ask_peer(work="encode", input=value, options=options)
    assert toon.encode(value, delimiter=delimiter, indent=indent) == answer["output"]


def test_the_reference_reads_a_table_without_rows(ask_peer):
    text = encode([], Format.TOON, columns=["vmid", "full name"])
    assert ask_peer(work="decode", input=text) == {"output": {"data": []}}


pieces = st.sampled_from([*' \n:,-[]{}"\\#\t|1ax', "\n  ", "- ", "[2]", "{a,b}", "\n\n", "#c\n"])
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), pieces), max_size=3)


def damaged(text, edits):
    """Return the text with some characters removed, replaced or inserted."""
    for where, length, piece in edits:
        position = int(where * len(text))
        text = text[:position] + piece + text[position + length :]
    return text


def compare_reading(ask_peer, text, *, strict, indent):
    """Check that we read or reject the text like the reference."""
    options = {"strict": strict, "indentSize": indent}
    answer = ask_peer(work="decode", input=text, options=options)
    if "error" in answer:
        with pytest.raises(Unreadable):
            toon.decode(text, strict=strict, indent=indent)
    else:
        assert toon.decode(text, strict=strict, indent=indent) == answer["output"]


@many_examples
@given(value=documents, delimiter=delimiters, indent=indents, edits=edits, strict=st.booleans())
def test_damaged_text_is_read_or_rejected_like_the_reference(
    ask_peer, value, delimiter, indent, edits, strict
):
    text = damaged(toon.encode(value, delimiter=delimiter, indent=indent), edits)
    compare_reading(ask_peer, text, strict=strict, indent=indent)


# Parts of valid and invalid lines, independent of the encoder
starts = st.sampled_from(["", "", "  ", "    ", " ", "\t", "- ", "  - ", "    - ", "-", "#"])
headers = "k[2]: |k[1]:|[2]:|[0]:|[2]{a,b}:|t[2]{a,b}:|m[2:]{x,y}:"
broken = "k[03]: |k[]:|k [1]:|t[2]{a,a}:|t[1]{}:"
heads = st.sampled_from(
    ["", "a: ", "b:", "t[1|]{a|b{c|d}}:", "m[1:|]{x}:", *f"{headers}|{broken}".split("|")]
)
rests = st.sampled_from(
    ["1", "1,2", "x,y", "x|y|z", "k: 1,2", '"q,r",2', "[]", "{}", "null,true", '"open', '"a"b', ""]
)
drawn_lines = st.tuples(starts, heads, rests).map("".join)


@many_examples
@given(
    lines=st.lists(drawn_lines, max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    strict=st.booleans(),
    indent=st.sampled_from([1, 2, 4]),
)
def test_random_lines_are_read_or_rejected_like_the_reference(ask_peer, lines, end, strict, indent):
    compare_reading(ask_peer, end.join(lines), strict=strict, indent=indent)


@many_examples
@given(
    number=st.integers(-(10**25), 10**25) | st.floats(allow_nan=False, allow_infinity=False),
    where=st.sampled_from(["{}", "n: {}", "[2]: {},0", "t[1]{{a,b}}:\n  {},x"]),
)
def test_the_reference_reads_every_number_we_write(ask_peer, number, where):
    text = where.format(toon.encode(number))
    answer = ask_peer(work="decode", input=text)["output"]
    ours = toon.decode(text)
    assert _floats(ours) == _floats(answer)


def _floats(value):
    """Return a value with all numbers as floats, the only numbers of the reference."""
    return json.loads(json.dumps(value), parse_int=float)


# The fixtures of the newest npm package are of version 3.3; 4.0 and later changed these
SUPERSEDED = {
    # 4.4, §14.4: a malformed header is an error in both modes, no longer a key
    "decode/objects": {23, 24, 25},
    # 4.0, §8: a dotted key is one key, there is nothing to expand
    "decode/path-expansion": {0, 1, 2, 4, 5, 6, 7, 8, 9, 11},
    # 4.0, §9.3: columns of like objects are a group of fields
    "encode/arrays-objects": {1},
    # 4.0, §8: nor to fold
    "encode/key-folding": {0, 1, 2, 5, 6, 9, 10, 11},
}
REMOVED = {"keyFolding", "flattenDepth", "expandPaths"}


def agrees(work, case):
    """Return whether we do what a fixture expects, without the removed options."""
    options = {
        name.removesuffix("Size"): value
        for name, value in case.get("options", {}).items()
        if name not in REMOVED
    }
    try:
        result = getattr(toon, work)(case["input"], **options)
    except Unreadable:
        return bool(case.get("shouldError"))
    return not case.get("shouldError") and result == case["expected"]


def test_only_superseded_fixtures_of_an_older_version_fail(npm_folder: Path):
    folder = npm_folder / "node_modules" / "@toon-format" / "spec" / "tests" / "fixtures"
    groups = {
        f"{path.parent.name}/{path.stem}": json.loads(path.read_text("utf-8"))
        for path in sorted(folder.rglob("*.json"))
    }
    assert sum(len(group["tests"]) for group in groups.values()) == 400
    failing = {
        name: {i for i, case in enumerate(group["tests"]) if not agrees(group["category"], case)}
        for name, group in groups.items()
    }
    assert {name: which for name, which in failing.items() if which} == SUPERSEDED
