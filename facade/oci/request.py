"""A device's pull request: path and `?ns=` ↔ value (pull-path.md, "Addressing the upstream").

Guarantees: a `PullRequest` names a registry host, a repository and a digest in their canonical forms,
and what it is asked as; `parse(x.format())` is `x` for whatever default. Nothing but an error of
`facade.errors` leaves `parse`. Does not decide whether anything may be served.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from facade.errors import Denied, Invalid, NotFound
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost, host_in_path
from facade.oci.reference import Repository, Tag
from facade.reasons import Reason

_PREFIX = "/v2/"
_NOT_IN_A_HOST = re.compile(r"[\s/?#\\@]")


class Role(StrEnum):
    """What the digest is asked as. A layer asked for as a manifest is another request."""

    MANIFEST = "manifest"
    BLOB = "blob"
    REFERRERS = "referrers"


_ROLES = {"manifests": Role.MANIFEST, "blobs": Role.BLOB, "referrers": Role.REFERRERS}
_SEGMENTS = {role: segment for segment, role in _ROLES.items()}


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What a device asks for."""

    role: Role
    host: RegistryHost
    repository: Repository
    digest: Digest

    @classmethod
    def parse(cls, path: str, *, ns: str | None, default: RegistryHost) -> Self:
        """Read `/v2/<rest>/{manifests,blobs,referrers}/<digest>` (OCI distribution-spec, "Pull").

        Arguments:
            path: the percent-decoded path.
            ns: containerd's `?ns=` (percent-decoded): the registry it mirrors. Without it the
                first segment names the registry if it looks like a host (see `host_in_path`),
                else it is `default`.

        Raises Denied (BY_TAG for a tag, LISTING for tag lists and the catalog), Invalid
        (DIGEST_INVALID, NAME_INVALID, or UNSUPPORTED for uploads), NotFound for other paths.
        """
        if not path.startswith(_PREFIX):
            raise _no_such_path()
        segments = path.removeprefix(_PREFIX).split("/")
        if segments == ["_catalog"] or segments[-2:] == ["tags", "list"]:
            raise Denied(
                "Repositories and tags are not listed here. Pull by digest.", reason=Reason.LISTING
            )
        if segments[-2:] == ["blobs", "uploads"] or segments[-3:-1] == ["blobs", "uploads"]:
            raise Invalid("Nothing can be pushed here.", reason=Reason.UNSUPPORTED)
        role = _ROLES.get(segments[-2]) if len(segments) > 2 else None
        if role is None:
            raise _no_such_path()
        host, repository = _locate(segments[:-2], ns, default)
        return cls(role, host, repository, _digest(role, segments[-1]))

    def format(self) -> str:
        """The path in prefix form: the registry as the first segment."""
        return f"{_PREFIX}{self.host.path_segment}/{self.repository}/{_SEGMENTS[self.role]}/{self.digest}"


def _no_such_path() -> NotFound:
    return NotFound("There is nothing at this path.", reason=Reason.NOT_FOUND)


def _locate(
    segments: list[str], ns: str | None, default: RegistryHost
) -> tuple[RegistryHost, Repository]:
    named, rest = host_in_path(segments[0]), segments[1:]
    if ns is not None:
        host = _host(ns)
        # Both at once: containerd with override_path. Another host's name in front is a
        # part of the repository, since GitLab groups may hold dots.
        if rest and named is not None and _same_host(named, host):
            segments = rest
    elif named is not None:
        host, segments = _host(named), rest
    else:
        host = default
    return host, host.repository("/".join(segments))


def _host(text: str) -> RegistryHost:
    """Read a host where only a host may stand: no URL, no blanks around it."""
    if _NOT_IN_A_HOST.search(text):
        raise Invalid("The registry's host is malformed.", reason=Reason.NAME_INVALID)
    return RegistryHost.parse(text)


def _same_host(text: str, host: RegistryHost) -> bool:
    try:
        return _host(text) == host
    except Invalid:
        return False


def _digest(role: Role, reference: str) -> Digest:
    try:
        return Digest.parse(reference)
    except Invalid:
        if role is not Role.MANIFEST or not _is_tag(reference):
            raise
    raise Denied(
        "Tags move, so nothing is served by tag. Pull by digest: NAME@sha256:….",
        reason=Reason.BY_TAG,
    )


def _is_tag(reference: str) -> bool:
    try:
        Tag.parse(reference)
    except Invalid:
        return False
    return True
