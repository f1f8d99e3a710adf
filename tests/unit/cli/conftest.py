"""The command line against an operator port over in-memory use cases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from facade.control.api.app import operator_app
from tests.support.operator_server import CommandLine, serving
from tests.support.operator_services import Fakes

KEY = "key-for-everything"


@pytest.fixture
def fakes() -> Fakes:
    made = Fakes()
    made.keys.put(KEY)
    return made


@pytest.fixture
def facade(fakes: Fakes, tmp_path: Path) -> Iterator[CommandLine]:
    """With a server, and a key for everything."""
    with serving(operator_app(fakes.services())) as url:
        yield CommandLine(
            {"FACADE_URL": url, "FACADE_API_KEY": KEY, "FACADE_STATE": str(tmp_path / "state")}
        )


@pytest.fixture
def alone(tmp_path: Path) -> CommandLine:
    """Without a server."""
    return CommandLine({"FACADE_STATE": str(tmp_path / "state")})
