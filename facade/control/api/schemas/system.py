"""Schemas of devices, trust, cache, audit, pulls and API keys."""

from typing import Annotated, Any

from pydantic import Field

from facade.control.api.permissions import Permission
from facade.control.api.schemas.base import (
    Answer,
    Changed,
    Listing,
    Moment,
    Page,
    RecordPage,
    Request,
    Text,
)
from facade.control.api.schemas.catalog import Warmed

Csr = Annotated[str, Field(min_length=1, max_length=16_384, description="PKCS #10, PEM")]


class DevicesQuery(Page):
    """Which devices."""

    fleet: Text | None = None


class DeviceItem(Answer):
    """A device that got a certificate here, or was revoked here."""

    fleet: str
    name: str
    serial: str | None = Field(None, description="of the newest certificate, hex")
    not_after: Moment | None = None
    revoked: bool
    revoked_at: Moment | None = None
    revoked_serials: list[str]


class DeviceList(Listing):
    """Devices by fleet and name."""

    items: list[DeviceItem]


class DeviceNew(Request):
    """A certificate signing request; the names come from here, not from the request's subject."""

    fleet: Text
    name: Text
    csr: Csr


class DeviceIssued(Changed):
    """A certificate of the development CA."""

    fleet: str
    name: str
    serial: str
    not_after: Moment
    certificate: str = Field(description="PEM")
    ca: str = Field(description="PEM: the server's CA, for the device to trust")


class DeviceRevoke(Request):
    """What to revoke: every certificate so far, or one."""

    serial: Annotated[str, Field(pattern="^[0-9A-Fa-f:]{1,64}$")] | None = None


class DeviceRevoked(Changed):
    """A device, or one certificate of it, is refused from now on."""

    fleet: str
    name: str
    serial: str | None = None
    revoked: bool


class RoleItem(Answer):
    """One role of the signed metadata."""

    role: str
    version: int
    expires: Moment
    expires_in: float = Field(description="seconds; negative: expired")
    keys: list[str]
    threshold: int
    offline: bool = Field(description="its keys belong on an offline machine")
    artifacts: int | None = Field(None, description="signed artifacts, for a fleet")


class TrustReport(Answer):
    """The signed metadata as the control side publishes it."""

    ok: bool = Field(description="no role has expired")
    roles: list[RoleItem]
    offline_keys_at_hand: bool = Field(description="true: carry the offline keys away")
    warnings: list[str]


class CacheState(Answer):
    """What the cache holds; sizes in bytes."""

    objects: int
    bytes: int
    max_bytes: int | None = None
    in_flight: int
    quarantined: int


class CacheVerified(Answer):
    """Everything was hashed again."""

    checked: int
    quarantined: int


class CacheWarm(Request):
    """Artifacts to fetch into the cache."""

    targets: tuple[Text, ...] = Field(
        min_length=1, max_length=256, description="FLEET/NAME/VERSION"
    )


class CacheWarmed(Answer):
    """One entry per artifact."""

    ok: bool
    items: list[Warmed]
    total: int


class CachePruned(Answer):
    """Evicted down to the low watermark."""

    objects: int
    bytes: int


class AuditQuery(RecordPage):
    """Which audit rows, newest first."""

    actor: Text | None = None
    action: Text | None = None


class AuditItem(Answer):
    """Who changed what, when, with which outcome."""

    id: int
    at: Moment
    actor: str
    action: str
    subject: str
    outcome: str
    detail: dict[str, Any]


class AuditList(Listing):
    """The audit trail, newest first."""

    items: list[AuditItem]


class PullsQuery(RecordPage):
    """Which pulls, newest first."""

    fleet: Text | None = None
    device: Text | None = Field(None, description="FLEET/NAME")


class PullItem(Answer):
    """A device's request and what became of it."""

    id: int
    at: Moment
    device: str
    host: str
    repository: str
    digest: str
    role: str
    outcome: str
    reason: str | None = None
    bytes_sent: int
    cache: str | None = None


class PullList(Listing):
    """Pulls, newest first."""

    items: list[PullItem]


class KeyNew(Request):
    """An API key to make. It can do no more than the key that makes it."""

    name: Text
    permissions: tuple[Permission, ...] = Field(min_length=1)
    fleets: tuple[Text, ...] | None = Field(None, max_length=256, description="absent: all")


class KeyItem(Answer):
    """An API key, without its value."""

    id: str
    name: str
    permissions: list[str]
    fleets: list[str] | None = None
    created_at: Moment
    last_used: Moment | None = None


class KeyMade(KeyItem):
    """A new API key; `key` is shown this once."""

    key: str


class KeyList(Listing):
    """API keys."""

    items: list[KeyItem]


class KeyRevoked(Answer):
    """The key is refused from now on."""

    id: str
    revoked: bool = True
