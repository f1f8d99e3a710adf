"""One facade before four registries, each of which wants another kind of credentials.

Guarantees: every registry is Debian's docker-registry with an image of its own. `static` and
`anonymous` get their tokens from a token service, `google` from one that admits only issued access
tokens, `aws` through a gate that opens only for issued ECR passwords. The AWS base key comes from the
environment of the process; everything else through the command line, as an operator would do it.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from facade.demo.image import Image, make_image
from facade.oci.host import RegistryHost
from tests.support.cloud_aws import AwsCloud
from tests.support.cloud_google import GoogleCloud, acme_account
from tests.support.docker_registry import docker_registry, free_port
from tests.support.ecr_gate import EcrGate
from tests.support.facade_process import FacadeProcess, Finished, facade_up, run
from tests.support.image import push
from tests.support.token_server import Account, TokenServer

REPOSITORY = "acme/kiosk"
PASSWORD = "canary-s3cret-Pa55word"
ROLE = "arn:aws:iam::123456789012:role/canary-facade-pull"
EXTERNAL_ID = "canary:external/4711"
PROVIDERS = ("static", "anonymous", "google", "aws")
_PUSHER = {"pusher": Account("push", push=True)}


@dataclass(frozen=True, slots=True)
class FourShapes:
    """What a test needs. `hosts` and `images` by provider; `certificates` of dev/kiosk-1."""

    facade: FacadeProcess
    aws: AwsCloud
    google: GoogleCloud
    gate: EcrGate
    hosts: Mapping[str, RegistryHost]
    images: Mapping[str, tuple[Image, Image]]
    certificates: Path
    key_file: Path

    async def connect(self, provider: str) -> Finished:
        """`facade registry add` for one of them."""
        options: dict[str, tuple[str | Path, ...]] = {
            "static": ("--username", "acme-bot", "--password-stdin"),
            "anonymous": ("--anonymous",),
            "google": ("--google-key-file", self.key_file),
            "aws": (
                *("--aws-role-arn", ROLE, "--aws-region", self.aws.region),
                *("--aws-external-id", EXTERNAL_ID),
            ),
        }
        return await self.facade.must(
            *("registry", "add", str(self.hosts[provider]), "--insecure", *options[provider]),
            stdin=PASSWORD if provider == "static" else "",
        )

    async def ship(self, provider: str, tag: str) -> Finished:
        """Import and sign `tag`."""
        source = f"{self.hosts[provider]}/{REPOSITORY}:{tag}"
        name = f"kiosk-{provider}"
        return await self.facade.must(
            *("artifact", "import", source, "--fleet", "dev", "--name", name)
        )

    async def pull(self, provider: str, image: Image, target: Path) -> Finished:
        """`skopeo copy` of an image by digest, all platforms, from the facade."""
        place = (
            f"{self.facade.device}/{self.hosts[provider].path_segment}/{REPOSITORY}@{image.index}"
        )
        return await run(
            *("skopeo", "copy", "--all", "--src-cert-dir", self.certificates),
            *(f"docker://{place}", f"oci:{target}:app"),
        )

    def canaries(self) -> list[str]:
        """Every secret that there is by now."""
        account = acme_account()
        keys = list(self.aws.keys.values())
        return [
            *(PASSWORD, EXTERNAL_ID, ROLE, account.key_id, *account.pem.splitlines()[1:-1]),
            *(key.secret for key in keys),
            *(key.session_token for key in keys if key.session_token is not None),
            *self.aws.tokens.issued,
            *self.google.tokens.issued,
        ]


@contextlib.asynccontextmanager
async def four_shapes(folder: Path) -> AsyncIterator[FourShapes]:
    """Everything running, nothing connected; images pushed as v1 and v2."""
    async with contextlib.AsyncExitStack() as stack:
        aws = await stack.enter_async_context(AwsCloud())
        google = await stack.enter_async_context(GoogleCloud([acme_account()]))
        base = aws.add_key()
        aws.add_role(ROLE, base, external_id=EXTERNAL_ID)
        services = {
            "static": TokenServer({**_PUSHER, "acme-bot": Account(PASSWORD)}),
            "anonymous": TokenServer(_PUSHER, anonymous=None),
            "google": TokenServer(_PUSHER, admits=google.tokens.accepts_google),
        }
        hosts: dict[str, RegistryHost] = {}
        images: dict[str, tuple[Image, Image]] = {}
        gate: EcrGate | None = None
        for provider in PROVIDERS:
            tokens = services.get(provider)
            if tokens is not None:
                await stack.enter_async_context(tokens)
            registry = await stack.enter_async_context(
                docker_registry(folder / f"registry-{provider}", tokens=tokens, port=free_port())
            )
            images[provider] = (
                make_image(line=f"hello {provider}", payload_bytes=100_000),
                make_image(line=f"hello again {provider}", payload_bytes=100_000),
            )
            headers = {} if tokens is None else tokens.push_header(REPOSITORY)
            for tag, image in zip(("v1", "v2"), images[provider], strict=True):
                await push(registry.url, REPOSITORY, image, tag, headers=headers)
            hosts[provider] = registry.host
            if provider == "aws":
                gate = await stack.enter_async_context(EcrGate(registry.url, aws.tokens))
                hosts[provider] = gate.host
        assert gate is not None
        env = {
            "FACADE_CREDENTIALS__GOOGLE_TOKEN_URI": google.token_uri,
            "FACADE_CREDENTIALS__GOOGLE_HOSTS": json.dumps([str(hosts["google"])]),
            "FACADE_CREDENTIALS__AWS_STS_ENDPOINT": aws.url,
            "FACADE_CREDENTIALS__AWS_ECR_ENDPOINT": aws.url,
            "FACADE_LOG__LEVEL": "debug",
            "AWS_ACCESS_KEY_ID": base.id,
            "AWS_SECRET_ACCESS_KEY": base.secret,
        }
        facade = await stack.enter_async_context(facade_up(folder / "state", env=env))
        certificates, key_file = folder / "certificates", folder / "key.json"
        await facade.must("device", "issue", "dev/kiosk-1", "--out", certificates)
        key_file.write_text(json.dumps(acme_account().document()))
        yield FourShapes(facade, aws, google, gate, hosts, images, certificates, key_file)
