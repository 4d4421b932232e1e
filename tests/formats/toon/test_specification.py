"""All rules of the TOON specification 4.4 as examples.

`specification.jsonl` has one example per line: the section, the value or text to encode or decode,
and the result or that it is rejected. They cover the specification's fixtures with our own data;
docs/contributors/decisions/0009 explains their origin.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cases import walk

from pvemcp_formats import Unreadable, toon

Example = dict[str, Any]
EXAMPLES: list[Example] = [
    json.loads(line)
    for line in Path(__file__).with_name("specification.jsonl").read_text("utf-8").splitlines()
]


def examples(work: str, *, refused: bool = False) -> list[Any]:
    """Return the examples of one kind; their ids are the section and the line in the file."""
    return [
        pytest.param(example, id=f"§{example['section']} line {number}")
        for number, example in enumerate(EXAMPLES, 1)
        if work in example and refused == ("refused" in example)
    ]


def options(example: Example) -> dict[str, Any]:
    return {name.removesuffix("Size"): value for name, value in example.get("options", {}).items()}


def exact(value: Any) -> str:
    """Return a text that also shows the order of keys and the difference of 1 and true."""
    return json.dumps(value)


@walk("example", examples("encode"))
def test_encoding_follows_the_specification_and_is_reversible(example):
    arguments = options(example)
    text = toon.encode(example["encode"], **arguments)
    assert text == example["gives"]
    arguments.pop("delimiter", None)  # the text contains it
    assert toon.decode(text, **arguments) == example["encode"]


@walk("example", examples("decode"))
def test_decoding_follows_the_specification(example):
    assert exact(toon.decode(example["decode"], **options(example))) == exact(example["gives"])


@walk("example", examples("decode", refused=True))
def test_invalid_text_is_rejected_as_the_specification_says(example):
    with pytest.raises(Unreadable):
        toon.decode(example["decode"], **options(example))


def test_no_example_is_left_out():
    counted = [examples("encode"), examples("decode"), examples("decode", refused=True)]
    assert list(map(len, counted)) == [160, 246, 158]
    assert len(EXAMPLES) == 564


@pytest.mark.node
def test_the_reference_implementation_agrees_with_every_example(ask_peer):
    for example in EXAMPLES:
        work = "encode" if "encode" in example else "decode"
        answer = ask_peer(work=work, input=example[work], options=example.get("options", {}))
        assert ("error" in answer) == ("refused" in example), example
        assert answer.get("output") == example.get("gives"), example
