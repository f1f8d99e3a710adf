"""Repository names and tags (OCI distribution-spec, "Pulling manifests": `<name>`, `<reference>`).

Guarantees: a `Repository` and a `Tag` match the specification's grammar, so neither can hold a
dot segment, an empty segment, a slash at an end, or a character that needs escaping in a URL.
"""

import re
from dataclasses import dataclass
from typing import Self

from facade.errors import Invalid
from facade.reasons import Reason

MAX_REPOSITORY_CHARS = 255
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Repository:
    """A repository's name inside its registry, like `library/alpine`."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a repository name. Raises Invalid (NAME_INVALID) outside the grammar."""
        if len(text) > MAX_REPOSITORY_CHARS or not _REPOSITORY.fullmatch(text):
            raise Invalid(
                "The repository name must be lower-case letters and digits, separated by "
                "single '.', '_', '__', dashes or '/', at most 255 characters.",
                reason=Reason.NAME_INVALID,
            )
        return cls(text)

    @property
    def last_component(self) -> str:
        """What follows the last slash."""
        return self.name.rpartition("/")[2]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A tag: a name in a repository that may move."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a tag. Raises Invalid (NAME_INVALID) outside the grammar."""
        if not _TAG.fullmatch(text):
            raise Invalid(
                "A tag is at most 128 letters, digits, '_', '.' or '-', and does not start "
                "with '.' or '-'.",
                reason=Reason.NAME_INVALID,
            )
        return cls(text)

    def __str__(self) -> str:
        return self.name
