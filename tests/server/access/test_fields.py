"""Models of what administrators enter: partial updates and errors by field."""

from typing import Annotated

import pytest
from pydantic import AfterValidator, Field

from pvemcp_server.access.fields import Changes, Fields, Option, validated
from pvemcp_server.errors import BadArgument


class DeskFields(Fields):
    """Fields of every kind: required, with a check, a list, and one that may be null."""

    name: Annotated[str, AfterValidator(str.strip)]
    drawers: Annotated[list[int], Option("--drawer")] = Field(default=[3], min_length=1)
    owner: str | None = Field(default=None, description="Who sits there")


class DeskChanges(Changes, DeskFields):
    """Changes to a desk."""


def test_a_field_that_is_left_out_does_not_change():
    assert DeskChanges(name=" oak ").values() == {"name": "oak"}


def test_null_clears_only_a_field_that_may_be_null():
    assert DeskChanges(name=None, drawers=None, owner=None).values() == {"owner": None}


@pytest.mark.parametrize(
    ("values", "field"),
    [({"drawers": []}, "drawers"), ({"drawers": ["x"]}, "drawers.0"), ({"legs": 4}, "legs")],
)
def test_a_change_has_the_checks_of_its_field(values, field):
    with pytest.raises(BadArgument) as refused:
        validated(DeskChanges, values)
    assert refused.value.argument == field


def test_an_error_does_not_repeat_the_value():
    with pytest.raises(BadArgument) as refused:
        validated(DeskFields, {"name": ["secret"]})
    assert "secret" not in str(refused.value)


def test_a_change_keeps_description_and_spelling_of_its_field():
    assert DeskChanges.model_fields["owner"].description == "Who sits there"
    assert Option("--drawer") in DeskChanges.model_fields["drawers"].metadata
    assert not any(field.is_required() for field in DeskChanges.model_fields.values())
