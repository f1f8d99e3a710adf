"""A stock client with a certificate that will not do: what the person at the terminal reads."""

from collections.abc import Callable
from pathlib import Path

import pytest

from facade.oci.digest import Digest
from facade.target import SignedTarget
from tests.support.facade_app import FacadeApp, Tuning
from tests.support.facade_process import Finished, run
from tests.support.image import small_image
from tests.support.pki import Authority, Leaf, spiffe
from tests.support.registry import Registry

IMAGE = small_image()
DIGEST: Digest = IMAGE.index

STRANGERS: dict[str, tuple[Callable[[Authority], Leaf], str]] = {
    "wrong CA": (lambda ca: Authority.root("Another CA").device(), "unknown certificate authority"),
    "expired": (lambda ca: ca.expired_device(), "expired certificate"),
    "for servers": (lambda ca: ca.server("localhost"), "certificate"),
    "no SPIFFE ID": (lambda ca: ca.device(uris=()), "has no SPIFFE ID"),
    "two SPIFFE IDs": (
        lambda ca: ca.device(uris=(spiffe("dev", "a"), spiffe("dev", "b"))),
        "several URI names",
    ),
    "unknown fleet": (lambda ca: ca.device("nowhere", "a"), "not signed for this device's fleet"),
    "a fleet that its CA may not name": (
        lambda ca: ca.device("hospital", "a"),
        "may not name devices of fleet hospital",
    ),
}


async def copy(
    facade: FacadeApp, target: SignedTarget, leaf: Leaf | None, folder: Path
) -> Finished:
    certificates = folder / "certificates"
    facade.server_ca.write(certificates)
    if leaf is not None:
        leaf.write(certificates)
    source = f"localhost:{facade.port}/{target.registry.path_segment}/{target.repository}"
    return await run(
        *("skopeo", "copy", "--all", "--src-cert-dir", certificates),
        *(f"docker://{source}@{DIGEST}", f"oci:{folder / 'layout'}:app"),
    )


@pytest.mark.parametrize("who", STRANGERS)
async def test_a_stranger_reads_why(tmp_path: Path, who: str) -> None:
    make, words = STRANGERS[who]
    tuning = Tuning(ca_fleets=("dev", "other", "nowhere"))
    async with FacadeApp(tmp_path / "facade", tuning=tuning) as facade, Registry() as registry:
        target = await facade.sign(registry, "org/app", IMAGE)
        refused = await copy(facade, target, make(facade.ca), tmp_path)
        assert refused.code != 0
        assert words in refused.stderr
        served = await copy(facade, target, facade.ca.device(), tmp_path / "good")
        assert served.code == 0, str(served)
