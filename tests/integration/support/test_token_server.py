"""The token service grants what accounts may have, and words it as it is told."""

import json

import aiohttp
import pytest

from tests.support.token_server import Account, TokenServer

PULL = "repository:org/app:pull"
ACCOUNTS = {
    "ann": Account("secret", frozenset({"org/app"})),
    "root": Account("toor", push=True),
}


async def ask(
    server: TokenServer, user: str | None = None, password: str = "", **query: str
) -> tuple[int, dict[str, object]]:
    auth = None if user is None else aiohttp.encode_basic_auth(user, password)
    headers = {} if auth is None else {"Authorization": auth}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(server.realm, params=query) as response,
    ):
        return response.status, json.loads(await response.read() or b"{}")


async def post(server: TokenServer, **form: str) -> tuple[int, dict[str, object]]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(server.realm, data=form) as response,
    ):
        return response.status, json.loads(await response.read() or b"{}")


def granted(server: TokenServer, document: dict[str, object]) -> dict[str, frozenset[str]]:
    access = server.verify(str(document["token"]))
    assert access is not None
    return dict(access)


async def test_grants_what_the_account_may_have() -> None:
    async with TokenServer(ACCOUNTS, anonymous=frozenset({"public"})) as server:
        code, document = await ask(server, "ann", "secret", scope=PULL + ",push")
        assert code == 200
        assert granted(server, document) == {"org/app": frozenset({"pull"})}
        _, document = await ask(server, "ann", "secret", scope="repository:other:pull")
        assert granted(server, document) == {"other": frozenset()}
        _, document = await ask(server, "root", "toor", scope=PULL + ",push")
        assert granted(server, document) == {"org/app": frozenset({"pull", "push"})}
        _, document = await ask(server, scope="repository:public:pull")
        assert granted(server, document) == {"public": frozenset({"pull"})}
        _, document = await ask(server, scope=PULL)
        assert granted(server, document) == {"org/app": frozenset()}
        assert len(server.requests) == 5


@pytest.mark.parametrize(("user", "password"), [("ann", "wrong"), ("nobody", "secret")])
async def test_refuses_who_it_does_not_know(user: str, password: str) -> None:
    async with TokenServer(ACCOUNTS) as server:
        assert (await ask(server, user, password, scope=PULL))[0] == 401
        assert (await post(server, grant_type="refresh_token", refresh_token="x"))[0] == 401
        wrong = {"grant_type": "password", "username": user, "password": password}
        assert (await post(server, **wrong, scope=PULL))[0] == 401
        assert server.issued == []


async def test_forms() -> None:
    async with TokenServer(ACCOUNTS) as server:
        for form in (
            {"grant_type": "refresh_token", "refresh_token": "secret"},
            {"grant_type": "password", "username": "ann", "password": "secret"},
        ):
            code, document = await post(server, **form, scope=PULL)
            assert code == 200
            assert granted(server, document) == {"org/app": frozenset({"pull"})}
        server.manner.post = False
        assert (await post(server, grant_type="password"))[0] == 405


async def test_manners() -> None:
    async with TokenServer(ACCOUNTS) as server:
        server.manner.token_field = "access_token"
        server.manner.says_lifetime = False
        _, document = await ask(server, "ann", "secret")
        assert set(document) == {"access_token", "issued_at"}
        server.manner.token_field = "both"
        server.manner.says_lifetime = True
        server.manner.lifetime = 42
        _, document = await ask(server, "ann", "secret")
        assert document["token"] == document["access_token"]
        assert document["expires_in"] == 42
        server.manner.status = 503
        assert (await ask(server, "ann", "secret"))[0] == 503


async def test_expired_revoked_and_forged_tokens_are_told_apart_from_good_ones() -> None:
    async with TokenServer() as server, TokenServer() as other:
        access = {"org/app": frozenset({"pull"})}
        assert server.verify(server.sign(access)) == access
        assert server.verify(server.sign(access, lifetime=-1)) is None
        assert server.verify(other.sign(access)) is None
        assert server.verify("") is None
        token = server.sign(access)
        server.revoke_all()
        assert server.verify(token) is None
        assert server.verify(server.sign(access)) == access
