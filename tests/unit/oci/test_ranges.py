"""Range headers."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from facade.errors import Invalid
from facade.oci.ranges import ByteRange, parse_range
from facade.reasons import Reason

headers = st.one_of(
    st.text(max_size=30), st.text(alphabet="bytes=-0123456789, \t\u0663", max_size=30)
)


@given(st.integers(1, 10**6), st.data())
def test_a_range_asked_for_is_the_range_given(size: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    wanted = ByteRange(start, stop)
    assert parse_range(f"bytes={start}-{stop - 1}", size) == wanted
    assert parse_range(f"bytes={start}-", size) == ByteRange(start, size)
    assert parse_range(f"bytes=-{size - start}", size) == ByteRange(start, size)
    assert wanted.content_range(size) == f"bytes {start}-{stop - 1}/{size}"
    assert wanted.length == stop - start


@given(headers, st.integers(0, 100))
@example("bytes=" + "9" * 5000 + "-", 10)
@example("bytes=0-" + "9" * 5000, 10)
@example("bytes=-" + "9" * 5000, 10)
def test_no_header_raises_anything_but_invalid(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except Invalid as error:
        assert error.reason is Reason.RANGE_INVALID
    else:
        assert found is None or 0 <= found.start < found.stop <= size


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=5-2",
        "bytes=0-1,4-5",
        "bytes=0-1,",
        "items=0-1",
        "bytes=+1-2",
        "bytes=\u0661-\u0662",
        "bytes=0-1\n",
        "bytes =0-1",
    ],
)
def test_the_whole_is_sent_for(header: str | None) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-9", 0, 10),
        ("bytes=0-99", 0, 10),
        ("bytes=9-", 9, 10),
        ("bytes=-1", 9, 10),
        ("bytes=-99", 0, 10),
        ("Bytes= 2-3 ", 2, 4),
        ("bytes=0002-003", 2, 4),
        ("bytes=5-" + "9" * 40, 5, 10),
    ],
)
def test_a_part_is_sent_for(header: str, start: int, stop: int) -> None:
    assert parse_range(header, 10) == ByteRange(start, stop)


@pytest.mark.parametrize(
    "header", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=" + "9" * 40 + "-"]
)
def test_what_cannot_be_satisfied_is_416(header: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_range(header, 10)
    assert caught.value.reason is Reason.RANGE_INVALID


def test_of_nothing_a_suffix_is_the_whole_and_a_start_is_outside() -> None:
    assert parse_range("bytes=-5", 0) is None
    for header in ("bytes=0-", "bytes=-0"):
        with pytest.raises(Invalid):
            parse_range(header, 0)
