"""Block tags: every change is told, whatever was changed."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from facade.errors import Integrity
from facade.oci.digest import Digest
from facade.serving.blobs.port import BLOCK_BYTES
from facade.serving.blobs.tags import (
    MAX_OVERHEAD_BYTES,
    TAG_BYTES,
    BlockTags,
    TagKey,
    TagWriter,
    count_blocks,
)
from tests.support.blobs import make_content

KEY = TagKey(bytes(range(32)))
CONTENT = make_content(2 * BLOCK_BYTES + 1000)
DIGEST = Digest.of(CONTENT)


def sidecar_of(content: bytes, step: int = BLOCK_BYTES, key: TagKey = KEY) -> bytes:
    writer = TagWriter(key, Digest.of(content))
    for at in range(0, len(content), step):
        writer.update(memoryview(content)[at : at + step])
    return writer.sidecar(len(content), "ghcr.io:5000")


def test_an_objects_keys_are_hkdfs_of_the_nodes_key_and_the_digest() -> None:
    """What stores hold already depends on it."""
    digest = Digest.of(b"content")
    info = f"facade block tags {digest}".encode()
    keys = HKDF(SHA256(), 64, salt=None, info=info).derive(bytes(range(32)))
    head, nonce, head_tag, tag = _parts(sidecar_of(b"content"))
    assert tag == AESGCM(keys[:32]).encrypt(bytes(12), b"", b"content")
    assert head_tag == AESGCM(keys[32:]).encrypt(nonce, b"", head)


def _parts(sidecar: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Of an object with one block."""
    return sidecar[:-44], sidecar[-44:-32], sidecar[-32:-16], sidecar[-16:]


def blocks(content: bytes) -> list[memoryview]:
    view = memoryview(content)
    return [view[at : at + BLOCK_BYTES] for at in range(0, len(content), BLOCK_BYTES)]


@pytest.mark.parametrize("step", [BLOCK_BYTES, 1000, 65_537, 3 * BLOCK_BYTES])
def test_every_block_passes_however_it_came(step: int) -> None:
    tags = BlockTags.parse(KEY, DIGEST, sidecar_of(CONTENT, step))
    assert (tags.size, tags.origin) == (len(CONTENT), "ghcr.io:5000")
    for index, block in enumerate(blocks(CONTENT)):
        tags.check(index, block)


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_all_sizes(size: int) -> None:
    content = make_content(size)
    sidecar = sidecar_of(content)
    assert len(sidecar) <= MAX_OVERHEAD_BYTES + TAG_BYTES * count_blocks(size)
    tags = BlockTags.parse(KEY, Digest.of(content), sidecar)
    for index, block in enumerate(blocks(content)):
        tags.check(index, block)


@pytest.mark.parametrize(("index", "offset"), [(0, 0), (1, BLOCK_BYTES - 1), (2, 999)])
def test_a_flipped_bit_is_told(index: int, offset: int) -> None:
    tags = BlockTags.parse(KEY, DIGEST, sidecar_of(CONTENT))
    wrong = bytearray(blocks(CONTENT)[index])
    wrong[offset] ^= 0x80
    with pytest.raises(Integrity):
        tags.check(index, memoryview(wrong))


def test_a_moved_a_cut_and_a_missing_block_are_told() -> None:
    tags = BlockTags.parse(KEY, DIGEST, sidecar_of(CONTENT))
    first, second, last = blocks(CONTENT)
    for index, block in [(0, second), (1, first), (2, last[:-1]), (3, last), (2, last[:0])]:
        with pytest.raises(Integrity):
            tags.check(index, block)


@given(st.data())
def test_a_changed_sidecar_is_told_on_parsing_or_checking(data: st.DataObject) -> None:
    content = make_content(1000)
    sidecar = bytearray(sidecar_of(content))
    position = data.draw(st.integers(0, len(sidecar) - 1))
    sidecar[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Integrity):
        BlockTags.parse(KEY, Digest.of(content), bytes(sidecar)).check(0, memoryview(content))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_integrity(sidecar: bytes) -> None:
    with pytest.raises(Integrity):
        BlockTags.parse(KEY, DIGEST, sidecar)


def test_a_sidecar_cut_anywhere_is_told() -> None:
    sidecar = sidecar_of(CONTENT)
    for length in range(len(sidecar)):
        with pytest.raises(Integrity):
            BlockTags.parse(KEY, DIGEST, sidecar[:length])


def test_another_nodes_or_objects_sidecar_is_told() -> None:
    other_key = TagKey(bytes(32))
    with pytest.raises(Integrity, match="another node"):
        BlockTags.parse(KEY, DIGEST, sidecar_of(CONTENT, key=other_key))
    with pytest.raises(Integrity):
        BlockTags.parse(KEY, Digest.of(b"other"), sidecar_of(CONTENT))


def test_sidecars_of_one_object_agree_on_blocks_and_never_repeat_a_head() -> None:
    one, other = sidecar_of(CONTENT), sidecar_of(CONTENT)
    tags = 3 * TAG_BYTES
    assert one[-tags:] == other[-tags:]
    assert one[:-tags] != other[:-tags]


def test_the_writer_checks_what_it_was_fed_and_forgets_on_restart() -> None:
    writer = TagWriter(KEY, DIGEST)
    writer.update(memoryview(CONTENT)[: BLOCK_BYTES + 10])
    assert writer.complete_blocks == 1
    writer.check(0, memoryview(CONTENT)[:BLOCK_BYTES])
    with pytest.raises(Integrity):
        writer.check(0, memoryview(CONTENT)[1 : BLOCK_BYTES + 1])
    writer.restart()
    assert writer.complete_blocks == 0


def test_a_key_of_a_wrong_length_is_refused_and_none_is_shown() -> None:
    with pytest.raises(Integrity):
        TagKey(bytes(31))
    assert bytes(range(32)).hex() not in repr(KEY)


def test_tagging_and_checking_at_once_in_threads() -> None:
    writer = TagWriter(KEY, DIGEST)
    writer.update(memoryview(CONTENT))
    expected = sidecar_of(CONTENT)[-3 * TAG_BYTES :]

    def work(_: int) -> bytes:
        for index, block in enumerate(blocks(CONTENT)[:2]):
            writer.check(index, block)
        return writer.sidecar(len(CONTENT), "")[-3 * TAG_BYTES :]

    with ThreadPoolExecutor(4) as executor:
        assert set(executor.map(work, range(100))) == {expected}
