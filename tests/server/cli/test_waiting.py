"""Commands that wait for several clusters print each answer as soon as it is there."""

import anyio
import pytest

from pvemcp_server.cli.context import as_they_come

pytestmark = pytest.mark.anyio


async def test_an_answer_is_shown_before_a_slow_one_and_kept_in_order():
    shown: list[str] = []
    first_shown = anyio.Event()

    async def slow() -> str:
        await first_shown.wait()
        return "slow"

    async def quick() -> str:
        return "quick"

    def show(text: str) -> None:
        shown.append(text)
        first_shown.set()

    with anyio.fail_after(5):
        assert await as_they_come([slow(), quick()], show) == ["slow", "quick"]
    assert shown == ["quick", "slow"]
