"""A whole installation for tests from the outside: upstream, `facade up`, a shipped image, a device.

Guarantees: the upstream is Debian's docker-registry on a port of its own, with the authentication asked
for; everything else goes through the command line, as an operator would do it.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from facade.demo.image import Image, make_image
from tests.support.docker_registry import DockerRegistry, docker_registry
from tests.support.facade_process import FacadeProcess, Finished, facade_up, run
from tests.support.image import push
from tests.support.token_server import Account, TokenServer

LINE = "hello from behind the facade"
REPOSITORY = "acme/kiosk"
USER = "acme-bot"
PASSWORD = "s3cret-Pa55word"
PAYLOAD_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Shop:
    """What a test needs.

    Arguments:
        shipped: signed for the fleet dev as dev/kiosk/v1.
        unshipped: in the same repository as v2, signed for nobody.
        certificates: folder with ca.crt, client.cert and client.key of dev/kiosk-1.
    """

    facade: FacadeProcess
    registry: DockerRegistry
    shipped: Image
    unshipped: Image
    certificates: Path

    @property
    def image(self) -> str:
        """The shipped image's name as a runtime asks the facade for it, by digest."""
        return self.named(self.shipped)

    def named(self, image: Image) -> str:
        """Any image's name through the facade."""
        return f"{self.repository}@{image.index}"

    @property
    def repository(self) -> str:
        """The repository's name through the facade."""
        return f"{self.facade.device}/{self.registry.host.path_segment}/{REPOSITORY}"

    async def skopeo(self, source: str, target: Path, *options: str) -> Finished:
        """`skopeo copy` from the facade into an OCI layout."""
        return await run(
            "skopeo",
            "copy",
            "--src-cert-dir",
            self.certificates,
            *options,
            f"docker://{source}",
            f"oci:{target}:app",
        )


@contextlib.asynccontextmanager
async def shop(
    folder: Path, auth: str, *, listen: str = "127.0.0.1:0", name: str = "localhost"
) -> AsyncIterator[Shop]:
    """Open the shop.

    Arguments:
        auth: of the upstream: "token" (a service that signs JWTs) or "htpasswd" (Basic).
        listen: of the device port.
        name: a further name of the facade.
    """
    shipped = make_image(line=LINE, payload_bytes=PAYLOAD_BYTES)
    unshipped = make_image(line="not for you", payload_bytes=1024)
    accounts = {USER: Account(PASSWORD), "pusher": Account("push", push=True)}
    async with contextlib.AsyncExitStack() as stack:
        if auth == "token":
            tokens = await stack.enter_async_context(TokenServer(accounts))
            registry = await stack.enter_async_context(
                docker_registry(folder / "registry", tokens=tokens)
            )
            headers = tokens.push_header(REPOSITORY)
        else:
            # Filled while it is open, then served with passwords from the same folder.
            async with docker_registry(folder / "registry") as filling:
                await push(filling.url, REPOSITORY, shipped, "v1")
                await push(filling.url, REPOSITORY, unshipped, "v2")
            registry = await stack.enter_async_context(
                docker_registry(folder / "registry", htpasswd={USER: PASSWORD})
            )
            headers = {}
        if auth == "token":
            await push(registry.url, REPOSITORY, shipped, "v1", headers=headers)
            await push(registry.url, REPOSITORY, unshipped, "v2", headers=headers)
        facade = await stack.enter_async_context(
            facade_up(folder / "state", "--name", name, env={"FACADE_DEVICE__LISTEN": listen})
        )
        host = str(registry.host)
        await facade.must(
            *("registry", "add", host, "--username", USER, "--password-stdin", "--insecure"),
            stdin=PASSWORD,
        )
        await facade.must("artifact", "import", f"{host}/{REPOSITORY}:v1", "--fleet", "dev")
        certificates = folder / "certificates"
        await facade.must("device", "issue", "dev/kiosk-1", "--out", certificates)
        yield Shop(facade, registry, shipped, unshipped, certificates)
