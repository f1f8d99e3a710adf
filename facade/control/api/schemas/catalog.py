"""Schemas of imports, artifacts and fleets."""

from typing import Literal

from pydantic import Field

from facade.control.api.schemas.base import (
    Answer,
    Changed,
    Host,
    Listing,
    Moment,
    Page,
    Request,
    Text,
)

MAX_TAGS = 2000
"""Tags in one import."""


class ImportNew(Request):
    """Tags (or digests, `sha256:…`) to freeze as signed artifacts."""

    host: Host
    repository: Text
    tags: tuple[Text, ...] = Field(min_length=1, max_length=MAX_TAGS)
    fleet: Text
    name: Text | None = Field(None, description="absent: the repository's last component")
    version: Text | None = Field(None, description="absent: the tag; with several tags: refused")
    platforms: tuple[Text, ...] | None = Field(None, max_length=32)
    with_referrers: bool = False
    warm: bool = False


class ImportResult(Answer):
    """What became of one tag."""

    host: str
    repository: str
    tag: str
    status: Literal["imported", "unchanged", "moved", "failed"]
    digest: str | None = None
    target: str | None = Field(None, description="FLEET/NAME/VERSION")
    error: str | None = None
    warmed: bool | None = Field(
        None, description="with warm: whether all of it is in the cache now; false costs speed only"
    )


class ImportDone(Changed):
    """One result per tag, in the order asked."""

    results: list[ImportResult]


class ArtifactsQuery(Page):
    """Which artifacts."""

    fleet: Text | None = None
    name: Text | None = None


class ArtifactItem(Answer):
    """A signed artifact."""

    target: str = Field(description="FLEET/NAME/VERSION")
    fleet: str
    name: str
    version: str
    digest: str
    host: str
    repository: str
    reference: str | None = None
    created_by: str | None = None
    created_at: Moment | None = None


class ArtifactList(Listing):
    """Signed artifacts."""

    items: list[ArtifactItem]


class ArtifactDetail(ArtifactItem):
    """A signed artifact with all that is known of it."""

    media_type: str
    length: int = Field(description="bytes of the top manifest")
    total_bytes: int | None = Field(None, description="bytes of all that it reaches")
    platforms: list[str] = Field(description="that devices are served; empty: none by name")
    referrers: list[str]
    pulled: int | None = Field(None, description="times a device pulled its top manifest")
    last_pulled: Moment | None = None


class ArtifactProblem(Answer):
    """Something that verification found."""

    digest: str
    problem: str


class ArtifactVerified(Answer):
    """Whether all of it is still upstream and still matches."""

    target: str
    ok: bool
    checked: int = Field(description="manifests and blobs that were looked at")
    blobs: int = Field(description="how many of these are blobs")
    cached: int | None = Field(None, description="how many of the blobs are in the cache")
    problems: list[ArtifactProblem]


class ArtifactWithdrawn(Changed):
    """Devices are refused it once the serving processes took the new metadata up."""

    target: str
    withdrawn: bool = True


class WarmedItem(Answer):
    """One blob's way into the cache."""

    digest: str
    bytes: int
    cached: bool
    error: str | None = None


class Warmed(Answer):
    """What was fetched into the cache."""

    target: str
    ok: bool
    results: list[WarmedItem]


class FleetNew(Request):
    """A fleet to add."""

    name: Text


class FleetItem(Changed):
    """A fleet."""

    name: str
    artifacts: int
    version: int | None = Field(None, description="version of its role file")
    expires: Moment | None = None


class FleetList(Listing):
    """Fleets by name."""

    items: list[FleetItem]
