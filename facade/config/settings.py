"""Settings: every key that can be set, with its default, unit and meaning.

Guarantees: a `Settings` is frozen and validated; unknown keys are refused. Reads nothing by itself:
`facade.config.sources.load` does.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs, unquote

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    model_validator,
)

from facade.config.clouds import CredentialsSettings
from facade.config.device_limits import DeviceLimits
from facade.config.redis_url import parse_redis_url
from facade.config.section import Cidr, Identity, Seconds, Section
from facade.config.tracing import TracingSettings
from facade.config.upstream import UpstreamSettings
from facade.errors import FacadeError
from facade.oci.host import RegistryHost

_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]*):(?P<port>\d{1,5})")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)
_MIB = 1024 * 1024


def parse_listen(text: str) -> tuple[str, int]:
    """Split `HOST:PORT`; IPv6 in brackets, port 0 = any free one. Raises ValueError."""
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError("write HOST:PORT, like 127.0.0.1:8080 or [::]:8443")
    return match["host"].strip("[]"), int(match["port"])


def _listen(text: str) -> str:
    parse_listen(text)
    return text


def _registry(text: str) -> str:
    try:
        return str(RegistryHost.parse(text))
    except FacadeError as error:
        raise ValueError(error.message) from error


def _trust_domain(text: str) -> str:
    if not _TRUST_DOMAIN.fullmatch(text):
        raise ValueError("a SPIFFE trust domain is lower-case letters, digits, '.', '-' or '_'")
    return text


def _store_url(text: str) -> str:
    if text.startswith("s3://"):
        raise ValueError("s3:// stores are not built yet; use file:///path for now")
    if not text.startswith("file:///"):
        raise ValueError("write file:///absolute/path")
    return text


def _database_url(text: str) -> str:
    if text.startswith("postgresql"):
        raise ValueError("PostgreSQL is not built yet; use sqlite+aiosqlite:///path for now")
    if not text.startswith("sqlite+aiosqlite:///"):
        raise ValueError("write sqlite+aiosqlite:///path/to/facade.db")
    path, _, query = text.removeprefix("sqlite+aiosqlite:///").partition("?")
    name = unquote(path)
    in_memory = name in ("", ":memory:") or "memory" in parse_qs(query).get("mode", ())
    if in_memory or name.startswith("file:"):
        raise ValueError(
            "the database must be a file, for every connection to it to see the same one and a "
            "restart to find it: write sqlite+aiosqlite:///path/to/facade.db"
        )
    return text


def _redis_url(text: str) -> str:
    parse_redis_url(text)
    return text


def _without_password(text: str | None) -> str | None:
    return None if text is None else str(parse_redis_url(text))


Listen = Annotated[str, AfterValidator(_listen)]


class DeviceCa(Section):
    """A certificate authority whose device certificates are accepted."""

    file: Path = Field(description="PEM file: the CA certificate, and intermediates if any")
    fleets: tuple[str, ...] = Field(("*",), description="fleets it may name (shell patterns)")
    crl: Path | None = Field(
        None, description="certificate revocation lists (one or several in PEM, or one in DER)"
    )
    refuse_stale_crl: bool = Field(False, description="refuse its devices while that is overdue")


class DeviceSettings(Section):
    """The port that devices speak to, over mutual TLS."""

    listen: Listen = Field("[::]:8443", description="HOST:PORT of the device port")
    server_cert: Path | None = Field(None, description="PEM: the server's certificate chain")
    server_key: Path | None = Field(None, description="PEM: its private key")
    trust_domain: Annotated[str, AfterValidator(_trust_domain)] = Field(
        "facade.local", description="SPIFFE trust domain of device certificates"
    )
    identity: Identity = Field(
        "spiffe",
        description="where fleet and name come from: the SPIFFE URI SAN; subject: OU and CN; or "
        "subject:FIELD,FIELD of CN, O, OU, serialNumber",
    )
    default_registry: Annotated[str, AfterValidator(_registry)] = Field(
        "docker.io", description="registry meant when a request names none"
    )
    workers: int = Field(
        1,
        ge=0,
        le=64,
        description="serving processes, which hold no long-lived secret; 0: serve in the control "
        "side's own process",
    )
    worker_user: str | None = Field(
        None,
        min_length=1,
        description="user that they run as, when facade up is started as root; it can read neither "
        "sealing key nor database nor online keys",
    )
    deny_list_max_age: float = Field(
        900,
        ge=10,
        le=86_400,
        description="seconds without word from the control side until devices are refused",
    )
    proxy_protocol_from: tuple[Cidr, ...] = Field(
        (), description="balancers whose connections begin with a PROXY protocol v2 header"
    )
    ca: tuple[DeviceCa, ...] = Field((), description="[[device.ca]] tables")
    limits: DeviceLimits = Field(default_factory=DeviceLimits, description="")


class OperatorSettings(Section):
    """The port that operators speak to."""

    listen: Listen = Field("127.0.0.1:8080", description="HOST:PORT of the operator API")
    cert: Path | None = Field(None, description="PEM certificate chain; with key: https")
    key: Path | None = Field(None, description="PEM private key")
    behind_proxy: bool = Field(
        False, description="a TLS proxy of yours stands in front: plain http on any address"
    )
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Host headers accepted besides the listening address and localhost"
    )

    @model_validator(mode="after")
    def _protected(self) -> "OperatorSettings":
        if (self.cert is None) != (self.key is None):
            raise ValueError("give both cert and key, or neither")
        host, _port = parse_listen(self.listen)
        loopback = host == "localhost" or (
            re.fullmatch(r"[0-9a-fA-F:.]+", host) is not None
            and ipaddress.ip_address(host).is_loopback
        )
        if not loopback and self.cert is None and not self.behind_proxy:
            raise ValueError(
                "listen is not a loopback address: set cert and key, or behind_proxy = true "
                "when a TLS proxy of yours stands in front"
            )
        return self


class MetricsSettings(Section):
    """The port that dashboards scrape."""

    listen: Listen = Field("127.0.0.1:9464", description="HOST:PORT of metrics and health")


class TrustSettings(Section):
    """Signed update metadata (TUF)."""

    root: Path | None = Field(None, description="the pinned root.json")
    source: str | None = Field(None, description="folder (or https URL) the metadata comes from")
    metadata_dir: Path | None = Field(None, description="where verified versions are remembered")
    refresh_seconds: Seconds = Field(30, description="seconds between refreshes")
    repository: Path | None = Field(None, description="control side: the repository's folder")
    online_keys: Path | None = Field(None, description="control side: folder of the online keys")
    resign_check_seconds: Seconds = Field(
        900, description="control side: seconds between looks whether an online role is due"
    )


class DatabaseSettings(Section):
    """The control side's database."""

    url: Annotated[str, AfterValidator(_database_url)] | None = Field(
        None, description="sqlite+aiosqlite:///path (postgresql+asyncpg:// comes later)"
    )
    max_waiting: int = Field(
        10_000,
        ge=100,
        le=1_000_000,
        description="pull records that wait while it cannot be written; further ones are dropped",
    )


