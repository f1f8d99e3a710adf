"""Content digests (OCI image-spec, descriptor.md, "Digests").

Guarantees: a `Digest` names a registered algorithm (sha256, sha512) and lower-case hex of
exactly its length; `str()` gives back the text it was parsed from. Does not guarantee that
any content exists for it.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from facade.errors import Invalid
from facade.reasons import Reason

if TYPE_CHECKING:
    from hashlib import _Hash

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """An algorithm and the lower-case hex of its output. Build with `parse` or `of`."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `algorithm:hex`.

        Raises Invalid (DIGEST_INVALID) for anything else, upper-case hex included:
        image-spec requires lower case, and two spellings of one digest would be two keys.
        """
        algorithm, colon, value = text.partition(":")
        length = _HEX_LENGTH.get(algorithm)
        if not colon or length is None or len(value) != length or not _HEX.fullmatch(value):
            raise Invalid(
                "The digest must be sha256:<64 hex> or sha512:<128 hex>, in lower case.",
                reason=Reason.DIGEST_INVALID,
            )
        return cls(algorithm, value)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Self:
        """The digest of `data`. Raises KeyError for an algorithm that is not registered."""
        _ = _HEX_LENGTH[algorithm]
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def hasher(self) -> "_Hash":
        """A fresh hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def matches(self, data: bytes) -> bool:
        """Whether `data` hashes to this digest."""
        return hashlib.new(self.algorithm, data).hexdigest() == self.hex

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
