"""Secrets that must turn up nowhere, and the search for them.

Guarantees: a secret is found as it is and in every form that software gives strings: base64 (both
alphabets, at any offset), hex, percent-encoded, JSON-escaped, UTF-16; in compressed files too.
"""

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

MIN_CHARS = 12
"""Shorter secrets would be found by chance."""


def forms(secret: str) -> Iterator[bytes]:
    """The bytes to look for."""
    raw = secret.encode()
    yield raw
    yield raw.hex().encode()
    yield secret.encode("utf-16-le")
    yield json.dumps(secret)[1:-1].encode()
    yield quote(secret, safe="").encode()
    yield quote_plus(secret).encode()
    for offset in range(3):
        padded = bytes(offset) + raw
        # The outer characters depend on the neighbours; what is between them does not.
        for encoded in (base64.b64encode(padded), base64.urlsafe_b64encode(padded)):
            start = (offset * 8 + 5) // 6
            stop = len(padded) * 8 // 6
            yield encoded[start:stop]


@dataclass
class Canaries:
    """The secrets, and everything that was said while they were about.

    Arguments:
        places: what was said, by where.
    """

    secrets: dict[str, str] = field(default_factory=dict)
    places: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, secret: str) -> str:
        """Look for one more; gives it back."""
        assert len(secret) >= MIN_CHARS
        self.secrets[name] = secret
        return secret

    def heard(self, where: str, said: str | bytes) -> None:
        """Keep something to be searched."""
        data = said.encode() if isinstance(said, str) else said
        self.places[where] = self.places.get(where, b"") + data + b"\n"

    def keep(self, folder: Path, *, but: Mapping[str, str] | None = None) -> None:
        """Keep every file below `folder`; `but` says why some, by relative path, are not looked at."""
        for path in folder.rglob("*"):
            relative = str(path.relative_to(folder))
            if path.is_file() and relative not in (but or {}):
                self.heard(f"file {relative}", path.read_bytes())

    def found(self) -> list[str]:
        """Which secret was found where: "NAME in PLACE: what stands before it"."""
        wanted = {name: set(forms(secret)) for name, secret in self.secrets.items()}
        return [
            f"{name} in {where}: …{_around(data, shape)}…"
            for where, said in self.places.items()
            for name, shapes in wanted.items()
            for data in (said, _inflated(said))
            for shape in shapes
            if shape in data
        ]


def _around(data: bytes, shape: bytes) -> str:
    """A few characters before the first find, so that the place is recognised."""
    at = data.index(shape)
    return data[max(0, at - 80) : at].decode(errors="replace")


def _inflated(data: bytes) -> bytes:
    """What a gzip or zlib file holds; nothing when it is none."""
    try:
        return zlib.decompressobj(wbits=47).decompress(data)
    except zlib.error:
        return b""
