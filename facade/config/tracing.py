"""`[tracing]`: OpenTelemetry traces."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from facade.config.section import Section


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write the collector's URL, like http://127.0.0.1:4318/v1/traces")
    if parts.username or parts.password:
        raise ValueError(
            "a URL is shown and logged: give credentials in OTEL_EXPORTER_OTLP_HEADERS instead"
        )
    return text


class TracingSettings(Section):
    """OpenTelemetry traces (needs the extra: pip install 'facade[otel]')."""

    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        None,
        description="OTLP/HTTP URL of a collector, like http://host:4318/v1/traces; absent: none",
    )
    sample_ratio: float = Field(0.1, gt=0, le=1, description="share of requests that are traced")
    accept_from_devices: bool = Field(
        False,
        description="continue the trace that a device's traceparent names: it then decides what is "
        "sampled and may write into anybody's trace",
    )
