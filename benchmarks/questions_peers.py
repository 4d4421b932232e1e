"""Ask other MCP servers for Proxmox VE the questions of tests/server/tools/questions.

    python benchmarks/questions_peers.py FOLDER            print the table
    python benchmarks/questions_peers.py FOLDER --write    renew docs/contributors/questions.md

FOLDER has a virtual environment for each peer, with the name of its package; a peer that is not
installed there is named and skipped. The peers read the cluster prod of the demo over HTTPS, with a
token and the certificate of the emulator. Each read is done once; a question costs the sum of those
that it takes. One of a call per guest is done for a dozen guests, and counted for all.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp import ClientSession, StdioServerParameters, stdio_client

from proxmox_client.emulator import EmulatedCluster, Emulator, demo
from proxmox_client.emulator.gateway import Gateway
from proxmox_client.emulator.http.messages import Request, Response
from questions import PAGE, measure_all
from support.in_docs import renew_or_check
from support.peer_facts import RECIPES, Fact, Facts, holds
from support.peer_servers import PEERS, Call, Calls, Connection, Peer
from tokens import count_tokens

SECONDS = 120  # for a call; a peer with a slower one, as on a busy machine, gets no row
SAMPLE = 12  # guests of a read that takes a call for each; the cost is that of all
MOST_PARTLY = 0.5  # of the facts that an answer has at least to be partly right


@dataclass
class Done:
    """A read that was done: its answers by key, and what they cost."""

    answers: dict[str, str] = field(default_factory=dict)
    calls: int = 0
    requests: int = 0
    tokens: int = 0
    timeouts: int = 0


class Requests:
    """Counts the requests that reach the nodes of the emulator."""

    def __init__(self) -> None:
        self.number = 0
        answer = Gateway.answer

        async def counted(gateway: Gateway, request: Request) -> Response:
            self.number += 1
            return await answer(gateway, request)

        Gateway.answer = counted  # type: ignore[method-assign, assignment]


async def main(folder: Path, arguments: list[str]) -> None:
    """Measure the peers that are installed, and print or write the table."""
    requests, rows = Requests(), []
    for peer in PEERS:
        if installed := _version(folder, peer):
            async with Emulator(demo()) as pve:
                row = await _row(folder, peer, pve.clusters["prod"], requests)
                print(row or f"left out: {peer.package} had a slow call", file=sys.stderr)
                rows += filter(None, [row])
            if installed != peer.version:
                print(f"{peer.package} is {installed}, not {peer.version}", file=sys.stderr)
        else:
            print(f"skipped: {peer.package} is not in {folder}: {_install(peer)}", file=sys.stderr)
    ours = {each.question.id: each for each in await measure_all()}
    asked = [ours[name] for name in RECIPES]
    tokens = iter(count_tokens([text for each in asked for text in each.asked.texts]))
    costs = [sum(next(tokens) for _ in each.asked.texts) for each in asked]
    verdicts = Counter(
        each.verdict(cost).partition(":")[0] for each, cost in zip(asked, costs, strict=True)
    )
    numbers = (
        len(asked), verdicts["right"] + verdicts["costly"], verdicts["partly"], verdicts["wrong"],
        sum(len(each.asked.replies) for each in asked), sum(each.requests for each in asked),
        sum(costs),
    )  # fmt: skip
    rows.append(_cells("**pvemcp**, both clusters", numbers))
    title = f"{len(RECIPES)} questions"
    lines = [
        f"| {title} | has tools | right | partly | wrong | calls | requests | tokens |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
        *rows,
    ]
    renew_or_check(PAGE, "peers", "\n".join(lines), arguments)


def _install(peer: Peer) -> str:
    more = f" '{peer.also}'" if peer.also else ""
    return f"python -m venv {peer.package}, and install {peer.package}=={peer.version}{more}"


def _version(folder: Path, peer: Peer) -> str:
    """Return the version that is installed; empty if none is."""
    python = folder / peer.package / "bin" / "python"
    if not python.exists():
        return ""
    program = f"from importlib.metadata import version; print(version({peer.package!r}))"
    run = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return run.stdout.strip()


async def _row(folder: Path, peer: Peer, cluster: EmulatedCluster, requests: Requests) -> str:
    """Return the row of a peer for the questions that it has tools for; empty for a slow call."""
    with tempfile.TemporaryDirectory() as scratch:
        settings = peer.settings(Connection.of(cluster, Path(scratch)))
        command = str(folder / peer.package / "bin" / peer.command)
        server = StdioServerParameters(
            command=command, args=[], env={**settings, "HOME": scratch}, cwd=scratch
        )
        with (Path(scratch) / "errors.txt").open("w") as errors:
            async with (
                stdio_client(server, errlog=errors) as streams,
                ClientSession(*streams) as session,
            ):
                await session.initialize()
                done = {
                    read: await _do(session, cluster, calls, requests)
                    for read, calls in peer.reads.items()
                }
    if any(each.timeouts for each in done.values()):
        return ""
    verdicts: Counter[str] = Counter()
    shares: dict[tuple[str, Facts], float] = {}
    total = Done()
    for name, recipe in RECIPES.items():
        if not recipe.keys() <= done.keys():
            continue
        for read, facts in recipe.items():
            if (read, facts) not in shares:
                shares[read, facts] = _share(facts(cluster.state), done[read])
        share = min(shares[part] for part in recipe.items())
        verdict = "right" if share == 1 else "partly" if share >= MOST_PARTLY else "wrong"
        verdicts[verdict] += 1
        if "--verbose" in sys.argv:
            print(f"{peer.package} {name} {verdict} {share:.2f}", file=sys.stderr)
        for read in recipe:
            total.calls += done[read].calls
            total.requests += done[read].requests
            total.tokens += done[read].tokens
    numbers = (
        verdicts.total(), verdicts["right"], verdicts["partly"], verdicts["wrong"],
        total.calls, total.requests, total.tokens,
    )  # fmt: skip
    return _cells(f"{peer.package} {peer.version}", numbers)


def _cells(name: str, numbers: tuple[int, ...]) -> str:
    return f"| {name} | {' | '.join(f'{number:,}' for number in numbers)} |"


async def _do(
    session: ClientSession, cluster: EmulatedCluster, calls: Calls, requests: Requests
) -> Done:
    """Do a read: make its calls one after the other."""
    done, before = Done(), requests.number
    every = calls(cluster.state)
    some = every[:: max(1, len(every) // SAMPLE)] if _is_per_guest(every) else every
    for call in some:
        text = await _text(session, call.tool, call.arguments, done)
        done.answers[call.key] = f"{done.answers.get(call.key, '')}\n{text}"
    tokens = sum(count_tokens(list(done.answers.values()))) if done.answers else 0
    scale = len(every) / max(1, len(some))
    done.calls = len(every)
    done.requests = round((requests.number - before) * scale)
    done.tokens = round(tokens * scale)
    return done


async def _text(session: ClientSession, tool: str, arguments: Mapping[str, Any], done: Done) -> str:
    """Return the text of an answer, which is empty for a call that took too long."""
    try:
        async with asyncio.timeout(SECONDS):
            result = await session.call_tool(tool, dict(arguments))
    except TimeoutError:
        done.timeouts += 1
        return ""
    return "\n".join(getattr(block, "text", "") for block in result.content)


def _is_per_guest(calls: Sequence[Call]) -> bool:
    return len({call.key for call in calls if call.key.isdigit()}) > SAMPLE


def _share(facts: Iterable[Fact], done: Done) -> float:
    """Return the share of the facts that the answers of a read have."""
    texts = {key: text.casefold() for key, text in done.answers.items()}
    whole = "\n".join(texts.values())
    needed = [fact for fact in facts if not fact.key.isdigit() or fact.key in texts]
    held = sum(holds(f, texts.get(f.key, "") if f.key else whole) for f in needed)
    return held / len(needed) if needed else 1.0


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), [each for each in sys.argv[2:] if each != "--verbose"]))
