"""Rate-limit headers of real registries and of the drafts, and what follows from them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from facade.upstream.budget import Announced, Budget, announced

NOW = 1_750_000_000.0


def said(*headers: tuple[str, str]) -> Announced | None:
    return announced(CIMultiDict(headers), NOW)


HOSTILE = [
    ("a;b=" + " " * 60) * 16 + '"',
    ";w=" + " " * 500 + ";" + " " * 500,
    '"a"' + " ;x=" * 250 + '"',
    "1;" * 500,
    " " * 1024,
    "," * 1024,
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", ["RateLimit", "RateLimit-Policy", "RateLimit-Limit"])
def test_a_header_made_to_be_slow_is_not(name: str, value: str) -> None:
    """Expressions with two ways to read a space took minutes for some of these, in the event loop."""
    fields = {"RateLimit-Remaining": "5", "RateLimit": '"default";r=50', name: value[:1024]}
    before = time.thread_time()
    said(*fields.items())
    assert time.thread_time() - before < 0.5


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(  # as Docker Hub answers, source header included
            (
                ("ratelimit-limit", "100;w=21600"),
                ("ratelimit-remaining", "76;w=21600"),
                ("docker-ratelimit-source", "192.0.2.1"),
            ),
            Announced(76, 100, 21600.0),
            id="docker-hub",
        ),
        pytest.param(
            (("RateLimit-Limit", "100;w=21600"), ("RateLimit-Remaining", "0;w=21600")),
            Announced(0, 100, 21600.0),
            id="docker-hub-used-up",
        ),
        pytest.param(  # draft-ietf-httpapi-ratelimit-headers-03: policies in the limit
            (
                ("RateLimit-Limit", "10, 10;w=1, 50;w=60"),
                ("RateLimit-Remaining", "9"),
                ("RateLimit-Reset", "4"),
            ),
            Announced(9, 10, 1.0, 4.0),
            id="draft-03",
        ),
        pytest.param(  # draft 06: policies in a field of their own, with parameters
            (
                ("RateLimit-Limit", "50"),
                ("RateLimit-Remaining", "9"),
                ("RateLimit-Reset", "4"),
                ("RateLimit-Policy", "10;w=1, 50;burst=1000;w=60"),
            ),
            Announced(9, 50, 60.0, 4.0),
            id="draft-06",
        ),
        pytest.param(
            (
                ("RateLimit", "limit=100, remaining=50, reset=5"),
                ("RateLimit-Policy", "100;w=10"),
            ),
            Announced(50, 100, 10.0, 5.0),
            id="draft-07",
        ),
        pytest.param(  # draft 08 and later: named policies, the tightest counts
            (
                ("RateLimit", '"daily";r=900;t=3600'),
                ("RateLimit", '"burst";r=3;t=2'),
                ("RateLimit-Policy", '"burst";q=100;w=60, "daily";q=1000;w=86400'),
            ),
            Announced(3, 100, 60.0, 2.0),
            id="draft-10",
        ),
        pytest.param((("RateLimit", '"default";r=50'),), Announced(50), id="no-reset"),
        pytest.param(  # GitLab: the reset is a moment
            (
                ("RateLimit-Limit", "60"),
                ("RateLimit-Name", "throttle_unauthenticated_web"),
                ("RateLimit-Observed", "67"),
                ("RateLimit-Remaining", "0"),
                ("RateLimit-Reset", str(int(NOW) + 30)),
            ),
            Announced(0, 60, None, 30.0),
            id="gitlab",
        ),
        pytest.param((("RateLimit-Remaining", "7"),), Announced(7), id="remaining-alone"),
        pytest.param((("RateLimit-Limit", "100;w=21600"),), None, id="limit-alone"),
        pytest.param((("Content-Length", "3"),), None, id="none"),
        pytest.param((("RateLimit-Remaining", "many"),), None, id="no-number"),
        pytest.param((("RateLimit-Remaining", "-1"),), None, id="negative"),
        pytest.param((("RateLimit-Remaining", "1" * 2000),), None, id="endless"),
        pytest.param((("RateLimit", "nonsense"),), None, id="nonsense"),
    ],
)
def test_what_registries_announce(
    headers: tuple[tuple[str, str], ...], expected: Announced | None
) -> None:
    assert said(*headers) == expected


TEXT = st.text(st.sampled_from('0123456789;,=w rtq"limitremaining-'), max_size=60)


@given(TEXT, TEXT, TEXT, TEXT)
def test_no_header_breaks_it(one: str, two: str, three: str, four: str) -> None:
    found = said(
        ("RateLimit-Remaining", one),
        ("RateLimit-Limit", two),
        ("RateLimit-Reset", three),
        ("RateLimit-Policy", four),
    )
    newer = said(("RateLimit", one), ("RateLimit-Policy", two))
    for answer in (found, newer):
        if answer is not None:
            assert answer.remaining >= 0
            Budget().announce(answer, 0.0)


def test_while_enough_is_left_nobody_waits() -> None:
    budget = Budget()
    assert budget.wait(0.0, 1000) == 0.0  # nothing is known
    budget.announce(Announced(6, 100, 21600.0), 0.0)
    budget.spend(0.0)
    assert budget.wait(1.0, 0) == 0.0
    assert budget.wait(1.0, 1) > 0.0  # one is under way that the figure may not know yet


def test_without_a_reset_the_last_ones_go_out_at_the_rate_that_is_sustained() -> None:
    """Docker Hub: 100 in six hours, in a window that slides: one every 216 seconds."""
    budget = Budget()
    budget.announce(Announced(5, 100, 21600.0), 1000.0)
    assert budget.wait(1000.0, 0) == 0.0
    budget.spend(1000.0)
    assert budget.wait(1000.0, 0) == 216.0
    assert budget.wait(1200.0, 0) == 16.0
    assert budget.wait(1216.0, 0) == 0.0
    budget.announce(Announced(60, 100, 21600.0), 1216.0)
    budget.spend(1216.0)
    assert budget.wait(1217.0, 0) == 0.0


def test_with_a_reset_they_wait_for_it() -> None:
    budget = Budget()
    budget.announce(Announced(0, 60, None, 30.0), 1000.0)
    assert budget.wait(1010.0, 0) == 20.0
    assert budget.wait(1030.0, 0) == 0.0
    assert budget.remaining is None


def test_what_was_said_a_window_ago_counts_no_more() -> None:
    budget = Budget()
    budget.announce(Announced(0, 100, 21600.0), 0.0)
    budget.spend(21599.0)
    assert budget.wait(21599.5, 0) > 0.0
    assert budget.wait(21600.0, 0) == 0.0
