"""Paging links."""

import time

import pytest
from yarl import URL

from facade.upstream.links import next_page

HERE = URL("https://registry.example/v2/org/app/tags/list?n=100")


@pytest.mark.parametrize(
    ("header", "following"),
    [
        ('</v2/org/app/tags/list?n=100&last=b>; rel="next"', "?n=100&last=b"),
        ("<?n=100&last=b>; rel=next", "?n=100&last=b"),
        ('<https://registry.example/v2/org/app/tags/list?last=b%2Bc>;rel="next"', "?last=b%2Bc"),
        ('<https://registry.example:443/v2/org/app/tags/list?last=b>; rel="next"', "?last=b"),
        ('</first>; rel="first", </v2/org/app/tags/list?last=z>; rel="prev next"', "?last=z"),
        ('<?last=b>; title="x"; REL="Next"', "?last=b"),
    ],
)
def test_followed(header: str, following: str) -> None:
    found = next_page(HERE, [header])
    assert found is not None
    assert found.raw_path_qs == "/v2/org/app/tags/list" + following


@pytest.mark.parametrize(
    "header",
    [
        *("", "nonsense", '<>; rel="next"', '</x>; rel="prev"', '</x>; title="next"'),
        *('<https://evil.test/v2/>; rel="next"', '<//evil.test/v2/>; rel="next"'),
        *('<http://registry.example/v2/>; rel="next"', '<https://registry.example:1/>; rel="next"'),
        '<https://ann:pw@registry.example/v2/>; rel="next"',
    ],
)
def test_not_followed(header: str) -> None:
    assert next_page(HERE, [header]) is None


def test_a_link_made_to_be_slow_is_not() -> None:
    """A hundred fields of it, which one answer may have, took half a minute of the event loop."""
    field = '<a>;rel="' + " next" * 3200
    before = time.thread_time()
    assert next_page(HERE, [field] * 100) is None
    assert time.thread_time() - before < 1.5


def test_no_link_is_the_end() -> None:
    assert next_page(HERE, []) is None
