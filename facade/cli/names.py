"""How people name repositories and images on the command line: HOST/REPO and HOST/REPO:TAG.

Guarantees: pure; the host is always explicit, because a guessed registry is how the wrong image
gets shipped. The server parses again and has the last word.
"""

from dataclasses import dataclass

from facade.errors import Invalid
from facade.oci.host import RegistryHost, looks_like_host


@dataclass(frozen=True, slots=True)
class Image:
    """An image to import: `reference` is a tag, or a digest (`sha256:…`)."""

    host: str
    repository: str
    reference: str

    def __str__(self) -> str:
        mark = "@" if ":" in self.reference else ":"
        return f"{self.host}/{self.repository}{mark}{self.reference}"


def parse_repository(text: str) -> tuple[str, str]:
    """Read HOST/REPO; a pasted https:// is dropped. Raises Invalid."""
    plain = text.removeprefix("https://").removeprefix("docker://").rstrip("/")
    host, slash, repository = plain.partition("/")
    if not slash or not repository or not looks_like_host(host.lower()):
        raise Invalid(f"Write HOST/REPO, like docker.io/library/alpine, not {text}.")
    registry = RegistryHost.parse(host)
    return str(registry), str(registry.repository(repository))


def parse_image(text: str) -> Image:
    """Read HOST/REPO:TAG or HOST/REPO@sha256:…; `name:tag@digest` means the digest. Raises Invalid."""
    place, at, digest = text.partition("@")
    head, slash, tail = place.rpartition("/")
    name, colon, tag = tail.partition(":")
    reference = digest if at else tag
    if not slash or not reference or (colon and not tag):
        raise Invalid(f"Write HOST/REPO:TAG or HOST/REPO@sha256:…, not {text}.")
    host, repository = parse_repository(f"{head}/{name}")
    return Image(host, repository, reference)
