"""Our canonical bytes are the library's, whatever a role holds."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import Metadata, TargetFile, Targets
from tuf.api.serialization import DeserializationError, SerializationError

from facade.control.signing.canonical import parsed

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def _role(custom: str) -> bytes:
    """A role's file, with a JSON value somewhere in it."""
    file = TargetFile(1, {"sha256": "0" * 64}, "dev/app/v1", {"custom": "CUSTOM"})
    role = Metadata(Targets(expires=datetime(2030, 1, 1, tzinfo=UTC), targets={file.path: file}))
    return json.dumps(role.to_dict()).replace('"CUSTOM"', custom).encode()


def _same(data: bytes) -> None:
    metadata, signed_bytes = parsed(data)
    known = Metadata[Targets].from_bytes(data)
    assert metadata == known
    assert signed_bytes == known.signed_bytes


@given(VALUES)
def test_any_role(custom: Any) -> None:
    _same(_role(json.dumps(custom)))


@pytest.mark.parametrize(
    "custom",
    [
        *("\n", "\x00", "\x1f\x7f", '"', "\\", "\u2028", "é", "\U0001f600", "1.5"),
        {"b": 1, "a": 2, "B": 3, "é": 4, "\uffff": 5, "\U00010000": 6, "": 7},
        [10**40, -0, True, False, None, [], {}],
    ],
)
@pytest.mark.parametrize("escaped", [True, False])
def test_what_encoders_write_differently(custom: Any, *, escaped: bool) -> None:
    _same(_role(json.dumps(custom, ensure_ascii=escaped)))


@pytest.mark.parametrize(
    "value",
    [
        *("1.0", "-0.0", "1e5", "1E-7", "1e400", "-1e400", "NaN", "Infinity", "-Infinity"),
        *("[1.5]", '{"a": 1.5}', '"\\ud800"', "01", "{", ""),
    ],
)
def test_what_the_library_refuses_is_refused(value: str) -> None:
    data = _role(value)
    with pytest.raises((DeserializationError, SerializationError)):
        _ = Metadata[Targets].from_bytes(data).signed_bytes
    with pytest.raises((DeserializationError, SerializationError, ValueError)):
        parsed(data)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b"null", b"{}", b'{"signed": {}, "signatures": []}']
)
def test_what_is_no_role_is_refused(data: bytes) -> None:
    with pytest.raises(DeserializationError):
        parsed(data)
