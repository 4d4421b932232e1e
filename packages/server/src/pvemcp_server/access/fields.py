"""Bases of the models that administrators fill in, and how the command line spells their fields."""

from copy import copy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pvemcp_server.errors import BadArgument, value_fact

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Option:
    """The spelling of a field as a command-line option, where it is not `--field-name`.

    `clear` is the word that sets the field back to its default, for example `never`. `metavar`
    stands for the value in the help.
    """

    name: str = ""
    clear: str = ""
    metavar: str | None = None


@dataclass(frozen=True, slots=True)
class Argument:
    """Marks a field as a positional argument of commands; `name` is shown in capitals."""

    name: str = ""


class Fields(BaseModel):
    """Base of a model with values to enter: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Changes(BaseModel):
    """Base of a partial update: every field is optional, and a field left out keeps its value.

    Put it before the model whose fields may change: `class KeyChanges(Changes, KeyFields)`. The
    types, checks and descriptions of the fields stay; null is allowed everywhere. Null clears a
    field whose own type allows it; for any other field it counts as left out.
    """

    clearable: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Make every field optional.

        The checks of a field move inside its type (`Annotated[str, check] | None`), so that they
        never see null.
        """
        clearable = set()
        for name, inherited in list(cls.model_fields.items()):
            field = copy(inherited)
            spelling = [mark for mark in field.metadata if isinstance(mark, Option | Argument)]
            checks = [mark for mark in field.metadata if mark not in spelling]
            if not field.is_required() and field.default is None:
                clearable.add(name)
            plain: Any = field.annotation
            optional: Any = (Annotated[(plain, *checks)] if checks else plain) | None
            field.annotation = optional
            field.metadata, field.default, field.default_factory = spelling, None, None
            cls.model_fields[name] = field
        cls.clearable = frozenset(clearable)
        cls.model_rebuild(force=True)

    def values(self) -> dict[str, Any]:
        """Return the fields to change with their new values."""
        return {
            name: value
            for name, value in self.model_dump(exclude_unset=True).items()
            if value is not None or name in self.clearable
        }


def validated(model: type[Model], values: dict[str, Any]) -> Model:
    """Return the model with these values; raise BadArgument for the first wrong one."""
    try:
        return model.model_validate(values)
    except ValidationError as invalid:
        raise bad_argument(invalid) from None


def bad_argument(invalid: ValidationError, prefix: str = "") -> BadArgument:
    """Return the first wrong value as an error. It names the field, never the value: that may be
    a secret."""
    error = invalid.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in (*filter(None, [prefix]), *error["loc"]))
    return BadArgument(place, value_fact(error))
