"""The search for secrets finds what it must, so that finding nothing means something."""

import base64
import gzip
import json
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.canaries import Canaries

SECRET = 'canary "Pa55word/+ä'


@pytest.mark.parametrize(
    "said",
    [
        SECRET.encode(),
        b"Authorization: Basic " + base64.b64encode(f"user:{SECRET}".encode()),
        b"Authorization: Basic " + base64.b64encode(f"us:{SECRET}!".encode()),
        b"Authorization: Basic " + base64.b64encode(f"u:{SECRET}:and more".encode()),
        base64.urlsafe_b64encode(f"x{SECRET}".encode()),
        json.dumps({"password": SECRET}).encode(),
        quote(SECRET).encode().replace(b"/", b"%2F"),
        SECRET.encode().hex().encode(),
        f"…{SECRET}…".encode("utf-16-le"),
        gzip.compress(SECRET.encode()),
    ],
    ids=range(10),
)
def test_found(said: bytes) -> None:
    canaries = Canaries()
    canaries.add("it", SECRET)
    canaries.heard("here", said)
    assert any(found.startswith("it in here: ") for found in canaries.found())


def test_not_found_where_it_is_not(tmp_path: Path) -> None:
    canaries = Canaries()
    canaries.add("it", SECRET)
    canaries.heard("here", base64.b64encode(b"user:another Pa55word"))
    (tmp_path / "allowed").write_text(SECRET)
    canaries.keep(tmp_path, but={"allowed": "it lives there"})
    assert canaries.found() == []
    canaries.keep(tmp_path)
    assert {found.partition(":")[0] for found in canaries.found()} == {"it in file allowed"}
