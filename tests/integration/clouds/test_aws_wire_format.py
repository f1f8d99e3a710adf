"""STS and ECR as moto words them: the provider's requests and its reading of answers are AWS's.

Its token is constant and ended in 2015, so this proves the format, and that such a token is refused.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from facade.clock import SystemClock
from facade.control.credentials.model import Offered, StoredSecrets
from facade.control.credentials.providers import Endpoints, ProviderContext, Providers
from facade.upstream.addresses import AddressPolicy
from facade.upstream.cloud_client import CloudClient
from facade.upstream.connection import Connection
from tests.support.cloud_parts import ACCOUNT, ECR, ROLE


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
async def providers(moto_url: str) -> AsyncIterator[Providers]:
    http = CloudClient(addresses=AddressPolicy(["127.0.0.0/8"]), clock=SystemClock())
    endpoints = Endpoints(aws_sts=moto_url, aws_ecr=moto_url)
    yield Providers(ProviderContext(SystemClock(), http, endpoints))
    await http.close()


CONFIG = {
    "role_arn": ROLE,
    "region": "eu-central-1",
    "external_id": "x1",
    "access_key_id": "AKIAIOSFODNN7EXAMPLE",
    "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}


async def test_motos_token_is_read(providers: Providers) -> None:
    aws = providers.get("aws")
    prepared = aws.prepare(Offered(ECR, config=CONFIG))
    stored = StoredSecrets(prepared.username, prepared.fields)
    presented = await aws.credentials(Connection("c1", ECR, "aws"), stored)
    assert presented.basic is not None
    assert presented.basic.username == "AWS"
    assert presented.basic.password.reveal() == f"{ACCOUNT}-auth-token"
    assert presented.expires_at is not None
    assert presented.expires_at < SystemClock().time()
