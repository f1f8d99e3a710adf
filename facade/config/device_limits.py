"""`[device.limits]`: bounds on what devices may take of a node, or of one serving process where it says so."""

from pydantic import Field

from facade.config.section import Seconds, Section

_EACH = "; not shared out, so that N workers allow up to N times as much; absent: no bound"


class DeviceLimits(Section):
    """Bounds on what one device, and all devices of one worker, may hold."""

    requests: int = Field(
        64, ge=1, description="requests at once per device; each worker gives its share, rounded up"
    )
    streams: int = Field(
        32, ge=1, description="blob streams at once per device; shared out in the same way"
    )
    requests_per_second: float | None = Field(
        None, gt=0, description=f"requests per device and worker, on average{_EACH}"
    )
    bytes_per_second: int | None = Field(
        None, ge=1024, description=f"bytes sent per device and worker{_EACH}"
    )
    bytes_per_day: int | None = Field(
        None, ge=1, description=f"bytes sent per device, worker and UTC day{_EACH}"
    )
    wait: Seconds = Field(30, description="seconds a request waits for its slot before 503")
    connections: int = Field(4096, ge=1, description="open connections per worker")
    connections_per_certificate: int = Field(
        256, ge=1, description="of these, with one client certificate and per worker"
    )
    handshakes_per_address: int = Field(
        2048,
        ge=1,
        description="TLS handshakes under way from one address (IPv6: one /64), per worker",
    )
    handshake: Seconds = Field(10, description="seconds until a TLS handshake must be done")
    idle: Seconds = Field(75, description="seconds a connection may stay without a whole request")
    stall: Seconds = Field(30, description="seconds over which min_bytes_per_second is measured")
    min_bytes_per_second: int = Field(
        1024, ge=1, description="a device that takes its answer slower than this is cut"
    )
