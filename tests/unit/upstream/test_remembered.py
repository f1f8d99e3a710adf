"""What a serving process may remember of authorizations, and for how long."""

from dataclasses import replace

import pytest

from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection, Scope
from facade.upstream.remembered import (
    HOLD_SECONDS,
    MARGIN_SECONDS,
    MAX_HELD,
    RememberingAuthorizer,
)
from tests.support.clock import FakeClock

CONNECTION = Connection("c1", RegistryHost.parse("registry.example"), "static")
SCOPE = Scope(Repository.parse("shop/app"))
BEARER = Challenge("bearer", {"realm": "https://registry.example/token"})


class Broker:
    """Gives a numbered header of the wanted kind; says how often it was asked."""

    def __init__(self, clock: FakeClock, kind: str | None, life: float | None) -> None:
        self.clock, self.kind, self.life = clock, kind, life
        self.asked: list[str | None] = []

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        self.asked.append(refused)
        name = f"t{len(self.asked)}"
        ends = None if self.life is None else self.clock.time() + self.life
        header = None if self.kind is None else Secret(f"{self.kind} {name}")
        return Authorization(header, name, ends)


class Stand:
    def __init__(self, kind: str | None, life: float | None) -> None:
        self.clock = FakeClock()
        self.broker = Broker(self.clock, kind, life)
        self.authorizer = RememberingAuthorizer(self.broker, self.clock)

    async def ask(
        self,
        connection: Connection = CONNECTION,
        scope: Scope = SCOPE,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> str:
        given = await self.authorizer.authorization(
            connection, scope, challenge=challenge, refused=refused
        )
        return given.id

    def known(self) -> str | None:
        given = self.authorizer.known(CONNECTION, SCOPE)
        return None if given is None else given.id


@pytest.mark.parametrize(("kind", "life"), [("Bearer", 300.0), (None, None)])
async def test_a_short_lived_answer_is_given_again_for_a_while(
    kind: str | None, life: float | None
) -> None:
    stand = Stand(kind, life)
    assert stand.known() is None
    assert [await stand.ask(), await stand.ask(), stand.known()] == ["t1", "t1", "t1"]
    stand.clock.advance(HOLD_SECONDS - 1)
    assert [await stand.ask(), stand.known()] == ["t1", "t1"]
    stand.clock.advance(1)
    assert stand.known() is None
    assert await stand.ask() == "t2"


@pytest.mark.parametrize(
    ("kind", "life"), [("Basic", None), ("Basic", 12 * 3600.0), ("Bearer", None)]
)
async def test_a_password_a_cloud_s_token_and_one_without_an_end_are_never_kept(
    kind: str, life: float | None
) -> None:
    stand = Stand(kind, life)
    assert [await stand.ask(), stand.known(), await stand.ask()] == ["t1", None, "t2"]


async def test_a_token_is_not_given_out_in_its_last_seconds() -> None:
    stand = Stand("Bearer", MARGIN_SECONDS + 10)
    assert await stand.ask() == "t1"
    stand.clock.advance(9)
    assert await stand.ask() == "t1"
    stand.clock.advance(1)
    assert await stand.ask() == "t2"


async def test_a_token_that_ends_at_once_is_not_given_again() -> None:
    stand = Stand("Bearer", MARGIN_SECONDS)
    assert [await stand.ask(), await stand.ask()] == ["t1", "t2"]


async def test_another_connection_revision_or_scope_asks_anew() -> None:
    stand = Stand("Bearer", 300.0)
    await stand.ask()
    others = (
        {"connection": replace(CONNECTION, id="c2")},
        {"connection": replace(CONNECTION, revision=2)},
        {"scope": Scope(Repository.parse("shop/other"))},
        {"scope": Scope(None)},
    )
    given = {
        await stand.ask(each.get("connection", CONNECTION), each.get("scope", SCOPE))  # type: ignore[arg-type]
        for each in others
    }
    assert given == {"t2", "t3", "t4", "t5"}


async def test_a_refused_token_is_asked_for_anew_and_not_given_to_others() -> None:
    stand = Stand("Bearer", 300.0)
    assert await stand.ask() == "t1"
    assert await stand.ask(refused="t1") == "t2"
    assert stand.broker.asked == [None, "t1"]
    assert await stand.ask() == "t2"


async def test_a_challenge_is_always_passed_on_and_its_answer_kept() -> None:
    stand = Stand(None, None)
    assert await stand.ask() == "t1"
    stand.broker.kind, stand.broker.life = "Bearer", 300.0
    assert await stand.ask(challenge=(BEARER,)) == "t2"
    assert await stand.ask() == "t2"


async def test_what_was_kept_goes_when_a_challenge_brings_a_password() -> None:
    stand = Stand(None, None)
    assert await stand.ask() == "t1"
    stand.broker.kind = "Basic"
    assert await stand.ask(challenge=(BEARER,)) == "t2"
    assert await stand.ask() == "t3"


async def test_only_so_many_are_kept() -> None:
    stand = Stand("Bearer", 300.0)
    for number in range(MAX_HELD + 1):
        await stand.ask(scope=Scope(Repository.parse(f"shop/app-{number}")))
    assert await stand.ask(scope=Scope(Repository.parse("shop/app-1"))) == "t2"
    assert await stand.ask(scope=Scope(Repository.parse("shop/app-0"))) == f"t{MAX_HELD + 2}"
