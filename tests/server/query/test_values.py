"""What a caller may compare with, type by type."""

from datetime import UTC, datetime

import pytest

from pvemcp_server.errors import BadArgument
from pvemcp_server.query.values import typed
from pvemcp_server.tables.registry import Field, Kind, Unit

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
GIB = 2**30


def read(given, kind, unit=None):
    return typed(given, Field("it", kind, "", unit), "value", NOW)


@pytest.mark.parametrize(
    ("given", "bytes_"),
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
def test_sizes_are_numbers_or_have_a_unit(given, bytes_):
    assert read(given, Kind.INTEGER, Unit.BYTES) == bytes_


def test_a_size_of_a_field_in_mib_is_turned_into_mib():
    assert read("8GiB", Kind.INTEGER, Unit.MIB) == 8192


@pytest.mark.parametrize("given", [80, "80", "80%", "80 %", 80.0])
def test_percentages_count_to_a_hundred(given):
    assert read(given, Kind.NUMBER, Unit.PERCENT) == 80


@pytest.mark.parametrize(("given", "seconds"), [("2h", 7200), ("30d", 2_592_000), (90, 90)])
def test_durations_are_seconds_or_have_a_unit(given, seconds):
    assert read(given, Kind.INTEGER, Unit.SECONDS) == seconds


@pytest.mark.parametrize(
    ("given", "moment"),
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
    ],
)
def test_times_are_moments_or_count_from_now(given, moment):
    assert read(given, Kind.TIME, Unit.TIME) == int(moment.timestamp())


@pytest.mark.parametrize(
    ("given", "truth"), [(True, 1), ("true", 1), ("No", 0), (0, 0), ("1", 1), ("off", 0)]
)
def test_truth_has_a_few_words(given, truth):
    assert read(given, Kind.BOOLEAN) == truth


def test_text_is_compared_without_case_also_beyond_ascii():
    assert read("STRASSE", Kind.TEXT) == read("Straße", Kind.TEXT) == "strasse"


def test_a_number_may_stand_for_its_digits_where_text_is_meant():
    assert read(100, Kind.TEXT) == "100"


@pytest.mark.parametrize(
    ("given", "kind", "unit", "hint"),
    [
        ("much", Kind.INTEGER, Unit.BYTES, '"8GiB"'),
        (True, Kind.INTEGER, Unit.BYTES, '"8GiB"'),
        ("8GiB", Kind.NUMBER, Unit.PERCENT, '"80%"'),
        ("30d", Kind.TIME, Unit.TIME, '"-30d"'),
        ("yesterday", Kind.TIME, Unit.TIME, '"-30d"'),
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
def test_what_does_not_fit_is_answered_with_what_does(given, kind, unit, hint):
    with pytest.raises(BadArgument) as error:
        read(given, kind, unit)
    assert error.value.argument == "value"
    assert hint in error.value.hint
