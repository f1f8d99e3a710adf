"""Docker, unchanged: named directly.

Docker presents no client certificate to names that resolve to 127.0.0.0/8, so the facade listens on ::1
and is called by a name of it (clients.md, 11). dockerd reads /etc/docker/certs.d and /etc/hosts.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import docker
from tests.support.shop import LINE, Shop, shop

pytestmark = pytest.mark.clients

NAME = "facade-v6.test"


@contextlib.contextmanager
def _known_as(name: str) -> Iterator[None]:
    """`name` is ::1 while this lasts."""
    hosts = Path("/etc/hosts")
    before = hosts.read_text()
    hosts.write_text(f"{before.rstrip()}\n::1 {name}\n")
    try:
        yield
    finally:
        hosts.write_text(before)


@contextlib.contextmanager
def _certificates(it: Shop, address: str) -> Iterator[None]:
    folder = Path("/etc/docker/certs.d") / address
    shutil.copytree(it.certificates, folder)
    try:
        yield
    finally:
        shutil.rmtree(folder)


async def test_an_image_is_pulled_by_digest_and_runs(tmp_path: Path) -> None:
    with _known_as(NAME):  # before dockerd starts: Go remembers the hosts file for some seconds
        async with (
            shop(tmp_path, "token", listen="[::1]:0", name=NAME) as it,
            docker() as client,
        ):
            address = f"{NAME}:{it.facade.device.rpartition(':')[2]}"
            with _certificates(it, address):
                image = it.image.replace(it.facade.device, address)
                pulled = await client("pull", image)
                assert pulled.code == 0, f"{pulled}\n{it.facade.log}"
                ran = await client("run", "--rm", "--network", "none", image)
                assert ran.stdout.strip() == LINE, ran

                unsigned = it.named(it.unshipped).replace(it.facade.device, address)
                refused = await client("pull", unsigned)
                assert refused.code != 0
                assert "not signed" in refused.stderr
