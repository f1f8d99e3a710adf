"""What refers to a manifest: the referrers API, with the tag schema as fallback.

Guarantees: the answer is a well-formed index of bounded size (OCI distribution-spec, "Listing
Referrers" and "Referrers Tag Schema"). Does not guarantee that it is complete or true: it is
upstream's word, and each referrer's own bytes are what counts.
"""

from typing import TYPE_CHECKING

from facade.errors import Invalid, Upstream
from facade.oci.digest import Digest
from facade.oci.manifest import OCI_INDEX, Index, parse_manifest
from facade.oci.reference import Repository, Tag
from facade.reasons import Reason
from facade.target import MAX_MANIFEST_BYTES
from facade.upstream.connection import Connection, Scope
from facade.upstream.fetched import media_type_of

if TYPE_CHECKING:
    from facade.upstream.client import RegistryClient

_NO_REFERRERS = Index(media_type=OCI_INDEX, manifests=())


async def find_referrers(
    client: "RegistryClient", connection: Connection, repository: Repository, digest: Digest
) -> Index:
    """The index of referrers of `digest`; empty when there are none. Raises Upstream."""
    what = f"the referrers of {digest} in {repository}"
    path = f"/v2/{repository}/referrers/{digest}"
    reply = await client.open(connection, "GET", path, Scope(repository), {"Accept": OCI_INDEX})
    if reply.response.status == 200 and media_type_of(reply.response.headers) == OCI_INDEX:
        data = await client.read_document(connection, reply, MAX_MANIFEST_BYTES, what)
        return _index(connection, data, what)
    failure = await client.refused(connection, reply, what)
    # A registry without the API answers 404, some 400 or 405, and some a web page with 200.
    if reply.response.status not in (200, 400, 404, 405, 501):
        raise failure
    tag = Tag.parse(f"{digest.algorithm}-{digest.hex[:64]}")
    try:
        fetched = await client.manifest(connection, repository, tag)
    except Upstream as error:
        if error.reason is Reason.UPSTREAM_NOT_FOUND:
            return _NO_REFERRERS
        raise
    return _index(connection, fetched.data, what)


def _index(connection: Connection, data: bytes, what: str) -> Index:
    try:
        manifest = parse_manifest(data, OCI_INDEX)
    except Invalid as error:
        raise _malformed(connection, what) from error
    if not isinstance(manifest, Index):
        raise _malformed(connection, what)
    return manifest


def _malformed(connection: Connection, what: str) -> Upstream:
    return Upstream(
        f"{connection.host} answers {what} with something that is no OCI index.",
        reason=Reason.UPSTREAM_REFUSED,
        status=200,
    )
