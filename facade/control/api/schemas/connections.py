"""Schemas of connections, tags and manifests."""

from typing import Annotated, Any, Literal

from pydantic import Field

from facade.control.api.schemas.base import (
    Answer,
    Changed,
    HiddenText,
    Host,
    Listing,
    Long,
    Moment,
    Request,
    Text,
)


class Settings(Request):
    """How to reach a registry."""

    insecure: bool = Field(False, description="plain http")
    ca_pem: Long | None = Field(None, description="certificates to trust for this registry only")
    auth_hosts: tuple[Text, ...] = Field(
        (), max_length=16, description="further hosts whose token services may get the credentials"
    )
    proxy: Annotated[str, Field(max_length=2048)] | None = Field(
        None, description="egress proxy; it must enforce the address rules itself"
    )


class ConnectionNew(Request):
    """A registry to connect."""

    host: Host
    provider: Literal["static", "anonymous", "google", "aws"]
    username: Text | None = None
    secret: HiddenText | None = Field(None, description="password or token (static)")
    config: dict[str, Any] | None = Field(
        None,
        description="google: the service account's key JSON; aws: {role_arn, region, external_id?, "
        "access_key_id?, secret_access_key?}",
        repr=False,
    )
    settings: Settings = Settings()


class ConnectionPatch(Request):
    """What to change; absent fields stay. New credentials replace the old ones whole."""

    username: Text | None = None
    secret: HiddenText | None = None
    config: dict[str, Any] | None = Field(None, repr=False)
    settings: Settings | None = None


class ConnectionItem(Changed):
    """A connection in a list: never more than this."""

    host: str
    username: str | None = None
    provider: str


class ConnectionList(Listing):
    """Connected registries by host."""

    items: list[ConnectionItem]


class ConnectionDetail(ConnectionItem):
    """A connection with its history."""

    settings: Settings
    created_by: str
    created_at: Moment
    last_ok: Moment | None = None
    last_error: str | None = None
    note: str | None = Field(None, description="what an operator should know about it")


class ConnectionTest(Request):
    """What to test; without a repository, only that the registry lets us in."""

    repository: Text | None = None


class ConnectionTested(Answer):
    """The connection works."""

    host: str
    ok: bool
    message: str = Field(description="in words: what works, and what it may read")


class ConnectionRemoved(Changed):
    """The connection is gone, with its cached tokens."""

    host: str
    removed: bool = True


class TagsQuery(Request):
    """Which tags."""

    repository: Text
    all: bool = Field(False, description="hidden cosign-style tags too")
    match: Annotated[str, Field(max_length=255)] | None = Field(None, description="shell pattern")


class TagItem(Answer):
    """A tag."""

    name: str


class Tags(Answer):
    """Tags of a repository."""

    repository: str
    tags: list[TagItem]
    clipped: bool = Field(description="true: the repository has more tags than were read")
    pages: int
    read: int = Field(description="tags that were read, hidden and unmatched ones included")
    last: str | None = Field(
        None, description="the last tag read, in the registry's order: how far a clipped list got"
    )
    hidden: int = Field(description="tools' own tags that were left out; see `all`")
    ordered_by: str


class ManifestQuery(Request):
    """Which manifest: a tag or a digest."""

    repository: Text
    reference: Text


class PlatformItem(Answer):
    """One image of an index."""

    platform: str
    digest: str
    size: int = Field(description="bytes of its manifest")
    total_bytes: int | None = Field(None, description="bytes of its config and layers")


class ManifestDetail(Answer):
    """What a reference is just now."""

    repository: str
    reference: str
    digest: str
    media_type: str
    size: int
    platforms: list[PlatformItem]
    total_bytes: int | None = Field(
        None, description="bytes of config and layers; of an index: of all its images together"
    )
    created: str | None = None
    annotations: dict[str, str]
