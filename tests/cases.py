"""Many small cases in one test: one of its own costs pytest more than such a case takes."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

import pytest

Check = Callable[..., None]
PARAM = type(pytest.param())


def walk(names: str | tuple[str, ...], cases: Collection[Any]) -> Callable[[Check], Check]:
    """Run a test for all cases, as `parametrize` takes them; all that fail are reported by name.

    For cases without a set-up: they share the test's fixtures.
    """
    cases = list(cases)
    assert cases, names
    parts = (names,) if isinstance(names, str) else names

    def decorate(check: Check) -> Check:
        signature = inspect.signature(check)

        @functools.wraps(check)
        def test(**fixtures: Any) -> None:
            failed = []
            for case in cases:
                values = _values(case, len(parts))
                try:
                    check(**dict(zip(parts, values, strict=True)), **fixtures)
                except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - raised below
                    error.add_note(f"Case: {_name(case, values)}")
                    failed.append(error)
            if failed:
                summary = f"{len(failed)} of {len(cases)} cases failed"
                raise BaseExceptionGroup(summary, failed)

        fixtures = [one for name, one in signature.parameters.items() if name not in parts]
        test.__signature__ = signature.replace(parameters=fixtures)  # type: ignore[attr-defined]
        return test

    return decorate


def _values(case: Any, number: int) -> tuple[Any, ...]:
    if isinstance(case, PARAM):
        return tuple(case.values)
    return case if number > 1 else (case,)


def _name(case: Any, values: tuple[Any, ...]) -> str:
    if isinstance(case, PARAM) and case.id:
        return str(case.id)
    return " ".join(str(getattr(value, "name", value)) for value in values)
