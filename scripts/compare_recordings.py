"""Replay recordings of real Proxmox VE against the emulator and list the differences.

python scripts/compare_recordings.py FOLDER     updates docs/reference/emulator-differences.md

Every recorded request goes to an emulated cluster that was set up like the recorded one.
Status, message, keys and types of the answers are compared, not the values of measurements.
Accepted differences, with their reasons, are listed in tests/emulator/known_differences.yaml and,
for the recordings of unusual states, in known_state_differences.yaml beside it.
"""

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from proxmox_client.emulator.http.messages import Response
from replay_recordings import Replay
from replay_states import StateReplay, load

REPOSITORY = Path(__file__).parents[1]
KNOWN = REPOSITORY / "tests" / "emulator" / "known_differences.yaml"
REPORT = REPOSITORY / "docs" / "reference" / "emulator-differences.md"
KNOWN_OF_STATES = KNOWN.with_name("known_state_differences.yaml")
VERSIONS = ("8.4", "9.1", "9.2")
STATES = "9.2 in unusual states"


@dataclass(frozen=True, order=True)
class Difference:
    """A difference between the answers to one request."""

    request: str
    what: str
    scenario: str = ""
    """The recorded state, of recordings of unusual states."""


@dataclass
class Comparison:
    """The result of a replay: counts, and differences with versions and an example."""

    exchanges: int = 0
    equal: int = 0
    found: Counter[Difference] = field(default_factory=Counter)
    versions: dict[Difference, set[str]] = field(default_factory=dict)
    examples: dict[Difference, str] = field(default_factory=dict)


def merged(comparisons: Iterable[Comparison]) -> Comparison:
    """Return the sum of comparisons."""
    result = Comparison()
    for comparison in comparisons:
        result.exchanges += comparison.exchanges
        result.equal += comparison.equal
        result.found += comparison.found
        result.examples = comparison.examples | result.examples
        for difference, versions in comparison.versions.items():
            result.versions.setdefault(difference, set()).update(versions)
    return result


