"""Block tags: proof, at a fraction of a hash's cost, that cached bytes are those once verified.

One AES-GMAC tag (NIST SP 800-38D, 3) per block of 256 KiB, nonce = block index, under a key
derived by HKDF (RFC 5869) from the node's key and the digest. The sidecar `<hex>.tags` holds
them with the size and the registry they came from, under a tag of their own.

Guarantees: a block that was changed, moved or cut is told apart; so is a sidecar of another
object, node or size. A nonce never meets two messages: a digest fixes its blocks, and tags of
bytes that failed their verdict never leave memory. Does not protect against somebody who holds
the node's key, nor does it hide anything.
"""

import hashlib
import hmac
import os
import struct
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from facade.errors import Integrity
from facade.oci.digest import Digest
from facade.serving.blobs.port import BLOCK_BYTES

NODE_KEY_BYTES = 32
TAG_BYTES = 16
_NONCE_BYTES = 12
_MAGIC = b"facade-tags-1\n"
_HEAD = struct.Struct(f">{len(_MAGIC)}s8sQH")
_MAX_ORIGIN_BYTES = 300
MAX_OVERHEAD_BYTES = _HEAD.size + _MAX_ORIGIN_BYTES + _NONCE_BYTES + TAG_BYTES
"""What a sidecar has at most beside its block tags."""


