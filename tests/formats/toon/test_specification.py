"""The facts of the TOON specification 4.4, all of them.

`specification.jsonl` has one fact a line: the section, what is encoded or decoded, and what it
gives or that it is refused. They are those of the specification's fixtures, in words of our own;
docs/contributors/decisions/0009 tells how they came here.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from pvemcp_formats import Unreadable, toon

Fact = dict[str, Any]
FACTS: list[Fact] = [
    json.loads(line)
    for line in Path(__file__).with_name("specification.jsonl").read_text("utf-8").splitlines()
]


def facts(work: str, *, refused: bool = False) -> list[Any]:
    """The facts of one kind, each named by its section and its line in the file."""
    return [
        pytest.param(fact, id=f"§{fact['section']} line {number}")
        for number, fact in enumerate(FACTS, 1)
        if work in fact and refused == ("refused" in fact)
    ]


def options(fact: Fact) -> dict[str, Any]:
    return {name.removesuffix("Size"): value for name, value in fact.get("options", {}).items()}


def exactly(value: Any) -> str:
    """A value with the order of its keys, and with booleans apart from numbers."""
    return json.dumps(value)


@pytest.mark.parametrize("fact", facts("encode"))
def test_we_write_as_the_specification_says(fact):
    assert toon.encode(fact["encode"], **options(fact)) == fact["gives"]


@pytest.mark.parametrize("fact", facts("decode"))
def test_we_read_as_the_specification_says(fact):
    assert exactly(toon.decode(fact["decode"], **options(fact))) == exactly(fact["gives"])


@pytest.mark.parametrize("fact", facts("decode", refused=True))
def test_we_refuse_what_the_specification_refuses(fact):
    with pytest.raises(Unreadable):
        toon.decode(fact["decode"], **options(fact))


def test_no_fact_is_left_out():
    counted = [facts("encode"), facts("decode"), facts("decode", refused=True)]
    assert list(map(len, counted)) == [160, 246, 158]
    assert len(FACTS) == 564


@pytest.mark.parametrize("fact", facts("encode"))
def test_what_we_write_for_it_reads_back(fact):
    chosen = options(fact)
    text = toon.encode(fact["encode"], **chosen)
    chosen.pop("delimiter", None)  # stands in the text
    assert toon.decode(text, **chosen) == fact["encode"]


@pytest.mark.node
def test_the_reference_implementation_agrees_with_every_fact(ask_peer):
    for fact in FACTS:
        work = "encode" if "encode" in fact else "decode"
        answer = ask_peer(work=work, input=fact[work], options=fact.get("options", {}))
        assert ("error" in answer) == ("refused" in fact), fact
        assert answer.get("output") == fact.get("gives"), fact
