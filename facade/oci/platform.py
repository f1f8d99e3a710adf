"""Platforms of images, like linux/arm64/v8 (OCI image-index, `platform`).

Guarantees: `Platform.parse(str(p)) == p` for every parsed `p`; the two usual alias names of
architectures are folded, so that `linux/aarch64` and `linux/arm64` are one value.
"""

import re
from dataclasses import dataclass
from typing import Self

from facade.errors import Invalid
from facade.reasons import Reason

_PART = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """An operating system, an architecture and perhaps a variant of it."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `os/architecture[/variant]`. Raises Invalid (NAME_INVALID)."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(map(_PART.fullmatch, parts)):
            raise Invalid(
                "Write a platform as os/architecture[/variant], like linux/arm64/v8.",
                reason=Reason.NAME_INVALID,
            )
        os, architecture, *variant = parts
        return cls(os, _architecture(architecture), "".join(variant))

    def matches(self, wanted: "Platform") -> bool:
        """Whether an image for this platform is one for `wanted`.

        A `wanted` without variant takes any; arm64 means v8, arm means v7 (as in containerd's
        platforms package).
        """
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return False
        default = {"arm64": "v8", "arm": "v7"}.get(self.architecture, "")
        return not wanted.variant or (self.variant or default) == wanted.variant

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def _architecture(name: str) -> str:
    return {"aarch64": "arm64", "x86_64": "amd64"}.get(name, name)
