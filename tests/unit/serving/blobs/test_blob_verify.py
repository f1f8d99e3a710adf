"""Digest and length: what passes, and what one wrong byte does."""

import pytest

from facade.errors import Integrity
from facade.oci.digest import Digest
from facade.serving.blobs.verify import StreamVerifier
from tests.support.blobs import make_content

CONTENT = make_content(1000)


def verify(data: bytes, digest: Digest, size: int, step: int = 7) -> None:
    verifier = StreamVerifier(digest, size)
    for at in range(0, len(data), step):
        verifier.update(memoryview(data)[at : at + step])
    assert verifier.seen == len(data)
    verifier.verdict()


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("content", [CONTENT, b"", b"x"])
def test_right_bytes_pass(algorithm: str, content: bytes) -> None:
    verify(content, Digest.of(content, algorithm), len(content))


@pytest.mark.parametrize("position", [0, 500, 999])
def test_one_wrong_byte_does_not(position: int) -> None:
    wrong = bytearray(CONTENT)
    wrong[position] ^= 1
    with pytest.raises(Integrity, match="digest"):
        verify(bytes(wrong), Digest.of(CONTENT), len(CONTENT))


@pytest.mark.parametrize("size", [999, 1001, 0])
def test_a_wrong_length_does_not_even_with_the_right_digest(size: int) -> None:
    with pytest.raises(Integrity, match="1000 bytes"):
        verify(CONTENT, Digest.of(CONTENT), size)


def test_restart_forgets() -> None:
    verifier = StreamVerifier(Digest.of(CONTENT), len(CONTENT))
    verifier.update(memoryview(b"wrong"))
    verifier.restart()
    verifier.update(memoryview(CONTENT))
    verifier.verdict()
