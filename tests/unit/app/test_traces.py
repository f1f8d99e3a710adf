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
    assert traces.requests is None
    assert traces.watchers == ()
    authorisation = cast(Authorisation, object())
    assert traces.authorisation(authorisation) is authorisation
    blobs = cast(Blobs, object())
    assert traces.blobs(blobs) is blobs
    upstream = cast(UpstreamRegistry, object())
    assert traces.upstream(upstream) is upstream


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
