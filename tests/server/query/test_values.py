"""The conversion of compared values, type by type."""

from datetime import UTC, datetime

import pytest
from tests.cases import walk

from pvemcp_server.errors import BadArgument
from pvemcp_server.query.values import convert
from pvemcp_server.tables.rows import Field, Kind, Unit

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
GIB = 2**30


def converted(value, kind, unit=None):
    return convert(value, Field("it", kind, "", unit), "value", NOW)


@walk(
    ("value", "bytes_"),
    [
        (8 * GIB, 8 * GIB),
        ("8589934592", 8 * GIB),
        ("8GiB", 8 * GIB),
        ("8 gib", 8 * GIB),
        ("8G", 8 * GIB),
        ("8GB", 8_000_000_000),
        ("1.5 KiB", 1536),
        ("0", 0),
        ("512 B", 512),
        ("1e3", 1000.0),
    ],
)
def test_sizes_are_numbers_or_have_a_unit(value, bytes_):
    assert converted(value, Kind.INTEGER, Unit.BYTES) == bytes_


def test_a_size_is_converted_to_the_fields_mib():
    assert converted("8GiB", Kind.INTEGER, Unit.MIB) == 8192


@pytest.mark.parametrize("value", [80, "80", "80%", "80 %", 80.0])
def test_percentages_run_to_a_hundred(value):
    assert converted(value, Kind.NUMBER, Unit.PERCENT) == 80


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2h", 7200), ("30d", 2_592_000), ("PT1H", 3600), ("1y", 31_536_000), (90, 90)],
)
def test_durations_are_seconds_or_have_a_unit(value, seconds):
    assert converted(value, Kind.INTEGER, Unit.SECONDS) == seconds


@walk(
    ("value", "moment"),
    [
        ("now", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("-30d", datetime(2026, 10, 23, 12, tzinfo=UTC)),
        ("-24H", datetime(2026, 11, 21, 12, tzinfo=UTC)),
        ("+1w", datetime(2026, 11, 29, 12, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T08:00:00Z", datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ("2026-01-31T08:00:00+02:00", datetime(2026, 1, 31, 6, tzinfo=UTC)),
        ("2026-01-31 08:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),
        (1_795_337_413, datetime.fromtimestamp(1_795_337_413, UTC)),
        ("1795337413", datetime.fromtimestamp(1_795_337_413, UTC)),
        ("today", datetime(2026, 11, 22, tzinfo=UTC)),
        ("Yesterday", datetime(2026, 11, 21, tzinfo=UTC)),
        ("tomorrow", datetime(2026, 11, 23, tzinfo=UTC)),
        ("yesterday 8:30", datetime(2026, 11, 21, 8, 30, tzinfo=UTC)),
        ("7 days ago", datetime(2026, 11, 15, 12, tzinfo=UTC)),
        ("1 week ago", datetime(2026, 11, 15, 12, tzinfo=UTC)),
        ("24h ago", datetime(2026, 11, 21, 12, tzinfo=UTC)),
        ("in 2 hours", datetime(2026, 11, 22, 14, tzinfo=UTC)),
        ("28.11.2026", datetime(2026, 11, 28, tzinfo=UTC)),
        ("24h", datetime(2026, 11, 21, 12, tzinfo=UTC)),
        ("P1D", datetime(2026, 11, 21, 12, tzinfo=UTC)),
        ("-PT36H", datetime(2026, 11, 21, tzinfo=UTC)),
        ("+P1DT30M", datetime(2026, 11, 23, 12, 30, tzinfo=UTC)),
        ("-1y", datetime(2025, 11, 22, 12, tzinfo=UTC)),
        ("2 years ago", datetime(2024, 11, 22, 12, tzinfo=UTC)),
        ("1.2.2026, 14:05:09", datetime(2026, 2, 1, 14, 5, 9, tzinfo=UTC)),
        ("1 January 2027", datetime(2027, 1, 1, tzinfo=UTC)),
        ("28 nov 2026 14:30", datetime(2026, 11, 28, 14, 30, tzinfo=UTC)),
        ("Sep 3, 2026", datetime(2026, 9, 3, tzinfo=UTC)),
    ],
)
def test_times_are_absolute_or_relative_to_now(value, moment):
    assert converted(value, Kind.TIME, Unit.TIME) == int(moment.timestamp())


@walk(("value", "boolean"), [(True, 1), ("true", 1), ("No", 0), (0, 0), ("1", 1), ("off", 0)])
def test_booleans_have_a_few_spellings(value, boolean):
    assert converted(value, Kind.BOOLEAN) == boolean


def test_text_is_casefolded_also_beyond_ascii():
    assert converted("STRASSE", Kind.TEXT) == converted("Straße", Kind.TEXT) == "strasse"


def test_a_number_is_converted_to_its_digits_for_text():
    assert converted(100, Kind.TEXT) == "100"


@walk(
    ("value", "kind", "unit", "hint"),
    [
        ("much", Kind.INTEGER, Unit.BYTES, '"8GiB"'),
        (True, Kind.INTEGER, Unit.BYTES, '"8GiB"'),
        ("8GiB", Kind.NUMBER, Unit.PERCENT, '"80%"'),
        ("P1M", Kind.TIME, Unit.TIME, '"-30d"'),
        ("PT", Kind.TIME, Unit.TIME, '"-30d"'),
        ("P", Kind.INTEGER, Unit.SECONDS, '"1h"'),
        ("11/28/2026", Kind.TIME, Unit.TIME, '"yesterday"'),
        ("2026", Kind.TIME, Unit.TIME, "epoch seconds"),
        ("2 months ago", Kind.TIME, Unit.TIME, '"-30d"'),
        ("in 2 days ago", Kind.TIME, Unit.TIME, '"-30d"'),
        ("31.02.2026", Kind.TIME, Unit.TIME, '"2026-01-31"'),
        ("31 February 2026", Kind.TIME, Unit.TIME, '"2026-01-31"'),
        ("3 Brumaire 2026", Kind.TIME, Unit.TIME, '"2026-01-31"'),
        ("2026-13-01", Kind.TIME, Unit.TIME, '"2026-01-31"'),
        ("-1M", Kind.TIME, Unit.TIME, '"-30d"'),
        ("1M", Kind.INTEGER, Unit.SECONDS, '"1h"'),
        ("maybe", Kind.BOOLEAN, None, "true or false"),
        (0.5, Kind.BOOLEAN, None, "true or false"),
        (float("nan"), Kind.NUMBER, None, "number"),
        (float("inf"), Kind.NUMBER, None, "number"),
        ("1e999", Kind.NUMBER, None, "number"),
        (2**63, Kind.INTEGER, None, "number"),
        ("١٢", Kind.INTEGER, None, "number"),
        ({"$gt": 1}, Kind.TEXT, None, "text"),
        ([1], Kind.TEXT, None, "text"),
        (True, Kind.TEXT, None, "text"),
        ("\ud800", Kind.TEXT, None, "text"),
        (None, Kind.TEXT, None, "IS NULL"),
    ],
)
def test_an_unfit_value_is_refused_with_an_example(value, kind, unit, hint):
    with pytest.raises(BadArgument) as error:
        converted(value, kind, unit)
    assert error.value.argument == "value"
    assert hint in error.value.hint
