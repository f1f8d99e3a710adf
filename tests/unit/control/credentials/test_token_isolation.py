"""Whatever happens in whatever order: a token serves what it was obtained for, and nothing else."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.control.connections.sealing import KeyRing, Sealer
from facade.control.credentials.cache.redis import bound_to, name_of
from facade.control.credentials.model import Prepared
from facade.control.credentials.tokens import TokenKey, TokenKind
from facade.errors import FacadeError, Integrity
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Connection, Scope
from tests.support.broker import Parts, broker_parts, header_of
from tests.support.clock import settle
from tests.support.control import connect

TEXT = st.sampled_from(["", "a", "b", "a,b", '"', '["a"]', "a\x1fb"]) | st.text(max_size=3)
KEYS = st.builds(
    TokenKey,
    kind=st.sampled_from(TokenKind),
    connection_id=TEXT,
    revision=st.integers(1, 12),
    origin=TEXT,
    realm=TEXT,
    service=TEXT,
    repository=TEXT,
    actions=st.lists(TEXT, max_size=2).map(tuple),
    scope=TEXT,
)
SEALER = Sealer(KeyRing.generate(), "tokens")
PARTS = ("connection_id", "origin", "realm", "service", "repository", "scope")


@given(one=KEYS, other=KEYS)
def test_two_keys_never_share_a_name_in_redis(one: TokenKey, other: TokenKey) -> None:
    assert (name_of(one) == name_of(other)) == (one == other)
    assert (bound_to(one) == bound_to(other)) == (one == other)


@given(key=KEYS, part=st.sampled_from(PARTS), more=st.text(min_size=1, max_size=3))
def test_what_is_sealed_for_a_key_opens_for_no_neighbour(
    key: TokenKey, part: str, more: str
) -> None:
    sealed = SEALER.seal("token", bound_to(key))
    assert SEALER.open(sealed, bound_to(key)) == "token"
    neighbours = [
        replace(key, **{part: getattr(key, part) + more}),
        replace(key, revision=key.revision + 1),
        replace(key, actions=(*key.actions, more)),
    ]
    for neighbour in neighbours:
        with pytest.raises(Integrity):
            SEALER.open(sealed, bound_to(neighbour))


@pytest.mark.parametrize("seed", range(8))
async def test_over_random_histories_each_token_is_presented_where_it_belongs(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    async with broker_parts(tmp_path) as parts:
        parts.service.lifetime = lambda: rng.choice([5.0, 60.0, 300.0])
        history = History(parts, rng)
        for host in ("a.example", "b.example", "c.example"):
            await history.add(host)
        for _ in range(400):
            await history.step()
        assert history.presented > 150


class History:
    """Operators and devices at random; every token that comes out is looked at."""

    def __init__(self, parts: Parts, rng: random.Random) -> None:
        self._parts = parts
        self._rng = rng
        self._passwords: dict[str, str] = {}
        self._connections: dict[str, Connection] = {}
        self._last: dict[str, str] = {}
        self._count = 0
        self.presented = 0

    async def add(self, host: str) -> None:
        self._passwords[host] = self._next_password()
        self._connections[host] = await connect(
            self._parts.store, host, secret=self._passwords[host]
        )

    async def step(self) -> None:
        rng, host = self._rng, self._rng.choice(list(self._passwords))
        what = rng.random()
        if what < 0.05:
            self._passwords[host] = self._next_password()
            fields = {"secret": Secret(self._passwords[host])}
            changed = await self._parts.store.change(
                RegistryHost.parse(host), prepared=Prepared("robot", fields)
            )
            if rng.random() < 0.5:  # the serving side may still have the older snapshot
                self._connections[host] = changed.connection
        elif what < 0.08:
            await self._parts.store.remove(RegistryHost.parse(host))
            await self.add(host)
        elif what < 0.25:
            self._parts.clock.advance(rng.choice([0.5, 5, 50, 250]))
            await settle()
        else:
            await self._ask(host)

    async def _ask(self, host: str) -> None:
        rng = self._rng
        repository = rng.choice(["org/one", "org/two", "org/three"])
        scope = Scope(Repository.parse(repository), rng.choice([("pull",), ("pull", "push")]))
        realm = f"https://{host}/{rng.choice(['token', 'other'])}"
        challenge = (Challenge("bearer", {"realm": realm}),) if rng.random() < 0.5 else ()
        refused = self._last.get(host) if rng.random() < 0.1 else None
        try:
            got = await self._parts.broker.authorization(
                self._connections[host], scope, challenge=challenge, refused=refused
            )
        except FacadeError:
            return
        header = header_of(got)
        if header is None:
            return
        self._last[host] = got.id
        token = header.removeprefix("Bearer ")
        asked = self._parts.service.asked[int(token.removeprefix("token-")) - 1]
        assert asked.host == host
        assert asked.scope == str(scope)
        assert asked.password == self._passwords[host]
        assert asked.realm.startswith(f"https://{host}/")
        if challenge:
            assert asked.realm == realm
        assert self._parts.clock.time() < self._parts.service.ends[token]
        self.presented += 1

    def _next_password(self) -> str:
        self._count += 1
        return f"password-{self._count}"
