"""What a well-behaved registry holds and answers; `tests.support.registry` serves it. Pure."""

import json
from dataclasses import dataclass, field, replace

from tests.support.raw_http import Content, Data, Reply, Seen
from tests.support.registry_auth import error_body

OCI_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(slots=True)
class Holding:
    """One repository."""

    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, Content] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def manifest(held: Holding, digest: str) -> Reply:
    """A manifest by digest."""
    if digest not in held.manifests:
        return missing("MANIFEST_UNKNOWN")
    media_type, data = held.manifests[digest]
    headers = (("Content-Type", media_type), ("Docker-Content-Digest", digest))
    return Reply(200, headers, Data(data))


def referrers(held: Holding, digest: str) -> Reply:
    """What names `digest` as its subject."""
    found = []
    for own, (media_type, data) in held.manifests.items():
        manifest = json.loads(data)
        if (manifest.get("subject") or {}).get("digest") == digest:
            entry = {"mediaType": media_type, "digest": own, "size": len(data)}
            kind = manifest.get("artifactType") or manifest.get("config", {}).get("mediaType")
            found.append({**entry, "artifactType": kind})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
    return Reply(200, (("Content-Type", OCI_INDEX),), Data(json.dumps(index).encode()))


def missing(code: str) -> Reply:
    """404 with an OCI error body."""
    body = error_body(code, "not known to this registry")
    return Reply(404, (("Content-Type", "application/json"),), Data(body))


def blob(content: Content | None, digest: str, seen: Seen) -> Reply:
    """A blob or a range of it (RFC 9110, 14)."""
    if content is None:
        return missing("BLOB_UNKNOWN")
    headers = (
        ("Content-Type", "application/octet-stream"),
        ("Docker-Content-Digest", digest),
        ("ETag", f'"{digest}"'),
        ("Accept-Ranges", "bytes"),
    )
    whole = Reply(200, headers, content)
    wanted = seen.headers.get("range", "")
    condition = seen.headers.get("if-range", f'"{digest}"')
    if not wanted.startswith("bytes=") or condition != f'"{digest}"':
        return whole
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, stop = int(first), min(int(last) + 1 if last else content.size, content.size)
    if start >= content.size:
        return Reply(416, (("Content-Range", f"bytes */{content.size}"),))
    partial = whole.with_header("Content-Range", f"bytes {start}-{stop - 1}/{content.size}")
    return replace(partial, status=206, start=start, stop=stop)
