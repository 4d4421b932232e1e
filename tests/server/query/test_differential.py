"""Random queries about random inventories, against a plain reading of what they mean."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

WORLDS, QUERIES = 200, 50


@pytest.mark.slow
@settings(
    max_examples=WORLDS,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**40))
def test_ten_thousand_random_queries_are_answered_as_plain_python_answers_them(differential, seed):
    differential.check(seed, QUERIES)


def test_the_random_queries_are_worth_asking(differential):
    """Most have rows to answer, and they use every operator, every aggregate and relations."""
    seen, answered, total = set(), 0, 0
    for seed in range(30):
        rng = Random(seed)  # noqa: S311 - the same queries every time
        world = differential.World.random(rng)
        rows = differential.database(world)
        asker = differential.Asker(rng, world)
        for _ in range(30):
            asked, meaning = asker.query()
            total, answered = total + 1, answered + bool(differential.answered(asked, rows))
            seen |= set(_words(meaning))
    assert answered > total / 2
    assert {
        "=", "!=", ">", "<", ">=", "<=", "CONTAINS", "NOT CONTAINS", "IN", "NOT IN", "BETWEEN",
        "STARTSWITH", "ENDSWITH", "IS NULL", "IS NOT NULL", "COUNT", "SUM", "AVERAGE", "MIN", "MAX",
        "and", "or", "one relation", "two relations", "having", "distinct", "descending",
    } <= seen  # fmt: skip


def _words(meaning):
    yield from (["having"] if meaning.having else []) + (["distinct"] if meaning.distinct else [])
    yield from ("descending" for _, descending in meaning.order_by if descending)
    for _, one in meaning.outputs:
        yield from [one.function] if hasattr(one, "function") else _hops(one)
    yield from _of_tree(meaning.where)


def _hops(cell):
    return {1: ["one relation"], 2: ["two relations"]}.get(len(cell.path), [])


def _of_tree(tree):
    if tree is None:
        return
    if hasattr(tree, "logic"):
        yield tree.logic
        for part in tree.parts:
            yield from _of_tree(part)
    else:
        yield tree.operator
