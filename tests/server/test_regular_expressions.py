"""No regular expression takes exponential or quadratic time: the whole server stands still then."""

import ast
import importlib
import pkgutil
import random
import re
import re._constants as codes
import re._parser as parser
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import proxmox_client
import pvemcp_bridge
import pvemcp_formats
import pvemcp_server
from proxmox_client.schema import VERSIONS, load
from proxmox_client.schema.checks import compiled
from proxmox_client.schema.parameter import Parameter

MANY = 20  # repetitions that an argument has room for; in exponential time they take minutes
SECONDS = 0.5  # of processor time
PACKAGES = (proxmox_client, pvemcp_formats, pvemcp_server, pvemcp_bridge)
WHOLE = "match", "fullmatch"
USES = (*WHOLE, "search", "sub", "subn", "finditer", "findall", "split")
Use = tuple[str, str]  # a pattern, and the method that it is used with
LONG = 2_000  # characters of a text that is tried for quadratic time
LONG_SECONDS = 0.004  # linear time takes a hundredth of it
HUNDREDS = 100  # of a limit that a search may read at each character
LONG_SEARCH = 20_000  # characters of a text that is tried for it
LONG_SEARCH_SECONDS = 0.008  # 256 KiB would take a tenth of a second
OF_OWN_FILES = {"_STRING_OR_COMMENT"}  # of the user's own configuration, in a command
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


@cache
def modules() -> list[tuple[ModuleType, str]]:
    """Return the modules of the packages, each with its source."""
    return [
        (module := importlib.import_module(info.name), Path(str(module.__file__)).read_text())
        for package in PACKAGES
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if "__main__" not in info.name and "migrations" not in info.name
    ]


def of_modules() -> Iterator[Use]:
    """Yield the patterns in the values of modules, as they are used there."""
    methods = re.compile(rf"\b(?!re\.)(\w+)\.({'|'.join(USES)})\(")
    everywhere: dict[str, set[str]] = {}
    for _, source in modules():
        for name, method in methods.findall(source):
            everywhere.setdefault(name, set()).add(method)
    for module, source in modules():
        of_items = {method for name, method in methods.findall(source) if name.islower()}
        for name, value in vars(module).items():
            own = everywhere.get(name) if isinstance(value, re.Pattern) else of_items
            if name not in OF_OWN_FILES:
                yield from product(_held(value), own or USES)


def of_sources() -> Iterator[Use]:
    """Yield what may be a pattern in the source of modules, as it is used there.

    That is every text of a module with `re`, also one in a function, and `pattern=` of all modules.
    """
    held = {pattern for pattern, _ in of_modules()}
    for module, source in modules():
        names = vars(module)
        nodes = list(ast.walk(ast.parse(source)))
        uses = dict(use for node in nodes for use in _uses_by(node))
        for node in nodes:
            if isinstance(node, ast.keyword) and node.arg == "pattern":
                yield from product(_text(node.value, names), WHOLE)
            elif "re" in names:
                for text in _text(node, names):
                    if text not in held:
                        yield from product([text], uses.get(id(node), WHOLE))


def _uses_by(node: ast.AST) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the first argument of a call such as `re.search(r"…", text)`, and how it is used."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=attr), args=[first, *_]):
            if attr in USES:
                yield id(first), (attr,)


def _text(node: ast.AST, names: dict[str, Any]) -> Iterator[str]:
    """Yield the text of a literal; what a function fills into it is an `x`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        yield node.value if isinstance(node.value, str) else node.value.decode("latin-1")
    elif isinstance(node, ast.JoinedStr):
        yield "".join(map(partial(_part, names=names), node.values))


def _part(node: ast.expr, names: dict[str, Any]) -> str:
    match node:
        case ast.Constant(value=value):
            return str(value)
        case ast.FormattedValue(value=ast.Name(id=name)):
            return str(names.get(name, "x"))
    return "x"


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
    elif isinstance(value, type):
        inner = [each for each in vars(value).values() if isinstance(each, re.Pattern)]
    for each in inner if depth else ():
        yield from _held(each, depth - 1)


def of_schemas() -> Iterator[str]:
    """Yield the patterns of Proxmox's schemas, against which arguments of calls are checked."""
    for version in VERSIONS:
        for endpoint in load(version).endpoints:
            for parameter in endpoint.parameters.values():
                yield from _patterns(parameter)


def _patterns(parameter: Parameter) -> Iterator[str]:
    if parameter.pattern is not None:
        yield compiled(parameter.pattern).pattern
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


