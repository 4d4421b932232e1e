"""Meaningless digits and empty columns are dropped; the rest stays right."""

import math
from datetime import UTC, datetime

import pytest

from pvemcp_formats import drop_empty_columns, tidy, tidy_value


@pytest.mark.parametrize(
    ("number", "tidied"),
    [
        (3.0, 3),
        (-0.0, 0),
        (2.0**40, 2**40),
        (2.0**53, 2.0**53),
        (12.3456, 12.3),
        (-12.3456, -12.3),
        (99.961, 100),
        (1.75, 1.75),
        (-0.25, -0.25),
        (0.1 + 0.2, 0.3),
        (0.4567, 0.46),
        (0.04, 0.04),
        (0.000123456, 0.00012),
        (1e-9, 1e-9),
        (5e-324, 5e-324),
        (1.7e308, 1.7e308),
        (math.nan, None),
        (math.inf, None),
    ],
)
def test_a_float_keeps_meaningful_digits(number, tidied):
    result = tidy_value(number)
    assert result == tidied
    assert type(result) is type(tidied)


@pytest.mark.parametrize("value", [None, True, 0, 2**70, "12.3456", ""])
def test_other_types_stay(value):
    assert tidy_value(value) is value


def test_a_time_loses_its_fractions_of_a_second():
    moment = datetime(2026, 11, 22, 9, 17, 13, 987_654, tzinfo=UTC)
    assert tidy([{"at": moment}]) == [{"at": datetime(2026, 11, 22, 9, 17, 13, tzinfo=UTC)}]


@pytest.mark.parametrize("name", ["memory_usage_percentage", "cpu_usage", "host_cpu_usage"])
def test_a_percentage_has_one_decimal(name):
    assert tidy([{name: 0.0444, "load": 0.0444}]) == [{name: 0, "load": 0.044}]


def test_the_caller_can_set_the_decimals_of_a_column():
    rows = [{"load": 1.23456, "rate": 1.23456, "used_percentage": 1.23456}]
    result = tidy(rows, decimals={"load": 2, "rate": 0, "used_percentage": 3})
    assert result == [{"load": 1.23, "rate": 1, "used_percentage": 1.235}]


def test_nested_values_are_tidied_too():
    rows = [{"disks": [{"size": 8.0, "used_percentage": 0.049}], "load": (0.1234, 1.234)}]
    assert tidy(rows) == [{"disks": [{"size": 8, "used_percentage": 0}], "load": [0.12, 1.2]}]


def test_the_rows_of_the_caller_are_not_changed():
    rows = [{"a": 1.25, "b": None}]
    tidy(rows)
    drop_empty_columns(rows)
    assert rows == [{"a": 1.25, "b": None}]


def test_empty_columns_are_dropped_and_named():
    rows = [
        {"vmid": 100, "lock": None, "tags": "", "n": 0, "on": False, "disks": []},
        {"vmid": 101, "pool": None, "tags": None, "n": None, "on": None, "disks": {}},
    ]
    assert drop_empty_columns(rows) == (
        [{"vmid": 100, "n": 0, "on": False}, {"vmid": 101, "n": None, "on": None}],
        ["lock", "tags", "disks", "pool"],
    )


def test_a_column_with_one_value_stays():
    rows = [{"a": None, "b": 1}, {"a": "x", "b": 2}]
    assert drop_empty_columns(rows) == (rows, [])


def test_no_rows_have_no_columns_to_drop():
    assert drop_empty_columns([]) == ([], [])
