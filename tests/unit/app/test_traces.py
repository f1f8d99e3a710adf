"""Without a collector there is nothing around the ports: what was handed in comes back."""

from contextlib import AsyncExitStack
from typing import cast

import pytest

from facade.app.tracing import open_traces
from facade.config import Settings
from facade.config.tracing import TracingSettings
from facade.serving.pulls.ports import Authorisation, Blobs, UpstreamRegistry


async def test_off_is_the_very_path_that_would_be_there_without_it() -> None:
    async with AsyncExitStack() as stack:
        traces = open_traces(stack, Settings())
    inner = object()
    assert traces.requests is None
    assert traces.watchers == ()
    assert traces.authorisation(cast(Authorisation, inner)) is inner
    assert traces.blobs(cast(Blobs, inner)) is inner
    assert traces.upstream(cast(UpstreamRegistry, inner)) is inner


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("collector:4318", "write the collector's URL"),
        ("ftp://collector/", "write the collector's URL"),
        ("https://user:pa55word@collector/v1/traces", "OTEL_EXPORTER_OTLP_HEADERS"),
    ],
)
def test_an_endpoint_is_checked(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TracingSettings(endpoint=url)
