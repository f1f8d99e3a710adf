"""Digest and length of a stream, as it passes.

Guarantees: `verdict` lets through exactly the bytes that hash to the digest and are as many as
announced. Pure CPU; hashing releases the GIL for all but tiny pieces.
"""

from facade.errors import Integrity
from facade.oci.digest import Digest


class StreamVerifier:
    """Feed it every byte in order, then ask for the verdict.

    Arguments:
        digest: what the bytes must hash to.
        size: how many there must be.
    """

    def __init__(self, digest: Digest, size: int) -> None:
        self._digest = digest
        self._size = size
        self._hash = digest.hasher()
        self.seen = 0
        """Bytes fed so far."""

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        self._hash.update(data)
        self.seen += len(data)

    def restart(self) -> None:
        """Forget all bytes fed so far."""
        self._hash = self._digest.hasher()
        self.seen = 0

    def matches(self) -> bool:
        """Whether `verdict` would return."""
        return self.seen == self._size and self._hash.hexdigest() == self._digest.hex

    def verdict(self) -> None:
        """Return when everything matches. Raises Integrity otherwise."""
        if self.seen != self._size:
            raise Integrity(f"The content has {self.seen} bytes; {self._size} were announced.")
        if self._hash.hexdigest() != self._digest.hex:
            raise Integrity("The content does not match its digest.")