def count_blocks(size: int) -> int:
    """How many blocks `size` bytes have."""
    return -(-size // BLOCK_BYTES)


def read_sidecar(path: Path, size: int) -> bytes:
    """What lies at `path`: no more than a sidecar of `size` bytes can have. Raises OSError."""
    with path.open("rb") as file:
        return file.read(count_blocks(size) * TAG_BYTES + MAX_OVERHEAD_BYTES + 1)


class TagKey:
    """The node's key, from which every object's own key is derived.

    Arguments:
        secret: NODE_KEY_BYTES random bytes that stay on this node.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) != NODE_KEY_BYTES:
            raise Integrity(f"The node key must have {NODE_KEY_BYTES} bytes, not {len(secret)}.")
        # HKDF's first half (extract, without a salt) is the same for all objects.
        self._expand = hmac.new(hmac.digest(bytes(32), secret, "sha256"), digestmod="sha256")
        self.id = hashlib.sha256(b"facade node key id\0" + secret).digest()[:8]
        """Names the key in sidecars without telling it."""

    def derive(self, digest: Digest) -> "_ObjectKeys":
        """The keys of one object."""
        info = f"facade block tags {digest}".encode()
        first = self._block(info + b"\1")
        return _ObjectKeys(AESGCM(first), AESGCM(self._block(first + info + b"\2")))

    def _block(self, data: bytes) -> bytes:
        """One of HKDF's second half (RFC 5869, 2.3). A copy is a quarter of what `cryptography`'s costs."""
        block = self._expand.copy()
        block.update(data)
        return block.digest()

    def __repr__(self) -> str:
        return f"TagKey({self.id.hex()})"


class _ObjectKeys:
    def __init__(self, blocks: AESGCM, head: AESGCM) -> None:
        self._blocks = blocks
        self.head = head

    def tag(self, index: int, block: memoryview | bytearray) -> bytes:
        return self._blocks.encrypt(index.to_bytes(_NONCE_BYTES, "big"), b"", block)

    def check(self, index: int, block: memoryview, tags: bytes | bytearray) -> None:
        at = index * TAG_BYTES
        try:
            self._blocks.decrypt(
                index.to_bytes(_NONCE_BYTES, "big"), tags[at : at + TAG_BYTES], block
            )
        except InvalidTag as error:
            raise Integrity("A kept block is not what was verified once.") from error


class BlockTags:
    """The tags of one object whose content was verified."""

    def __init__(self, keys: _ObjectKeys, tags: bytes, size: int, origin: str) -> None:
        self._keys = keys
        self._tags = tags
        self.size = size
        self.origin = origin

    def check(self, index: int, block: memoryview) -> None:
        """Return when `block` is what was verified as block `index`. Raises Integrity."""
        self._keys.check(index, block, self._tags)

    def all(self) -> bytes:
        """The tags of all blocks, in order."""
        return self._tags

    @classmethod
    def parse(cls, key: TagKey, digest: Digest, sidecar: bytes) -> Self:
        """Read a sidecar. Raises Integrity when it is not this object's, whole and unchanged."""
        try:
            magic, key_id, size, length = _HEAD.unpack_from(sidecar)
        except struct.error as error:
            raise Integrity("The sidecar of block tags is cut short.") from error
        if magic != _MAGIC or key_id != key.id:
            raise Integrity("The sidecar of block tags is of another node or version.")
        head_end = _HEAD.size + length
        nonce_end = head_end + _NONCE_BYTES
        tags_start = nonce_end + TAG_BYTES
        if len(sidecar) != tags_start + count_blocks(size) * TAG_BYTES:
            raise Integrity("The sidecar of block tags has a wrong length.")
        keys = key.derive(digest)
        try:
            keys.head.decrypt(
                sidecar[head_end:nonce_end], sidecar[nonce_end:tags_start], sidecar[:head_end]
            )
            origin = sidecar[_HEAD.size : head_end].decode()
        except (InvalidTag, UnicodeDecodeError) as error:
            raise Integrity("The head of a sidecar of block tags was changed.") from error
        return cls(keys, sidecar[tags_start:], size, origin)


class TagWriter:
    """Computes tags while content arrives; blocks: use in a thread.

    Arguments:
        key: the node's.
        digest: what the content will have been verified as when `sidecar` is asked for.
    """

    def __init__(self, key: TagKey, digest: Digest) -> None:
        self._key = key
        self._keys = key.derive(digest)
        self._tags = bytearray()
        self._partial = bytearray()

    @property
    def complete_blocks(self) -> int:
        """How many whole blocks have their tag."""
        return len(self._tags) // TAG_BYTES

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        if self._partial:
            missing = BLOCK_BYTES - len(self._partial)
            self._partial += data[:missing]
            data = data[missing:]
            if len(self._partial) < BLOCK_BYTES:
                return
            self._append(self._partial)
            self._partial = bytearray()
        whole = len(data) - len(data) % BLOCK_BYTES
        for at in range(0, whole, BLOCK_BYTES):
            self._append(data[at : at + BLOCK_BYTES])
        self._partial += data[whole:]

    def check(self, index: int, block: memoryview) -> None:
        """Return when `block` is what was fed as complete block `index`. Raises Integrity."""
        self._keys.check(index, block, self._tags)

    def latest(self, index: int, start: int, stop: int) -> bytes | None:
        """Bytes [start, stop) of block `index`, if that is the last one and not whole yet.

        May be called while `update` runs in its thread. Raises Integrity when they are gone.
        """
        partial = self._partial  # before the count: a block is counted first, then forgotten
        if index != self.complete_blocks:
            return None
        found = bytes(partial[start:stop])
        if len(found) != stop - start:
            raise Integrity("Bytes kept a moment ago are gone.")
        return found

    def restart(self) -> None:
        """Forget all bytes fed so far."""
        self._tags = bytearray()
        self._partial = bytearray()

    def equal(self, other: "TagWriter") -> bool:
        """Whether both, of one object, were fed the same bytes."""
        return self.fed() == other.fed()

    def agree(self, verified: BlockTags) -> bool:
        """Whether what was fed is, block by block, what was verified."""
        return self._all() == verified.all()

    def sidecar(self, size: int, origin: str) -> bytes:
        """The whole sidecar of the `size` bytes fed, which hash to the digest."""
        tags = self._all()
        name = origin.encode()[:_MAX_ORIGIN_BYTES]
        head = _HEAD.pack(_MAGIC, self._key.id, size, len(name)) + name
        nonce = os.urandom(_NONCE_BYTES)  # the head may change (origin), so it is no counter
        return head + nonce + self._keys.head.encrypt(nonce, b"", head) + tags

    def fed(self) -> tuple[bytes, bytes]:
        """Tags of whole blocks, and the bytes of the one that is not whole."""
        return bytes(self._tags), bytes(self._partial)

    def _all(self) -> bytes:
        tags = bytes(self._tags)
        if self._partial:
            tags += self._keys.tag(len(tags) // TAG_BYTES, self._partial)
        return tags

    def _append(self, block: memoryview | bytearray) -> None:
        self._tags += self._keys.tag(len(self._tags) // TAG_BYTES, block)
