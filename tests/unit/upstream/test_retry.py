"""Backoff, deadlines, Retry-After: all without waiting."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.upstream.retry import (
    MAX_RETRY_AFTER_SECONDS,
    Attempts,
    RetryPolicy,
    Timeouts,
    is_transient,
    parse_retry_after,
)

NOW = 1_750_000_000.0  # Sun, 15 Jun 2025 15:06:40 GMT


def test_full_jitter_between_nothing_and_a_doubling_ceiling() -> None:
    low, high = RetryPolicy(chance=lambda: 0.0), RetryPolicy(chance=lambda: 0.999999)
    assert [low.pause(attempt) for attempt in range(1, 9)] == [0.0] * 8
    assert [round(high.pause(attempt), 2) for attempt in range(1, 9)] == [
        *(0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
    ]


def test_chance_is_between_zero_and_one() -> None:
    assert all(0 <= RetryPolicy().pause(3) < 1.0 for _ in range(100))


def test_attempts_are_bounded() -> None:
    attempts = Attempts(RetryPolicy(attempts=3, chance=lambda: 0.5), Timeouts(), 100.0)
    assert [attempts.next_pause(100.0) for _ in range(3)] == [0.125, 0.25, None]


def test_a_host_that_is_never_reached_gets_fifteen_seconds() -> None:
    policy = RetryPolicy(attempts=1000, chance=lambda: 1.0)
    attempts = Attempts(policy, Timeouts(), 0.0)
    now = 0.0
    for _ in count():
        pause = attempts.next_pause(now)
        if pause is None:
            break
        now += pause + 1.0
    assert 6 < now <= 16


def test_a_host_that_was_reached_gets_thirty() -> None:
    attempts = Attempts(RetryPolicy(chance=lambda: 0.0), Timeouts(), 0.0)
    assert attempts.next_pause(20.0) is None
    attempts = Attempts(RetryPolicy(chance=lambda: 0.0), Timeouts(), 0.0)
    attempts.reached()
    assert attempts.next_pause(20.0) == 0.0
    assert attempts.next_pause(30.0) is None
    assert (attempts.remaining(12.0), attempts.remaining(31.0)) == (18.0, 0.0)


def test_retry_after_is_waited_for_or_given_up() -> None:
    attempts = Attempts(RetryPolicy(chance=lambda: 0.0), Timeouts(), 0.0)
    attempts.reached()
    assert attempts.next_pause(1.0, retry_after=7.0) == 7.0
    assert attempts.next_pause(8.0, retry_after=60.0) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("5", 5.0),
        (" 0 ", 0.0),
        ("99999999999999999999", MAX_RETRY_AFTER_SECONDS),
        ("Sun, 15 Jun 2025 15:07:10 GMT", 30.0),
        ("Sun, 15 Jun 2025 15:00:00 GMT", 0.0),
        ("Sun, 15 Jun 2095 15:00:00 GMT", MAX_RETRY_AFTER_SECONDS),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
def test_any_retry_after_is_survived(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS


def test_what_may_pass() -> None:
    assert [status for status in range(200, 600) if is_transient(status)] == [
        *(408, 429, 500),
        *(502, 503, 504),
        *range(506, 600),
    ]
