"""Deciding by the digest itself about a file whose block tags cannot.

Guarantees: tags are given only for content that hashes to its digest. Blocks; costs a full hash.
"""

from facade.errors import Integrity
from facade.oci.digest import Digest
from facade.serving.blobs.diskread import read_fully
from facade.serving.blobs.port import BLOCK_BYTES
from facade.serving.blobs.tags import TagKey, TagWriter
from facade.serving.blobs.verify import StreamVerifier

_PIECE_BYTES = 4 * BLOCK_BYTES


def rehash(fd: int, digest: Digest, size: int, key: TagKey) -> bytes:
    """The sidecar for the file `fd` of `size` bytes; its origin is no longer known.

    Raises Integrity when the content is not the digest's, OSError when it cannot be read.
    """
    verifier = StreamVerifier(digest, size)
    tags = TagWriter(key, digest)
    buffer = memoryview(bytearray(min(size, _PIECE_BYTES)))
    offset = 0
    while offset < size:
        count = read_fully(fd, buffer[: size - offset], offset)
        if count == 0:
            raise Integrity("A cached file is cut short.")
        verifier.update(buffer[:count])
        tags.update(buffer[:count])
        offset += count
    verifier.verdict()
    return tags.sidecar(size, "")
