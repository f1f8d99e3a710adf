"""The exception tree and the reason codes: who is at fault decides the branch."""

import re

import pytest

from facade import errors
from facade.reasons import Reason

LEAVES: list[errors.FacadeError] = [
    errors.Invalid("m", reason=Reason.NAME_INVALID),
    errors.Conflict("m", retry_after=1.5),
    errors.Denied("m", reason=Reason.NOT_SIGNED),
    errors.NotFound("m"),
    errors.Upstream("m", reason=Reason.UPSTREAM_REFUSED, status=500, retry_after=3),
    errors.Integrity("m"),
    errors.Unavailable("m", reason=Reason.OVERLOADED, retry_after=2),
]


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: type(error).__name__)
def test_each_carries_its_message_as_text(error: errors.FacadeError) -> None:
    assert str(error) == error.message == "m"


def test_reason_and_retry_after_are_kept() -> None:
    upstream = LEAVES[4]
    assert isinstance(upstream, errors.Upstream)
    assert (upstream.reason, upstream.status) == (Reason.UPSTREAM_REFUSED, 500)
    assert upstream.retry_after == 3
    assert errors.Upstream("m", reason=Reason.UPSTREAM_UNREACHABLE).status is None
    assert errors.NotFound("m").reason is None


def test_the_branches_do_not_overlap_but_for_conflict() -> None:
    for error in LEAVES:
        kinds = [kind for kind in errors.FacadeError.__subclasses__() if isinstance(error, kind)]
        assert len(kinds) == 1
    assert isinstance(LEAVES[1], errors.Invalid)


def test_integrity_always_says_so() -> None:
    assert errors.Integrity("m").reason is Reason.INTEGRITY


def test_reasons_are_short_lower_case_words_and_read_as_text() -> None:
    for reason in Reason:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", reason)
        assert f"{reason}" == reason.value
        assert reason.name == reason.value.upper().replace("-", "_")
