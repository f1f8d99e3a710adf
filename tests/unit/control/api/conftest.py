"""The operator port over in-memory use cases, and a client with a key for everything."""

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from facade.control.api.app import operator_app
from tests.support.operator_services import Client, Fakes

KEY = "key-for-everything"


@pytest.fixture
def fakes() -> Fakes:
    made = Fakes()
    made.keys.put(KEY)
    return made


@pytest.fixture
async def port(fakes: Fakes) -> AsyncIterator[Client]:
    """Without a key."""
    async with TestClient(TestServer(operator_app(fakes.services()))) as client:
        yield client


@pytest.fixture
async def api(fakes: Fakes) -> AsyncIterator[Client]:
    """With a key for everything."""
    server = TestServer(operator_app(fakes.services()))
    async with TestClient(server, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client