def shape(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every path inside a JSON value with its type."""
    if isinstance(value, dict):
        yield path, "object"
        for key, inner in value.items():
            yield from shape(inner, f"{path}.{key}")
    elif isinstance(value, list):
        yield path, "list" if value else "empty list"
        for inner in value:
            yield from shape(inner, f"{path}[]")
    elif isinstance(value, bool):
        yield path, "boolean"
    elif isinstance(value, int | float):
        yield path, "number"
    else:
        yield path, "null" if value is None else "text"


def differences(
    recorded: dict[str, Any], response: Response, *, connection: bool = True
) -> Iterator[str]:
    """List the differences between a recorded answer and the emulator's."""
    if recorded["status"] != response.status:
        yield f"status {recorded['status']}, here {response.status} {response.reason}"
        return
    theirs_text, our_text = normalize(recorded["reason"]), normalize(response.phrase)
    if theirs_text != our_text and response.status >= 400:
        yield f"message {theirs_text!r}, here {our_text!r}"
    closes = recorded["connection"] == "close"
    if connection and closes is not response.closes and "multipart" not in str(recorded["raw_ct"]):
        yield f"connection {recorded['connection']}"
    if recorded["content_type"] != response.content_type:
        yield f"content type {recorded['content_type']}, here {response.content_type}"
    theirs = recorded["body"] if isinstance(recorded["body"], dict) else None
    ours = json.loads(response.body) if response.body else None
    yield from _shape_differences(theirs, ours)
    yield from _error_differences((theirs or {}).get("errors"), (ours or {}).get("errors"))


def _shape_differences(theirs: Any, ours: Any) -> Iterator[str]:
    left, right = _types_by_path(theirs), _types_by_path(ours)
    for path in sorted(left.keys() - right.keys()):
        if path.rpartition(".")[0].rstrip("[]") in left and _parent(path) not in right:
            continue
        yield f"lacks {path}"
    for path in sorted(right.keys() - left.keys()):
        if _parent(path) in left:
            yield f"adds {path}"
    for path in sorted(left.keys() & right.keys()):
        if left[path] != right[path] and "empty list" not in (*left[path], *right[path]):
            recorded, emulated = "/".join(sorted(left[path])), "/".join(sorted(right[path]))
            yield f"types of {path}: {recorded}, here {emulated}"
        elif ("empty list" in left[path]) is not ("empty list" in right[path]):
            word = "empty" if "empty list" in left[path] else "filled"
            yield f"{path} is {word} in the recording only"


def _error_differences(theirs: Any, ours: Any) -> Iterator[str]:
    """List the messages that differ for a parameter that both answers reject."""
    for name in sorted((theirs or {}).keys() & (ours or {}).keys()):
        if theirs[name] != ours[name]:
            yield f"about {name}: {theirs[name]!r}, here {ours[name]!r}"


def _types_by_path(value: Any) -> dict[str, set[str]]:
    types: dict[str, set[str]] = {}
    for path, kind in shape(value):
        types.setdefault(normalize(path), set()).add(kind)
    return types


def _parent(path: str) -> str:
    return path.removesuffix("[]") if path.endswith("[]") else path.rpartition(".")[0]


def normalize(text: str) -> str:
    """Replace times and checksums, which differ in every run."""
    text = re.sub(r"\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d", "DATE", text)
    text = re.sub(r"\.conf\.tmp\.\d+", ".conf.tmp.PID", text)
    return re.sub(r"\b[0-9a-f]{40,64}\b", "CHECKSUM", text)


async def compare(folder: Path, versions: tuple[str, ...] = VERSIONS) -> Comparison:
    """Replay all recordings."""
    result = Comparison()
    for version in versions:
        replay = Replay(version)
        await replay.prepare()
        for line in (folder / f"exchanges-{version}.jsonl").read_text().splitlines():
            recorded = json.loads(line)
            replay.enter(recorded["scenario"])
            response = await replay.exchange(recorded)
            _add(result, version, replay, recorded, response)
        await replay.cluster.stop()
    return result


async def compare_states(folder: Path) -> Comparison:
    """Replay the recordings of unusual states; the header of connections was not recorded."""
    result, replay = Comparison(), StateReplay(load(folder))
    async for recorded, response in replay.answers():
        _add(result, STATES, replay, recorded, response, scenario=recorded["scenario"])
    return result


def _add(
    result: Comparison,
    version: str,
    replay: Replay | StateReplay,
    recorded: dict[str, Any],
    response: Response,
    *,
    scenario: str = "",
) -> None:
    result.exchanges += 1
    texts = list(differences(recorded, response, connection=not scenario))
    result.equal += not texts
    match = replay.cluster.schema.find(recorded["method"], recorded["path"])
    request = f"{recorded['method']} {match[0].path if match else recorded['path']}"
    for text in texts:
        difference = Difference(request, text, scenario)
        result.found[difference] += 1
        result.versions.setdefault(difference, set()).add(version)
        example = f"{recorded['scenario']} as {recorded['auth']} {recorded['params'] or ''}"
        result.examples.setdefault(difference, example)


@dataclass(frozen=True)
class KnownDifference:
    """An accepted difference, and the reason."""

    request: re.Pattern[str]
    what: re.Pattern[str]
    why: str
    scenario: re.Pattern[str] = re.compile("")

    def covers(self, difference: Difference) -> bool:
        return bool(
            self.request.fullmatch(difference.request)
            and self.what.fullmatch(difference.what)
            and self.scenario.fullmatch(difference.scenario)
        )


def known_differences(file: Path = KNOWN) -> list[KnownDifference]:
    """Load the accepted differences; those of unusual states hold in every scenario by default."""
    default = "" if file == KNOWN else ".+"
    return [
        KnownDifference(
            re.compile(entry["request"]),
            re.compile(entry["what"], re.DOTALL),
            entry["why"],
            re.compile(entry.get("scenario", default)),
        )
        for entry in yaml.safe_load(file.read_text())
    ]


def unlisted(comparison: Comparison, known: list[KnownDifference]) -> list[Difference]:
    """List the differences that are not accepted."""
    return sorted(
        difference
        for difference in comparison.found
        if not any(entry.covers(difference) for entry in known)
    )


def report(
    comparison: Comparison,
    known: list[KnownDifference],
    of_states: Comparison,
    known_of_states: list[KnownDifference],
) -> str:
    """Write the page that lists the accepted differences."""
    replayed = f"{comparison.exchanges} recorded exchanges of Proxmox VE {', '.join(VERSIONS)}"
    lines = [
        "# Where the emulator differs from Proxmox VE",
        "",
        "Generated by `python scripts/compare_recordings.py FOLDER`; a test keeps it true.",
        "",
        f"{replayed} were replayed;",
        f"{comparison.equal} answers are equal in status, message, keys and types. The rest:",
        "",
    ]
    for entry in known:
        lines += [f"## {entry.why}", "", *_lines(comparison, entry), ""]
    lines += [
        "# In unusual states and as narrow accounts",
        "",
        f"{of_states.exchanges} recorded exchanges of Proxmox VE 9.2.11 were replayed against",
        "clusters in the same states (broken nodes and storages, pending changes, lost quorum, a",
        f"guest agent that refuses commands, accounts with few rights); {of_states.equal} answers",
        "are equal. The rest, with the recorded scenarios:",
        "",
    ]
    for entry in known_of_states:
        lines += [f"## {entry.why}", "", *_lines(of_states, entry), ""]
    return "\n".join(lines).rstrip() + "\n"


def _lines(comparison: Comparison, entry: KnownDifference) -> list[str]:
    """List what an entry covers: each difference with its versions, or with its scenarios."""
    places: dict[tuple[str, str], set[str]] = {}
    for difference in filter(entry.covers, comparison.found):
        scenario = {difference.scenario} if difference.scenario else set()
        found = scenario or comparison.versions[difference]
        places.setdefault((difference.request, difference.what), set()).update(found)
    return [
        f"- `{request}`: {what} ({', '.join(sorted(found))})"
        for (request, what), found in sorted(places.items())
    ]


def main() -> None:
    """Compare, print unexpected differences and update the report."""
    folder = Path(sys.argv[1])
    comparison, of_states = asyncio.run(compare(folder)), asyncio.run(compare_states(folder))
    known, known_of_states = known_differences(), known_differences(KNOWN_OF_STATES)
    for found, accepted in ((comparison, known), (of_states, known_of_states)):
        for difference in unlisted(found, accepted):
            versions = ", ".join(sorted(found.versions[difference]))
            example = found.examples[difference]
            print(f"{difference.request}: {difference.what} ({versions}; {example})")
        print(f"{found.equal} of {found.exchanges} answers are equal")
    REPORT.write_text(report(comparison, known, of_states, known_of_states))


if __name__ == "__main__":
    main()
