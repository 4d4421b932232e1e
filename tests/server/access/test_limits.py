"""How often and how many at a time."""

import pytest

from pvemcp_server.access.limits import REMEMBERED, CallLimits, Rate, network_of
from pvemcp_server.errors import OverBudget


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_bucket_empties_and_refills_evenly():
    clock = Clock()
    rate = Rate(clock=clock)
    assert [rate.take("a", 3) for _ in range(4)] == [True, True, True, False]
    clock.seconds = 20
    assert [rate.take("a", 3) for _ in range(2)] == [True, False]
    clock.seconds = 3600
    assert [rate.take("a", 3) for _ in range(4)] == [True, True, True, False]


def test_a_token_that_was_given_back_can_be_taken_again_and_no_more():
    rate = Rate(clock=Clock())
    rate.give_back("a")
    assert rate.take("a", 1)
    rate.give_back("a")
    assert [rate.take("a", 1) for _ in range(2)] == [True, False]


def test_names_do_not_share_a_bucket():
    rate = Rate(clock=Clock())
    assert rate.take("a", 1)
    assert rate.take("b", 1)
    assert not rate.take("a", 1)


def test_the_memory_for_names_is_bounded():
    rate = Rate(clock=Clock())
    for number in range(REMEMBERED + 50):
        rate.take(str(number), 1)
    assert len(rate._buckets) == REMEMBERED
    assert rate.take("0", 1)


def test_a_call_beyond_the_rate_is_told_the_limit():
    limits = CallLimits(clock=Clock())
    limits.check_rate("key", 1)
    with pytest.raises(OverBudget, match="More than 1 calls a minute"):
        limits.check_rate("key", 1)


def test_places_are_given_back_also_after_an_error():
    limits = CallLimits()
    with limits.running("key", 1):
        with pytest.raises(OverBudget, match="running already"), limits.running("key", 1):
            pass
        with limits.running("other", 1):
            pass
    with pytest.raises(ValueError, match="broken"), limits.running("key", 1):
        raise ValueError("broken")
    with limits.running("key", 1):
        pass
    assert not limits._running


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("unix", "unix"),
    ],
)
def test_what_one_client_can_choose_from_counts_as_one(address: str, network: str):
    assert network_of(address) == network
