"""`store.max_bytes` reaches the store: what is larger is served and not kept."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from facade.app.content import open_content
from facade.config import Settings
from facade.oci.digest import Digest
from facade.serving.pulls.reports import BlobEvents, Reports
from tests.support.blob_source import ScriptedSource
from tests.support.blobs import (
    CONNECTION,
    MEBI,
    REPOSITORY,
    CountingObserver,
    make_content,
    read_all,
)
from tests.support.clock import FakeClock
from tests.support.serving import FakeControl


@pytest.mark.parametrize(("size", "kept"), [(MEBI, True), (MEBI + 1, False)])
async def test_the_configured_bound_holds(tmp_path: Path, size: int, kept: bool) -> None:
    store = {
        "url": f"file://{tmp_path}",
        "max_bytes": MEBI,
        "high_watermark": 1,
        "low_watermark": 1,
    }
    settings = Settings.model_validate({"store": store})
    clock, content = FakeClock(), make_content(size)
    digest = Digest.of(content)
    events = BlobEvents(CountingObserver(), Reports(control=FakeControl(), clock=clock))
    async with AsyncExitStack() as stack:
        cache = (await open_content(stack, settings, events, clock)).blobs
        stream = await cache.get(CONNECTION, REPOSITORY, digest, size, ScriptedSource(content))
        assert await read_all(stream) == content
        await cache.fetch(CONNECTION, REPOSITORY, digest, size, ScriptedSource(content))
        assert await cache.holds(CONNECTION, REPOSITORY, digest) is kept
    assert list((tmp_path / "ingest").iterdir()) == []
