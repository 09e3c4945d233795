"""When to poll next, for every outcome and with chance taken to its ends."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.backoff import Outcome, Pace

PACE = Pace(interval=30.0, jitter=5.0, max_backoff=600.0)


def least(low: float, _high: float) -> float:
    return low


def most(_low: float, high: float) -> float:
    return high


seconds = st.floats(1.0, 86400.0)
paces = st.builds(
    lambda one, other, jitter: Pace(min(one, other), jitter, max(one, other)),
    seconds,
    seconds,
    st.floats(0.0, 3600.0),
)
failures = st.integers(1, 10**9)
chance = st.randoms(use_true_random=False)


def test_an_answer_is_followed_by_the_interval_and_jitter() -> None:
    """Polling: interval plus jitter, so that a fleet booted together spreads out."""
    assert PACE.delay(Outcome.ANSWERED, 0, None, least) == 30.0
    assert PACE.delay(Outcome.ANSWERED, 0, None, most) == 35.0


@pytest.mark.parametrize(
    ("failed", "longest"), [(1, 35.0), (2, 60.0), (3, 120.0), (5, 480.0), (6, 600.0), (99, 600.0)]
)
def test_the_bound_of_the_wait_doubles_with_each_failure(failed: int, longest: float) -> None:
    """Incident 20: exponential backoff, and the first retry is not sooner than after a success."""
    assert PACE.delay(Outcome.FAILED, failed, None, least) == 30.0
    assert PACE.delay(Outcome.FAILED, failed, None, most) == longest


@pytest.mark.parametrize(("asked", "waited"), [(120.0, 120.0), (600.0, 600.0), (9999999999, 600.0)])
def test_retry_after_is_the_least_up_to_max_backoff(asked: float, waited: float) -> None:
    """Incidents 19, 20: no server silences the agent, and a fleet told the same spreads out."""
    assert PACE.delay(Outcome.FAILED, 1, asked, least) == waited
    assert PACE.delay(Outcome.FAILED, 1, asked, most) == waited + 5.0


def test_retry_after_within_the_backoff_shortens_nothing() -> None:
    """Polling: a short Retry-After does not undo the backoff."""
    assert PACE.delay(Outcome.FAILED, 3, 10.0, least) == 30.0
    assert PACE.delay(Outcome.FAILED, 3, 10.0, most) == 120.0


def test_a_rejected_credential_is_asked_about_seldom() -> None:
    """API key: polling slows down; the first refusal is no different from the hundredth."""
    for failed in (1, 100):
        assert PACE.delay(Outcome.REFUSED, failed, None, least) == 300.0
        assert PACE.delay(Outcome.REFUSED, failed, None, most) == 600.0


def test_a_rejected_credential_is_never_asked_about_sooner_than_the_interval() -> None:
    """Also where max_backoff is no longer than the interval, and spread like any other poll."""
    pace = Pace(interval=3600.0, jitter=5.0, max_backoff=3600.0)
    assert pace.delay(Outcome.REFUSED, 1, None, least) == 3600.0
    assert pace.delay(Outcome.REFUSED, 1, None, most) == 3605.0


@given(paces, st.sampled_from(Outcome), failures, st.none() | st.floats(0.0, 1e300), chance)
def test_no_poll_comes_sooner_than_after_a_success_or_never(
    pace: Pace, outcome: Outcome, failed: int, asked: float | None, dice: random.Random
) -> None:
    """Incidents 19, 20: whatever the API answers, at least the interval and at most a bound."""
    delay = pace.delay(outcome, failed, asked, dice.uniform)
    assert pace.interval <= delay <= pace.max_backoff + pace.jitter
