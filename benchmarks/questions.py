"""Ask the questions of tests/server/tools/questions on the demo, and count what each one costs.

    python benchmarks/questions.py            print the table
    python benchmarks/questions.py --write    renew it in docs/contributors/questions.md

Tokens (o200k) are those of the calls and of their answers, in the default format. They change a
little with the time of day, as the demo does.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from proxmox_client.emulator import Clock, ManualClock, demo
from support.in_docs import renew_or_check
from tokens import count_tokens

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "contributors" / "questions.md"
sys.path.append(str(REPOSITORY))
from tests.server.tools.questions.declared import QUESTIONS  # noqa: E402 - found by the line above
from tests.server.tools.questions.model import (  # noqa: E402
    MOST_CALLS,
    MOST_TOKENS,
    Asked,
    Demo,
    Question,
    ask,
    differences,
)
from tests.server.tools.tool_client import PACE, ToolClient, open_tool_client  # noqa: E402

VERDICTS = ("right", "costly", "partly", "no tool", "wrong")
SERIES = {
    "B": "of an evaluation with an earlier version",
    "N": "further ones, on odd things",
    "T": "first calls that cannot answer, whose notes say so",
}


@dataclass(frozen=True)
class Measured:
    """A question with its replies, and the number of requests to Proxmox."""

    question: Question
    asked: Asked
    requests: int
    is_right: bool

    def verdict(self, tokens: int) -> str:
        """Return one of VERDICTS, with what is missing."""
        question = self.question
        if not self.is_right:
            return "wrong"
        if question.no_tool:
            return f"no tool: {', '.join(question.no_tool)}"
        if question.lacks:
            return f"partly: not {question.lacks}"
        is_cheap = len(self.asked.replies) <= MOST_CALLS and tokens <= MOST_TOKENS
        return "right" if is_cheap else "costly"


async def measure(client: ToolClient, questions: Iterable[Question]) -> list[Measured]:
    """Ask the questions, each with an inventory that has expired."""
    measured = []
    states = {name: each.emulated.state for name, each in client.clusters.connected.items()}
    for question in questions:
        client.refresh()
        for name in states:
            client.requests(name)
        asked = await ask(replace(client, toolsets=question.toolsets), question)
        requests = sum(len(client.requests(name)) for name in states)
        is_right = not differences(question, Demo(states), asked.replies)
        measured.append(Measured(question, asked, requests, is_right))
    return measured


async def measure_all() -> list[Measured]:
    """Ask all questions; those that change something on clusters of their own."""
    reads = [question for question in QUESTIONS.values() if not question.writes]
    writes = [question for question in QUESTIONS.values() if question.writes]
    async with open_tool_client(demo(), ManualClock(), kept=True) as client:
        measured = await measure(client, reads)
    async with open_tool_client(demo(), Clock(PACE)) as client:
        measured += await measure(client, writes)
    return sorted(measured, key=lambda each: (each.question.id[0], int(each.question.id[1:])))


def table(measured: list[Measured]) -> str:
    """Return the counts and the table of all questions, in Markdown."""
    counts = iter(count_tokens([text for each in measured for text in each.asked.texts]))
    rows, verdicts = [], {series: Counter[str]() for series in SERIES}
    for each in measured:
        question, asked = each.question, each.asked
        tokens = sum(next(counts) for _ in asked.texts)
        verdict = each.verdict(tokens)
        verdicts[question.id[0]][verdict.partition(":")[0]] += 1
        cells = (question.id, question.words, len(asked.replies), each.requests, tokens, verdict)
        rows.append(f"| {' | '.join(map(str, cells))} |")
    lines = [
        f"| questions | all | {' | '.join(VERDICTS)} |",
        f"|---|--:|{'--:|' * len(VERDICTS)}",
    ]
    for series, words in SERIES.items():
        numbers = [verdicts[series].total(), *(verdicts[series][each] for each in VERDICTS)]
        lines.append(f"| {series}: {words} | {' | '.join(map(str, numbers))} |")
    lines += [
        "",
        "| | question | calls | requests | tokens | answer |",
        "|---|---|--:|--:|--:|---|",
    ]
    return "\n".join([*lines, *rows])


def main() -> None:
    """Measure, then print or write the table."""
    renew_or_check(PAGE, "questions", table(asyncio.run(measure_all())), sys.argv[1:])


if __name__ == "__main__":
    main()
