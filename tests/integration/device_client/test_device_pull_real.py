"""The reference device client against the real device port, in front of a registry."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from facade.device_client.client import DeviceClient, Pulled
from facade.device_client.session import Endpoint
from facade.errors import Denied, NotFound
from facade.reasons import Reason
from tests.support.facade_app import FacadeApp
from tests.support.image import make_image
from tests.support.pki import SERVER_AUTH, Authority, Leaf
from tests.support.registry import Registry

IMAGE = make_image(payload_bytes=2_000_000)


@asynccontextmanager
async def facade_with_an_image(folder: Path) -> AsyncIterator[tuple[FacadeApp, Registry]]:
    async with Registry() as registry, FacadeApp(folder / "facade") as facade:
        await facade.sign(registry, "org/app", IMAGE)
        yield facade, registry


async def pull(facade: FacadeApp, folder: Path, leaf: Leaf, artifact: str = "dev/app/v1") -> Pulled:
    files = leaf.write(folder)
    endpoint = Endpoint(facade.url, files.certificate, files.key, facade.server_ca.write(folder))
    client = DeviceClient(endpoint, root=facade.tuf.pinned, metadata_dir=folder / "metadata")
    return await client.pull(artifact, folder / "out", platform="linux/arm64")


async def test_a_device_pulls_and_the_next_one_from_the_cache(tmp_path: Path) -> None:
    async with facade_with_an_image(tmp_path) as (facade, registry):
        for number in range(2):
            pulled = await pull(
                facade, tmp_path / str(number), facade.ca.device("dev", f"kiosk-{number}")
            )
            index = json.loads((pulled.folder / "index.json").read_text())
            assert index["manifests"][0]["digest"] == str(pulled.manifest)
            await facade.settled()
        arm = [digest for digest in IMAGE.blobs if registry.count(f"*/{digest}")]
        assert len(arm) >= 2  # config and layers of one platform,
        assert registry.count("/v2/*/blobs/*") == len(arm)  # once each
        assert pulled.target.digest == IMAGE.index


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("expired", "has expired"),
        ("wrong CA", "does not know the CA"),
        ("wrong usage", "not for client authentication"),
    ],
)
async def test_a_refused_certificate_is_put_into_words(
    tmp_path: Path, kind: str, words: str
) -> None:
    async with facade_with_an_image(tmp_path) as (facade, _):
        leaf = {
            "expired": facade.ca.expired_device(),
            "wrong CA": Authority.root("Device CA").device(),
            "wrong usage": facade.ca.device(usages=(SERVER_AUTH,)),
        }[kind]
        with pytest.raises(Denied, match=words) as caught:
            await pull(facade, tmp_path, leaf)
        assert caught.value.reason is Reason.IDENTITY


async def test_a_certificate_without_a_spiffe_id(tmp_path: Path) -> None:
    async with facade_with_an_image(tmp_path) as (facade, _):
        with pytest.raises(Denied, match="SPIFFE ID") as caught:
            await pull(facade, tmp_path, facade.ca.device(uris=()))
        assert caught.value.reason is Reason.IDENTITY


async def test_another_fleets_artifact(tmp_path: Path) -> None:
    async with facade_with_an_image(tmp_path) as (facade, _):
        with pytest.raises(NotFound) as caught:
            await pull(facade, tmp_path, facade.ca.device("other", "kiosk-7"))
        assert caught.value.reason is Reason.NOT_SIGNED
