"""The image that the demo shows: its own, or one of a real registry. Pure."""

from dataclasses import dataclass
from typing import Self

from facade.errors import Invalid
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost


@dataclass(frozen=True, slots=True)
class Shown:
    """The image that is shown.

    Arguments:
        unsigned: a digest of the same repository that nobody signs; None = made up.
    """

    host: str
    repository: str
    tag: str
    unsigned: Digest | None = None

    @property
    def reference(self) -> str:
        """HOST/REPO:TAG."""
        return f"{self.host}/{self.repository}:{self.tag}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read HOST/REPOSITORY:TAG. Raises Invalid."""
        host, slash, rest = text.partition("/")
        repository, colon, tag = rest.rpartition(":")
        if not (slash and colon):
            raise Invalid("Write --image HOST/REPOSITORY:TAG, like docker.io/library/alpine:3.20.")
        parsed = RegistryHost.parse(host)
        return cls(str(parsed), str(parsed.repository(repository)), tag)

    @property
    def path(self) -> str:
        """`HOST/REPOSITORY` as it stands in a path or name of the facade."""
        return f"{RegistryHost.parse(self.host).path_segment}/{self.repository}"