class RedisSettings(Section):
    """Where tokens are shared; absent: memory."""

    url: Annotated[
        Annotated[str, AfterValidator(_redis_url)] | None, PlainSerializer(_without_password)
    ] = Field(
        None,
        repr=False,
        description="redis://[USER:PASSWORD@]HOST[:PORT][/DB], redis+cluster://HOST,HOST…, "
        "redis+sentinel://HOST,HOST…/SERVICE; rediss… for TLS, ?ca_file=F for a CA of its own",
    )


class StoreSettings(Section):
    """The cache of verified content."""

    url: Annotated[str, AfterValidator(_store_url)] | None = Field(
        None, description="file:///path (s3:// comes later)"
    )
    max_bytes: int | None = Field(
        None, ge=_MIB, description="bytes the cache may hold; absent: 80 % of the disk's free space"
    )
    high_watermark: float = Field(0.95, gt=0, le=1, description="share at which eviction starts")
    low_watermark: float = Field(0.85, gt=0, le=1, description="share at which eviction stops")

    @model_validator(mode="after")
    def _ordered(self) -> "StoreSettings":
        if self.low_watermark > self.high_watermark:
            raise ValueError("low_watermark must not exceed high_watermark")
        return self


class SealingSettings(Section):
    """The key ring that seals secrets at rest (control side only)."""

    key_file: Path | None = Field(None, description="key ring, mode 0600")


class PullSettings(Section):
    """What may leave before the verdict."""

    verify: Literal["holdback", "strict"] = Field(
        "holdback",
        description="holdback: all but the end streams; strict: nothing before the verdict",
    )
    holdback_bytes: int = Field(
        64 * 1024, ge=1, le=16 * _MIB, description="bytes of the end held back until the verdict"
    )


class LogSettings(Section):
    """Structured logs on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, else json"
    )


class Settings(Section):
    """Everything that can be set."""

    device: DeviceSettings = Field(default_factory=DeviceSettings)
    operator: OperatorSettings = Field(default_factory=OperatorSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    trust: TrustSettings = Field(default_factory=TrustSettings)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    sealing: SealingSettings = Field(default_factory=SealingSettings)
    credentials: CredentialsSettings = Field(default_factory=CredentialsSettings)
    upstream: UpstreamSettings = Field(default_factory=UpstreamSettings)
    pull: PullSettings = Field(default_factory=PullSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    tracing: TracingSettings = Field(default_factory=TracingSettings)
