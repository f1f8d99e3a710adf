"""A signed artifact: TUF target (path, length, hashes, custom) ↔ value.

Guarantees: `SignedTarget.parse(path, …)` accepts exactly what `path` and `custom` produce, so the
signer and the verifier cannot disagree on the grammar (trust.md, "Signed update metadata").
Does not guarantee that anybody signed it: that is `serving.trust`'s work.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from facade.device import parse_fleet, parse_name
from facade.errors import Invalid
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""Largest manifest accepted anywhere (OCI distribution-spec recommends 4 MiB)."""

_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}", re.ASCII)
_PLATFORM = re.compile(r"[a-z0-9_.-]{1,64}(/[a-z0-9_.-]{1,64}){1,2}", re.ASCII)  # oci.platform's
_MEDIA_TYPE = re.compile(r"[\x21-\x7e]+/[\x21-\x7e]+", re.ASCII)  # it becomes a header


def parse_version(text: str) -> str:
    """Check an artifact version (grammar of OCI tags, plus '+'). Raises Invalid."""
    if not _VERSION.fullmatch(text) or ".." in text:
        raise Invalid(
            "A version is at most 128 letters, digits, '_', '.', '+' or '-', and does not "
            "start with '.', '+' or '-' or hold '..'.",
            reason=Reason.NAME_INVALID,
        )
    return text


def parse_artifact_path(text: str) -> tuple[str, str, str]:
    """Read `FLEET/NAME/VERSION`. Raises Invalid (NAME_INVALID)."""
    parts = text.split("/")
    if len(parts) != 3:
        raise Invalid("Write FLEET/NAME/VERSION, like dev/app/v1.2.", reason=Reason.NAME_INVALID)
    return parse_fleet(parts[0]), parse_name(parts[1], "artifact name"), parse_version(parts[2])


@dataclass(frozen=True, slots=True)
class SignedTarget:
    """One artifact of one fleet.

    Arguments:
        fleet, name, version: its path, `<fleet>/<name>/<version>`.
        digest, length: SHA-256 and bytes of the image's top manifest or index.
        registry, repository: the only place it may be fetched from.
        media_type: of the top manifest, as verified at import.
        reference: the tag at import, for people; it grants nothing.
        platforms: the children of the index that may be served; empty = all.
        referrers: digests of referrer manifests signed along.
    """

    fleet: str
    name: str
    version: str
    digest: Digest
    length: int
    registry: RegistryHost
    repository: Repository
    media_type: str
    reference: str = ""
    platforms: tuple[str, ...] = ()
    referrers: tuple[Digest, ...] = ()

    @property
    def path(self) -> str:
        """The TUF target path."""
        return f"{self.fleet}/{self.name}/{self.version}"

    @property
    def custom(self) -> dict[str, Any]:
        """The TUF `custom` object."""
        oci: dict[str, Any] = {
            "registry": str(self.registry),
            "repository": str(self.repository),
            "mediaType": self.media_type,
        }
        if self.reference:
            oci["reference"] = self.reference
        if self.platforms:
            oci["platforms"] = list(self.platforms)
        if self.referrers:
            oci["referrers"] = [str(digest) for digest in self.referrers]
        return {"oci": oci}

    @classmethod
    def parse(
        cls, path: str, *, length: int, hashes: Mapping[str, str], custom: Mapping[str, Any] | None
    ) -> Self:
        """Read a TUF target. Raises Invalid, saying what is malformed."""
        fleet, name, version = parse_artifact_path(path)
        oci = (custom or {}).get("oci")
        if not isinstance(oci, Mapping):
            raise Invalid(f"Target {path}: custom.oci is missing.")
        if "sha256" not in hashes:
            raise Invalid(f"Target {path}: it has no sha256 hash.")
        if not 0 < length <= MAX_MANIFEST_BYTES:
            raise Invalid(f"Target {path}: {length} bytes is no manifest's length.")
        platforms = _strings(oci, "platforms", path)
        if not all(map(_PLATFORM.fullmatch, platforms)):
            raise Invalid(f"Target {path}: a platform is not os/architecture[/variant].")
        if not _MEDIA_TYPE.fullmatch(_string(oci, "mediaType", path)):
            raise Invalid(f"Target {path}: custom.oci.mediaType is no media type.")
        registry = RegistryHost.parse(_string(oci, "registry", path))
        if str(registry) != oci["registry"]:
            raise Invalid(f"Target {path}: the registry is not in its canonical form.")
        return cls(
            fleet=fleet,
            name=name,
            version=version,
            digest=Digest.parse(f"sha256:{hashes['sha256']}"),
            length=length,
            registry=registry,
            repository=Repository.parse(_string(oci, "repository", path)),
            media_type=_string(oci, "mediaType", path),
            reference=_string(oci, "reference", path) if "reference" in oci else "",
            platforms=platforms,
            referrers=tuple(map(Digest.parse, _strings(oci, "referrers", path))),
        )


def _string(oci: Mapping[str, Any], key: str, path: str) -> str:
    value = oci.get(key)
    if not isinstance(value, str) or not value or len(value) > 255:
        raise Invalid(f"Target {path}: custom.oci.{key} must be a string.")
    return value


def _strings(oci: Mapping[str, Any], key: str, path: str) -> tuple[str, ...]:
    values = oci.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Invalid(f"Target {path}: custom.oci.{key} must be a list of strings.")
    return tuple(values)
