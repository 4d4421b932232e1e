"""No regular expression takes exponential time: while one runs, the whole server stands still."""

import ast
import importlib
import pkgutil
import random
import re
import re._constants as codes
import re._parser as parser
import signal
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

import proxmox_client
import pvemcp_formats
import pvemcp_server
from proxmox_client.schema import VERSIONS, load
from proxmox_client.schema.parameter import Parameter

MANY = 20  # repetitions that an argument has room for; in exponential time they take minutes
SECONDS = 0.5  # of processor time
OF_NO_TOOL = re.compile(r".*/(?:query-oci-repo-tags|oci-registry-pull)")  # CallApi refuses the one
INLINE = re.compile(r"\bre\.(?!compile|Match|Pattern|[A-Z]+\b)")
PACKAGES = (proxmox_client, pvemcp_formats, pvemcp_server)
REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT)
SAMPLES = "a1A-._ :/=,;\"'x\\@!\n\té"
CATEGORIES = {
    codes.CATEGORY_DIGIT: r"\d",
    codes.CATEGORY_NOT_DIGIT: r"\D",
    codes.CATEGORY_SPACE: r"\s",
    codes.CATEGORY_NOT_SPACE: r"\S",
    codes.CATEGORY_WORD: r"\w",
    codes.CATEGORY_NOT_WORD: r"\W",
}


def of_modules() -> Iterator[str]:
    """Yield the patterns that modules hold, also in containers and closures."""
    for package in PACKAGES:
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "__main__" not in info.name and "migrations" not in info.name:
                for value in vars(importlib.import_module(info.name)).values():
                    yield from _held(value)
        for path in Path(package.__path__[0]).rglob("*.py"):
            if INLINE.search(source := path.read_text()):
                yield from _literals(ast.parse(source))


def _held(value: Any, depth: int = 3) -> Iterator[str]:
    inner: Any = ()
    if isinstance(value, re.Pattern):
        yield value.pattern if isinstance(value.pattern, str) else value.pattern.decode("latin-1")
    elif isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        inner = value
    elif isinstance(value, FunctionType):
        inner = [cell.cell_contents for cell in value.__closure__ or ()]
    for each in inner if depth else ():
        yield from _held(each, depth - 1)


def _literals(tree: ast.AST) -> Iterator[str]:
    """Yield the literal patterns of calls such as `re.search(r"…", text)`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re")), args=[first, *_]):
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield first.value


def of_schemas() -> Iterator[str]:
    """Yield the patterns of Proxmox's schemas, against which arguments of calls are checked."""
    for version in VERSIONS:
        for endpoint in load(version).endpoints:
            if not OF_NO_TOOL.fullmatch(endpoint.path):
                for parameter in endpoint.parameters.values():
                    yield from _patterns(parameter)


def _patterns(parameter: Parameter) -> Iterator[str]:
    if parameter.pattern is not None:
        yield parameter.pattern
    for inner in (*(parameter.parts or {}).values(), *parameter.one_of):
        yield from _patterns(inner)
    if parameter.items is not None:
        yield from _patterns(parameter.items)


def loops(tree: Any, before: list[Any]) -> Iterator[tuple[list[Any], Any]]:
    """Yield each repetition of something that varies, with what comes before it."""
    for place, (code, value) in enumerate(tree):
        prefix = [*before, *tree[:place]]
        for inner in _inside(code, value):
            if code in REPEATS and value[1] >= MANY and _varies(inner):
                yield prefix, inner
            yield from loops(inner, prefix)


def _inside(code: Any, value: Any) -> list[Any]:
    """Return the parts of an expression; possessive and atomic ones are tried in one way only."""
    if code in REPEATS:
        return [value[2]]
    if code is codes.BRANCH:
        return list(value[1])
    if code is codes.SUBPATTERN:
        return [value[3]]
    return [value[1]] if code in (codes.ASSERT, codes.ASSERT_NOT) else []


def _varies(tree: Any) -> bool:
    return any(
        code in (*REPEATS, codes.BRANCH) or any(map(_varies, _inside(code, value)))
        for code, value in tree
    )


def text_of(tree: Any, chance: random.Random) -> str:
    """Return a text that the expression fits, as far as it says which characters that takes."""
    return "".join(_piece(code, value, chance) for code, value in tree)


def _piece(code: Any, value: Any, chance: random.Random) -> str:
    match code:
        case codes.LITERAL:
            return chr(value)
        case codes.MAX_REPEAT | codes.MIN_REPEAT | codes.POSSESSIVE_REPEAT:
            least, most, inner = value
            times = chance.randint(least, min(most, least + 3))
            return "".join(text_of(inner, chance) for _ in range(times))
        case codes.BRANCH:
            return text_of(chance.choice(value[1]), chance)
        case codes.SUBPATTERN:
            return text_of(value[3], chance)
        case codes.ATOMIC_GROUP:
            return text_of(value, chance)
        case codes.IN | codes.NOT_LITERAL | codes.ANY:
            items = [(code, value)] if code is not codes.IN else value
            return chance.choice([c for c in SAMPLES if _is_in(items, c)] or [""])
    return ""


def _is_in(items: list[Any], character: str) -> bool:
    negated, point = items[0][0] is codes.NEGATE, ord(character)
    contained = any(
        (code is codes.LITERAL and value == point)
        or (code is codes.NOT_LITERAL and value != point)
        or code is codes.ANY
        or (code is codes.RANGE and value[0] <= point <= value[1])
        or (code is codes.CATEGORY and bool(re.match(CATEGORIES[value], character)))
        for code, value in items
    )
    return contained is not negated


def slowest(pattern: str) -> str | None:
    """Return a text on which the pattern takes longer than SECONDS, if one is found."""
    chance = random.Random(7)  # noqa: S311 - the same texts in each run
    compiled = re.compile(pattern)
    for before, repeated in loops(list(parser.parse(pattern)), []):
        for _, ending in product(range(4), ("\x00", "!\n")):
            text = text_of(before, chance) + text_of(repeated, chance) * MANY + ending
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
            try:
                compiled.fullmatch(text)
                compiled.search(text)
            except TimeoutError:
                return text
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, end)
    yield
    signal.signal(signal.SIGVTALRM, before)


def test_no_pattern_takes_exponential_time():
    patterns = {*of_modules(), *of_schemas()}
    assert len(patterns) > 200
    assert {pattern: text for pattern in patterns if (text := slowest(pattern))} == {}


@pytest.mark.parametrize("pattern", [r"(a+)+", r"(\.[a-z0-9]*[a-z][a-z0-9]*)*", r"x(?:[\w-]+-?)+"])
def test_exponential_patterns_are_found(pattern):
    assert slowest(pattern)