def quadratic(pattern: str, use: str) -> str | None:
    """Return the beginning of a text on which the pattern takes quadratic time, if one is found."""
    chance = random.Random(7)  # noqa: S311 - the same texts in each run
    compiled = re.compile(pattern)
    method = getattr(compiled, use if use in WHOLE else "search")  # the others search as well
    for before, repeated in _endless(list(parser.parse(pattern)), []):
        for _, ending in product(range(2), ("\x00", "!\n")):
            first, again = text_of(before, chance), text_of(repeated, chance)
            for once, part in ((first, again), ("", first), ("", first + again)):
                half, text = (
                    once + part * (length // max(1, len(part))) + ending
                    for length in (LONG // 2, LONG)
                )
                if _always_takes(LONG_SECONDS, method, text) and _grows(method, half, text):
                    return text[:80]
    return None


def repeating(pattern: str, use: str) -> str | None:
    """Return the beginning of a text that costs a search far more than its length, if one is found.

    A limit of hundreds is no help where a match may begin at each character of what is repeated:
    each beginning reads as far as the limit, and the next one reads the same again.
    """
    if use in WHOLE:
        return None
    chance = random.Random(7)  # noqa: S311 - the same texts in each run
    compiled = re.compile(pattern)
    for before, repeated, most in _limited(list(parser.parse(pattern)), []):
        first = text_of(before, chance)
        parts = {text_of(repeated, chance) for _ in range(200)} - {""}
        # those in which a match may begin again first
        for part in sorted(parts, key=lambda part: (first[:1] not in part, part))[:3]:
            window = first + part * (most - 2) + "\x00"
            text = window * (LONG_SEARCH // len(window))
            if _always_takes(LONG_SEARCH_SECONDS, compiled.search, text):
                return text[:80]
    return None


def _limited(tree: Any, before: list[Any]) -> Iterator[tuple[list[Any], Any, int]]:
    """Yield each repetition with a limit of hundreds, with what comes before it, and the limit."""
    for place, (code, value) in enumerate(tree):
        prefix = [*before, *tree[:place]]
        if code in (*REPEATS, codes.POSSESSIVE_REPEAT) and HUNDREDS <= value[1] < LONG:
            yield prefix, value[2], value[1]
        for inner in _inside(code, value):
            yield from _limited(inner, prefix)


def _endless(tree: Any, before: list[Any]) -> Iterator[tuple[list[Any], Any]]:
    """Yield each repetition without a small limit, with what comes before it."""
    for place, (code, value) in enumerate(tree):
        prefix = [*before, *tree[:place]]
        if code in (*REPEATS, codes.POSSESSIVE_REPEAT) and value[1] >= LONG:
            yield prefix, value[2]
        for inner in _inside(code, value):
            yield from _endless(inner, prefix)


def _always_takes(seconds: float, method: Callable[[str], Any], text: str) -> bool:
    """Return whether no call is quicker: on a busy machine a quick one takes long at times."""
    return not any(_seconds(method, text) <= seconds for _ in range(20))


def _grows(method: Callable[[str], Any], half: str, text: str) -> bool:
    """Return whether twice the text takes more than three times as long."""
    return min(_seconds(method, text) for _ in range(5)) > 3 * min(
        _seconds(method, half) for _ in range(5)
    )


def _seconds(method: Callable[[str], Any], text: str) -> float:
    began = time.process_time()
    method(text)
    return time.process_time() - began


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, end)
    yield
    signal.signal(signal.SIGVTALRM, before)


@pytest.fixture(scope="module")
def uses() -> set[Use]:
    return {use for use in {*of_modules(), *of_sources()} if _is_valid(use[0])}


def test_no_pattern_takes_exponential_time(uses: set[Use]):
    patterns = {*of_schemas(), *(pattern for pattern, _ in uses)}
    assert len(patterns) > 200
    assert {pattern: text for pattern in patterns if (text := slowest(pattern))} == {}


def test_no_pattern_takes_quadratic_time(uses: set[Use]):
    assert sum(method not in WHOLE for _, method in uses) > 50
    uses = {*uses, *product(of_schemas(), ("fullmatch",))}
    assert {use: text for use in uses if (text := quadratic(*use))} == {}


def test_no_search_reads_the_same_text_hundreds_of_times(uses: set[Use]):
    assert {use: text for use in uses if (text := repeating(*use))} == {}


def _is_valid(text: str) -> bool:
    """Return whether a text can be a pattern: most texts of a source are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            re.compile(text)
        except (re.error, OverflowError, RecursionError):
            return False
    return True


@pytest.mark.parametrize("pattern", [r"(a+)+", r"(\.[a-z0-9]*[a-z][a-z0-9]*)*", r"x(?:[\w-]+-?)+"])
def test_exponential_patterns_are_found(pattern):
    assert slowest(pattern)


@pytest.mark.parametrize(
    "use",
    [
        (r"\d+\.?\d*", "fullmatch"),
        (r"\s+$", "search"),
        (r"(\w+)=", "sub"),
        (r"/\*.*?\*/", "findall"),
    ],
)
def test_quadratic_patterns_are_found(use):
    assert quadratic(*use)


def test_searches_that_read_the_same_text_again_are_found():
    assert repeating(r'(?s)"(?:[^"\\]|\\.){257}', "search")


def test_patterns_are_found_wherever_they_are_written(uses: set[Use]):
    tree = ast.parse(
        'def f(text, mark):\n    re.sub("a+", "", text)\n    re.compile(rf"b+{LIMIT}{mark}")\n'
        'class C:\n    field: Annotated[str, Field(pattern="c+")]\n'
    )
    texts = {text for node in ast.walk(tree) for text in _text(node, {"LIMIT": 9})}
    assert texts >= {"a+", "b+9x", "c+"}
    assert {*_held(type("C", (), {"own": re.compile("d+")}))} == {"d+"}
    for pattern in (r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?", r"^[a-z]+\d*$", r"\w+ /access.*"):
        assert any(text.startswith(pattern) for text, _ in uses), pattern
