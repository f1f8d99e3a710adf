"""`[upstream]`: how registries are spoken to."""

from pydantic import Field

from facade.config.section import Cidr, Seconds, Section


class UpstreamTimeouts(Section):
    """How long the upstream may take."""

    connect: Seconds = Field(5, description="seconds to connect, TLS included")
    first_byte: Seconds = Field(30, description="seconds until the first byte, retries included")
    unreachable: Seconds = Field(15, description="seconds of failed connections until giving up")
    stall: Seconds = Field(20, description="seconds without progress that count as broken")


class UpstreamPerConnection(Section):
    """Bounds per connected registry."""

    transfers: int = Field(
        16,
        ge=1,
        description="blob transfers at once per connection and node: each worker may have its share, "
        "rounded up",
    )


class UpstreamSettings(Section):
    """How registries are spoken to."""

    allow_cidrs: tuple[Cidr, ...] = Field(
        (), description="private or loopback ranges that registries may resolve to"
    )
    timeouts: UpstreamTimeouts = Field(default_factory=UpstreamTimeouts, description="")
    per_connection: UpstreamPerConnection = Field(
        default_factory=UpstreamPerConnection, description=""
    )
