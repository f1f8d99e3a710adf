"""A manifest that was fetched, with the checks that make it one.

Guarantees: a `FetchedManifest` from `check_manifest` hashes to what was asked for and to what the
registry claimed (its Docker-Content-Digest, which some do not send). What the bytes mean, and
whether the claimed media type is true, is for `oci.manifest` and the caller.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from facade.errors import Integrity, Invalid
from facade.oci.digest import Digest
from facade.oci.reference import Tag
from facade.upstream.connection import Connection


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A manifest's bytes with their digest.

    Arguments:
        digest: computed from `data`, in the algorithm that was asked for (sha256 for a tag).
        media_type: what the registry claims, without parameters; "" when it claims nothing.
    """

    data: bytes
    digest: Digest
    media_type: str


def check_manifest(
    connection: Connection,
    reference: Digest | Tag,
    data: bytes,
    headers: Mapping[str, str],
    what: str,
) -> FetchedManifest:
    """The manifest, or Integrity when its bytes are others than were asked for or claimed.

    Arguments:
        headers: of the answer; looked up in the spelling of the specification.
        what: was asked for, for the message.
    """
    algorithm = reference.algorithm if isinstance(reference, Digest) else "sha256"
    digest = Digest.of(data, algorithm)
    if isinstance(reference, Digest) and digest != reference:
        raise Integrity(f"{connection.host} sent other bytes than {what}: they hash to {digest}.")
    claim = headers.get("Docker-Content-Digest")
    if claim is not None and not _matches(claim, data):
        raise Integrity(
            f"{connection.host} sent bytes for {what} that do not match its own digest."
        )
    return FetchedManifest(data, digest, media_type_of(headers))


def media_type_of(headers: Mapping[str, str]) -> str:
    """The claimed Content-Type, in lower case and without parameters; "" when there is none."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _matches(claim: str, data: bytes) -> bool:
    try:
        return Digest.parse(claim.strip()).matches(data)
    except Invalid:
        return False
