"""When to poll next, for every outcome and with chance taken to its ends."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.pace import Outcome, Pace

PACE = Pace(interval=30.0, jitter=5.0, max_backoff=600.0)
LEAST = 1.5


def least(low: float, _high: float) -> float:
    return low


def most(_low: float, high: float) -> float:
    return high


seconds = st.floats(1.0, 86400.0)
paces = st.builds(Pace, interval=seconds, jitter=st.floats(0.0, 3600.0), max_backoff=seconds)
failures = st.integers(1, 10**9)
chance = st.randoms(use_true_random=False)


def test_an_answer_is_followed_by_the_interval_and_jitter() -> None:
    """§6: interval plus jitter, so that a fleet booted together spreads out."""
    assert PACE.delay(Outcome.ANSWERED, 0, None, least) == 30.0
    assert PACE.delay(Outcome.ANSWERED, 0, None, most) == 35.0


@pytest.mark.parametrize(
    ("failed", "longest"), [(1, 30.0), (2, 60.0), (3, 120.0), (5, 480.0), (6, 600.0), (99, 600.0)]
)
def test_the_bound_of_the_wait_doubles_with_each_failure(failed: int, longest: float) -> None:
    """§6: exponential backoff with full jitter: from next to nothing up to the bound."""
    assert PACE.delay(Outcome.FAILED, failed, None, least) == LEAST
    assert PACE.delay(Outcome.FAILED, failed, None, most) == longest


@pytest.mark.parametrize("asked", [120.0, 3600.0])
def test_retry_after_is_the_least(asked: float) -> None:
    """§6: Retry-After is honoured, also beyond max_backoff, and who was told the same spreads."""
    assert PACE.delay(Outcome.FAILED, 1, asked, least) == asked
    assert PACE.delay(Outcome.FAILED, 1, asked, most) == asked + LEAST


def test_retry_after_within_the_backoff_shortens_nothing() -> None:
    """§6: a short Retry-After does not undo the backoff."""
    assert PACE.delay(Outcome.FAILED, 3, 10.0, least) == 10.0
    assert PACE.delay(Outcome.FAILED, 3, 10.0, most) == 120.0


def test_a_rejected_credential_is_asked_about_seldom() -> None:
    """§5: polling slows down; the first refusal is no different from the hundredth."""
    for failed in (1, 100):
        assert PACE.delay(Outcome.REFUSED, failed, None, least) == 300.0
        assert PACE.delay(Outcome.REFUSED, failed, None, most) == 600.0


def test_slow_polling_is_never_faster_than_the_interval() -> None:
    """§5: with an interval longer than max_backoff a rejected credential does not speed up."""
    pace = Pace(interval=3600.0, jitter=0.0, max_backoff=60.0)
    assert pace.delay(Outcome.REFUSED, 1, None, most) == 3600.0


@given(paces, failures, chance)
def test_a_failure_never_hammers_and_never_waits_for_ever(
    pace: Pace, failed: int, dice: random.Random
) -> None:
    """The API takes about one request a second from one address."""
    delay = pace.delay(Outcome.FAILED, failed, None, dice.uniform)
    assert LEAST <= delay <= max(pace.max_backoff, 2 * LEAST)


@given(paces, st.sampled_from(Outcome), failures, chance)
def test_every_wait_has_a_bound(
    pace: Pace, outcome: Outcome, failed: int, dice: random.Random
) -> None:
    """§6: whatever happens, the next poll comes."""
    delay = pace.delay(outcome, failed, None, dice.uniform)
    assert delay <= max(pace.interval + pace.jitter, pace.max_backoff, 2 * LEAST)
