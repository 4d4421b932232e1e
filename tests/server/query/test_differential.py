"""Random queries about random datasets: the engine answers like the oracle in plain Python."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

DATASETS, QUERIES = 100, 100


@pytest.mark.slow
@settings(
    max_examples=DATASETS,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**40))
def test_ten_thousand_random_queries_have_the_oracles_answer(differential, seed):
    differential.check(seed, QUERIES)


def test_random_queries_have_rows_and_use_every_feature(differential):
    features, answered, total = set(), 0, 0
    for seed in range(30):
        rng = Random(seed)  # noqa: S311 - the same queries every time
        dataset = differential.Dataset.random(rng)
        rows = differential.database(dataset)
        generator = differential.QueryGenerator(rng, dataset)
        for _ in range(30):
            query, reference = generator.query()
            total, answered = total + 1, answered + bool(differential.answer(query, rows))
            features |= set(_features(reference))
    assert answered > total / 2
    assert {
        "=", "!=", ">", "<", ">=", "<=", "CONTAINS", "NOT CONTAINS", "IN", "NOT IN", "BETWEEN",
        "STARTSWITH", "ENDSWITH", "IS NULL", "IS NOT NULL", "COUNT", "SUM", "AVERAGE", "MIN", "MAX",
        "and", "or", "one relation", "two relations", "having", "distinct", "descending",
        "SHARE", "EXISTS", "NOT EXISTS", "field", "entries", "HOUR", "DAY", "WEEK",
        "limitPer", "limitPer of groups", "limitPer of distinct rows",
    } <= features  # fmt: skip


def _features(query):
    yield from (["having"] if query.having else []) + (["distinct"] if query.distinct else [])
    if query.limit_per:
        yield "limitPer of groups" if query.grouped else "limitPer"
        yield from ["limitPer of distinct rows"] if query.distinct else []
    yield from ("descending" for _, descending in query.order_by if descending)
    for _, subject in query.outputs:
        if hasattr(subject, "function"):
            yield subject.function
        else:
            yield {1: "one relation", 2: "two relations"}.get(len(subject.path), "")
            yield from [subject.span] + (["entries"] if subject.is_entry else [])
    yield from _operators(query.where)


def _operators(tree):
    if tree is None:
        return
    if hasattr(tree, "logic"):
        yield tree.logic
        for part in tree.parts:
            yield from _operators(part)
    elif hasattr(tree, "negated"):
        yield "NOT EXISTS" if tree.negated else "EXISTS"
        yield from _operators(tree.where)
    else:
        yield tree.operator
        yield from ["field"] if tree.other else []
