"""Check the wording of code, templates and docs: plain technical English.

`python scripts/check_language.py [PATH …]` prints each finding as `path:line: 'word': advice` and
exits with 1 when there is one. Without paths it checks every tracked file with one of SUFFIXES.
`--figures` also prints the counts: words of the list per 1,000, docstrings that open with a verb.
"""

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
SUFFIXES: Final = {".py", ".html", ".md", ".js", ".mjs", ".toml", ".yml", ".yaml", ".sh"}

# What not to write, as regular expressions, and what to write instead
WORDS: Final = {
    "whoever": "name the actor: the caller, the client, an administrator",
    "nobody": "name the actor or use the passive: 'is never read'",
    "somebody|someone": "name the actor: a user, a client, another process",
    "tells?|telling|told": "report, show, return, say or warn",
    "mend(?:s|ed|ing)?": "fix",
    "anew": "again",
    "in vain": "without success, or name the failure",
    "meanwhile": "while … runs, in between",
    "heed(?:s|ed|ing)?": "follow, respect, check",
    "that there (?:is|are|was|were)": "name the thing: 'an unknown name', 'every table'",
    "what was": "name the thing: 'the request', 'the old value'",
    "as it was": "unchanged, or name the state",
    "the person": "the user",
    "for want of": "without, because … is missing",
}
# Files that hold such a word for a reason
EXEMPT: Final = {
    "scripts/check_language.py": "lists the words",
    "tests/scripts/test_check_language.py": "plants the words",
    "CONTRIBUTING.md": "shows the list to contributors",
}
# Participles that say nothing of the value; in packages they name no variable and no argument
VAGUE_NAMES: Final = frozenset({"told", "said", "asked", "wanted"})
NOT_A_NOUN: Final = "name the thing: 'guest', 'row', 'missing_nodes'"
NOT_A_THING: Final = "name the module by what is in it: 'mask', 'migration', 'connection_limits'"
# Words that open a function's docstring; the methods of HTTP are written in capitals
VERBS: Final = frozenset((Path(__file__).with_name("verbs.txt")).read_text().split())
NOT_A_VERB: Final = "start with an imperative verb (a missing verb goes into scripts/verbs.txt)"
# A decorated function whose docstring describes a thing: a property, or the rows of a table
NOUN_DECORATORS: Final = frozenset(
    {
        *("property", "cached_property"),
        *("table", "account_table", "config_table", "firewall_table"),
        *("ha_table", "node_table", "server_table"),
    }
)

_WORD: Final = re.compile(rf"(?<![a-zA-Z])(?:{'|'.join(WORDS)})(?![a-zA-Z])", re.IGNORECASE)
_ADVICE: Final = [(re.compile(word, re.IGNORECASE), advice) for word, advice in WORDS.items()]


class Finding(NamedTuple):
    """One place to rewrite; `line` counts from 1."""

    path: str
    line: int
    found: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.found!r}: {self.advice}"


class Docstring(NamedTuple):
    """The docstring of a function: its first word, and where the function stands."""

    line: int
    opener: str

    @property
    def opens_with_verb(self) -> bool:
        return self.opener.lower() in VERBS or self.opener in {"GET", "POST", "PUT", "DELETE"}


def check_words(path: str, text: str) -> Iterator[Finding]:
    """Find the words of WORDS; in Python also in names, since `was_told` reads like prose."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in _WORD.finditer(line.replace("_", " ")):
            found = match.group()
            advice = next(advice for word, advice in _ADVICE if word.fullmatch(found))
            yield Finding(path, number, found, advice)


def check_docstrings(path: str, text: str) -> Iterator[Finding]:
    """Find function docstrings that don't open with a verb."""
    for docstring in docstrings(text):
        if not docstring.opens_with_verb:
            yield Finding(path, docstring.line, docstring.opener, NOT_A_VERB)


def check_names(path: str, text: str) -> Iterator[Finding]:
    """Find variables and arguments with a name of VAGUE_NAMES."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) if name in VAGUE_NAMES:
                yield Finding(path, node.lineno, name, NOT_A_NOUN)


def check_module(path: str) -> Iterator[Finding]:
    """Find a module or package whose name is an activity; tests say what is tested."""
    file = Path(path)
    for name in (file.stem, *file.parent.parts):
        if name.endswith("ing") and not file.stem.startswith("test_"):
            yield Finding(path, 1, name, NOT_A_THING)


def docstrings(text: str) -> Iterator[Docstring]:
    """Read the docstrings of functions that say what they do, not what a thing is."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        words = (ast.get_docstring(node) or "").split()
        if words and NOUN_DECORATORS.isdisjoint(map(_name, node.decorator_list)):
            yield Docstring(node.lineno, words[0].strip(".,;:"))


def check(path: Path) -> list[Finding]:
    """Check one file; its kind decides what is checked."""
    full = ROOT / path
    name = full.relative_to(ROOT).as_posix() if full.is_relative_to(ROOT) else str(path)
    if name in EXEMPT:
        return []
    text = full.read_text("utf-8")
    found = list(check_words(name, text))
    if path.suffix == ".py":
        found += check_module(name)
        found += check_docstrings(name, text)
        if name.startswith("packages/"):
            found += check_names(name, text)
    return sorted(found)


def tracked(folder: Path = ROOT) -> list[Path]:
    """List the files of the repository, or of a folder of it, that are written by people."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", folder.resolve()],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = (Path(name) for name in listed.split("\0") if name)
    return [path for path in paths if path.suffix in SUFFIXES and (ROOT / path).is_file()]


def figures(paths: Iterable[Path]) -> str:
    """Count words in docstrings, strings and comments of packages, and docstrings with a verb."""
    words = archaic = verbs = functions = 0
    for path in paths:
        if path.suffix != ".py" or path.parts[0] != "packages":
            continue
        text = (ROOT / path).read_text("utf-8")
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in {tokenize.STRING, tokenize.COMMENT}:
                words += len(token.string.split())
                archaic += len(_WORD.findall(token.string))
        opened = [docstring.opens_with_verb for docstring in docstrings(text)]
        verbs, functions = verbs + sum(opened), functions + len(opened)
    return (
        f"{words} words in docstrings, strings and comments; "
        f"{1000 * archaic / words:.2f} per 1,000 are on the list; "
        f"{100 * verbs / functions:.1f} % of {functions} function docstrings open with a verb."
    )


def _name(decorator: ast.expr) -> str:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")


def main() -> None:
    """Print the findings and exit with 1 when there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--figures", action="store_true")
    options = parser.parse_args()
    named = [tracked(path) if path.is_dir() else [path] for path in options.paths]
    paths = list(chain(*named)) or tracked()
    found = [finding for path in paths for finding in check(path)]
    for finding in found:
        print(finding)
    if options.figures:
        print(figures(paths))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
