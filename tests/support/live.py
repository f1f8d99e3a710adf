"""A whole installation over upstreams that a test can turn against it: registry, token service, device.

Guarantees: a real `facade up`, driven through its command line; the registry and the token service are
scriptable and note what they were asked; each tag is an image of its own, so that pulling the next
one needs the upstream again. The device is a plain HTTP client with the certificate that
`facade device issue` made.
"""

import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from facade.demo.image import Image, make_image
from tests.support.facade_process import FacadeProcess, Finished, facade_up
from tests.support.registry import BearerAuth, Registry
from tests.support.token_server import Account, TokenServer

REPOSITORY = "acme/kiosk"
USER = "acme-bot"
PASSWORD = "canary-Pa55word-first"
IMAGES = 6
PAYLOAD_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class Answered:
    """What the device was told."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def reason(self) -> str:
        """The reason code of a refusal; "" when it was none."""
        text = self.body.decode(errors="replace") if self.status >= 400 else ""
        _, _, rest = text.partition('"reason"')
        return rest.partition('"')[2].partition('"')[0]


@dataclass(frozen=True, slots=True)
class Live:
    """What a test needs.

    Arguments:
        images: by tag, v1 to v6, all signed for the fleet dev.
    """

    facade: FacadeProcess
    registry: Registry
    tokens: TokenServer
    images: Mapping[str, Image]
    certificates: Path

    @property
    def host(self) -> str:
        """The registry, as an operator names it."""
        return str(self.registry.host)

    @property
    def passwords(self) -> list[str]:
        """The Authorization fields that the token service saw."""
        return [seen.authorization or "" for seen in self.tokens.requests]

    async def add(self, password: str = PASSWORD) -> Finished:
        """Connect the registry."""
        return await self.facade.must(
            *("registry", "add", self.host, "--username", USER, "--password-stdin", "--insecure"),
            stdin=password,
        )

    async def rotate(self, password: str) -> Finished:
        """Replace its password."""
        return await self.facade.must(
            *("registry", "rotate", self.host, "--username", USER, "--password-stdin"),
            stdin=password,
        )

    async def import_all(self) -> Finished:
        """Sign every tag for the fleet dev."""
        places = [f"{self.host}/{REPOSITORY}:{tag}" for tag in self.images]
        return await self.facade.must("artifact", "import", *places, "--fleet", "dev")

    def change_password(self, password: str) -> None:
        """At the registry's end; what it gave out so far is dead too."""
        self.tokens.accounts[USER] = Account(password)
        self.tokens.revoke_all()

    @property
    def context(self) -> ssl.SSLContext:
        """The device's."""
        context = ssl.create_default_context(cafile=self.certificates / "ca.crt")
        context.load_cert_chain(self.certificates / "client.cert", self.certificates / "client.key")
        return context

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[aiohttp.ClientSession]:
        """A session of the device's own, which keeps its connection."""
        connector = aiohttp.TCPConnector(ssl=self.context)
        async with aiohttp.ClientSession(
            f"https://{self.facade.device}", connector=connector
        ) as session:
            yield session

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answered:
        """One request on the device port, on a connection of its own."""
        async with self.connected() as session, session.get(path, headers=headers) as response:
            return Answered(response.status, await response.read(), dict(response.headers))

    async def pull(self, tag: str) -> Answered:
        """All of an image; the first answer that is no 200, or the last one."""
        image = self.images[tag]
        base = f"/v2/{self.registry.host.path_segment}/{REPOSITORY}"
        paths = [f"{base}/manifests/{digest}" for digest in image.manifests]
        paths += [f"{base}/blobs/{digest}" for digest in image.blobs]
        answered = None
        for path in paths:
            answered = await self.get(path)
            if answered.status != 200:
                break
        assert answered is not None
        return answered


@contextlib.asynccontextmanager
async def live(
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    payload_bytes: int = PAYLOAD_BYTES,
) -> AsyncIterator[Live]:
    """Start everything; nothing is connected yet.

    Arguments:
        env: further environment of `facade up`.
        prefix: a command that `facade up` is given to.
        payload_bytes: of each image's layer; each has a few bytes more than the one before.
    """
    async with (
        TokenServer({USER: Account(PASSWORD)}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        facade_up(folder / "state", env=env, prefix=prefix) as facade,
    ):
        images = {}
        for number in range(1, IMAGES + 1):
            image = make_image(line=f"image {number}", payload_bytes=payload_bytes + number)
            registry.add_image(REPOSITORY, image, f"v{number}")
            images[f"v{number}"] = image
        certificates = folder / "certificates"
        await facade.must("device", "issue", "dev/kiosk-1", "--out", certificates)
        yield Live(facade, registry, tokens, images, certificates)
