"""A test that walks cases runs all of them and reports those that fail by name."""

import pytest
from tests.cases import walk


@pytest.fixture
def seen() -> list[int]:
    return []


@walk(("number", "word"), [(1, "one"), pytest.param(2, "two", id="a name")])
def test_each_case_has_its_values_and_shares_the_fixtures(seen, number, word):
    seen.append(number)
    assert word == ("one", "two")[number - 1]
    assert seen == list(range(1, number + 1))


def test_every_case_that_fails_is_reported_by_its_name():
    @walk("number", [1, 2, pytest.param(3, id="three"), 4])
    def check(number):
        with pytest.raises(ZeroDivisionError):
            assert number / (number % 2)

    with pytest.raises(BaseExceptionGroup, match="2 of 4 cases failed") as failed:
        check()
    notes = [one.__notes__ for one in failed.value.exceptions]
    assert notes == [["Case: 1"], ["Case: three"]]


def test_a_walk_without_cases_is_a_fault():
    with pytest.raises(AssertionError):
        walk("number", [])
