"""The four provider shapes, each pulled through the facade with skopeo; no secret left anywhere."""

from pathlib import Path

import aiohttp
import pytest

from tests.support.cloud import State
from tests.support.facade_process import Finished
from tests.support.four_shapes import PROVIDERS, REPOSITORY, FourShapes, four_shapes

pytestmark = [pytest.mark.clients, pytest.mark.slow]


def _blobs(layout: Path) -> set[str]:
    return {path.name for path in (layout / "blobs" / "sha256").iterdir()}


async def _ship_and_pull(shapes: FourShapes, provider: str, number: int, target: Path) -> None:
    image = shapes.images[provider][number]
    await shapes.ship(provider, f"v{number + 1}")
    pulled = await shapes.pull(provider, image, target)
    assert pulled.code == 0, f"{provider}: {pulled}\n{shapes.facade.log[-3000:]}"
    assert _blobs(target) == {digest.hex for digest in (*image.manifests, *image.blobs)}


async def _metrics(shapes: FourShapes) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{shapes.facade.metrics}/metrics") as response,
    ):
        return await response.text()


def _left_behind(shapes: FourShapes) -> str:
    """The log, and every file of the state folder."""
    files = [path for path in shapes.facade.state.rglob("*") if path.is_file()]
    assert any(path.name == "facade.db" for path in files)
    texts = (path.read_bytes().decode("latin-1") for path in files)
    return "\n".join([shapes.facade.log, *texts])


async def test_each_shape_pulls_an_image_and_shows_no_secret(tmp_path: Path) -> None:
    async with four_shapes(tmp_path) as shapes:
        said: list[Finished] = []
        for provider in PROVIDERS:
            host = str(shapes.hosts[provider])
            said.append(await shapes.connect(provider))
            said.append(await shapes.facade.must("registry", "test", host))
            tested = await shapes.facade.must("registry", "test", host, "--repository", REPOSITORY)
            assert "may be pulled" in tested.stdout
            said.append(tested)
            said.append(await shapes.facade.must("registry", "show", host, "--json"))
            await _ship_and_pull(shapes, provider, 0, tmp_path / provider)

        # Each connected registry took only what it was made for.
        assert len(shapes.google.tokens.issued) >= 1
        assert {passed.state for passed in shapes.gate.requests} == {None, State.GOOD}

        # Tokens that the clouds ended early are replaced, without anybody noticing.
        before = (len(shapes.aws.tokens.issued), len(shapes.google.tokens.issued))
        shapes.aws.tokens.revoke_all()
        shapes.google.tokens.revoke_all()
        await _ship_and_pull(shapes, "aws", 1, tmp_path / "aws-again")
        assert len(shapes.aws.tokens.issued) == before[0] + 1
        await _ship_and_pull(shapes, "google", 1, tmp_path / "google-again")

        # A refusal in words, at once.
        shapes.aws.roles.clear()
        host = str(shapes.hosts["aws"])
        refused = await shapes.facade.cli("registry", "test", host)
        assert refused.code == 1
        assert "the role does not exist" in refused.stderr + refused.stdout
        said.append(refused)
        said.append(await shapes.facade.must("registry", "list"))

        metrics = await _metrics(shapes)
        for provider in ("google", "aws"):
            assert f'provider="{provider}"' in metrics
        shown = _left_behind(shapes) + metrics + "".join(f"{f.stdout}{f.stderr}" for f in said)
        assert [canary for canary in shapes.canaries() if canary in shown] == []
