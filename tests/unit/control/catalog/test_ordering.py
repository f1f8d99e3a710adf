"""The order of tags: total, stable, newest-likely first."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.control.catalog.ordering import is_hidden, order_tags, sort_key

PARTS = st.sampled_from(
    (
        *("v", "1", "2", "10", "0", ".", "-", "_", "rc", "alpha", "beta1", "latest", "2024"),
        *("01", "15", "20240115", "alpine", "sha256-", "a" * 64, ".sig", "main", "A", "snapshot"),
        "999999999999",
    )
)
TAGS = st.lists(PARTS, min_size=1, max_size=7).map("".join) | st.from_regex(
    r"[A-Za-z0-9_][A-Za-z0-9._-]{0,40}", fullmatch=True
)


@given(st.lists(TAGS, max_size=20), st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_how_the_tags_came(
    tags: list[str], rng: random.Random
) -> None:
    shuffled = list(tags)
    rng.shuffle(shuffled)
    ordered = order_tags(tags)
    assert order_tags(shuffled) == ordered
    assert order_tags(ordered) == ordered
    assert sorted(ordered) == sorted(set(tags))


@given(TAGS, TAGS, TAGS)
def test_it_is_a_total_order(one: str, two: str, three: str) -> None:
    a, b, c = map(sort_key, (one, two, three))
    assert (a == b) == (one == two)
    assert (a < b) + (b < a) + (a == b) == 1
    if a <= b <= c:
        assert a <= c


@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)), unique=True),
    st.sampled_from(["", "v"]),
)
def test_versions_come_newest_first(versions: list[tuple[int, int, int]], prefix: str) -> None:
    tags = [f"{prefix}{major}.{minor}.{patch}" for major, minor, patch in versions]
    expected = [f"{prefix}{a}.{b}.{c}" for a, b, c in sorted(versions, reverse=True)]
    assert order_tags(tags) == expected


@pytest.mark.parametrize(
    "ordered",
    [
        ["latest", "stable", "main", "2.0.0", "1.0.0"],
        [
            "v1.10.0",
            "v1.9.0",
            "v1.9.0-rc2",
            "v1.9.0-rc1",
            "v1.9.0-beta.3",
            "v1.9.0-alpha",
            "v1.8.9",
        ],
        ["1.2.0rc10", "1.2.0rc2", "1.2.0b1", "1.1"],
        ["3.20.3", "3.20.2", "3.20.0", "3.20", "3.19", "3"],
        [
            "1.25.3",
            "1.25.3-alpine",
            "1.25.3-alpine3.19",
            "1.25.3-alpine3.18",
            "1.25.3-bookworm",
            "1.25.2",
        ],
        ["1.26.0-rc1-alpine", "1.25.0-alpine", "1.25.0-rc1-alpine"],
        ["9.0.0", "2024-03-01", "2024-02-29", "20240115", "2023.12.31"],
        ["nightly-20240116", "nightly-20240115T2300", "nightly-20240115T0100", "nightly-20240115"],
        ["1.0", "build-10", "build-9", "feature-x"],
        ["1.0", "zzz", "sha256-" + "a" * 64, "sha256-" + "a" * 64 + ".sig"],
        ["1.0.0+build.5", "1.0.0-rc.1"],
        ["12", "11", "2"],
        ["1.2.3", "1.2.3-20240116", "1.2.3-20240115", "1.2.2", "2024.01.15"],
        ["v20240116", "20240115"],
    ],
)
def test_examples(ordered: list[str]) -> None:
    assert order_tags(reversed(ordered)) == ordered


def test_a_day_that_no_calendar_has_is_no_date() -> None:
    assert order_tags(["20241399", "2024-01-01"]) == ["20241399", "2024-01-01"]


@pytest.mark.parametrize(
    ("tag", "hidden"),
    [
        ("sha256-" + "0" * 64, True),
        ("sha256-" + "0" * 64 + ".sig", True),
        ("sha256-" + "0" * 64 + ".att", True),
        ("sha256-" + "0" * 64 + ".sbom", True),
        ("sha512-" + "0" * 128, True),
        ("sha256-short", False),
        ("1.0", False),
    ],
)
def test_what_tools_made_is_hidden(tag: str, hidden: bool) -> None:
    assert is_hidden(tag) == hidden


def test_50_000_tags_are_ordered_quickly_and_hostile_ones_too() -> None:
    rng = random.Random(1)
    tags = [f"v{rng.randrange(99)}.{rng.randrange(99)}.{rng.randrange(999)}" for _ in range(49_000)]
    tags += ["1" * 128, "-".join(["1"] * 64), ".".join(["rc"] * 40), "2024" * 32, "a1" * 64]
    tags += [f"1.0-{'rc' * rng.randrange(60)}{index}" for index in range(1000)]
    started = time.process_time()
    order_tags(tags)
    assert time.process_time() - started < 5.0
