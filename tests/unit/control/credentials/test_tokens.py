"""Token keys, lifetimes and the memory cache."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from facade.control.credentials.cache.memory import MemoryTokenCache
from facade.control.credentials.tokens import CachedToken, TokenKey, TokenKind
from facade.secret import Secret
from tests.support.clock import EPOCH, FakeClock

TEXT = st.sampled_from(["", "a", "b", "a,b", "ab"])
KEYS = st.builds(
    TokenKey,
    kind=st.sampled_from(TokenKind),
    connection_id=TEXT,
    revision=st.integers(1, 3),
    origin=TEXT,
    realm=TEXT,
    service=TEXT,
    repository=TEXT,
    actions=st.lists(TEXT, max_size=2).map(tuple),
    scope=TEXT,
)


def _token(life: float, token_id: str = "id", issued_at: float = EPOCH) -> CachedToken:
    return CachedToken(token_id, Secret("s"), issued_at, issued_at + life)


@given(one=KEYS, other=KEYS)
async def test_a_token_is_found_under_its_own_key_only(one: TokenKey, other: TokenKey) -> None:
    cache = MemoryTokenCache(FakeClock())
    token = _token(60)
    await cache.put(one, token)
    assert await cache.get(one) == token
    same = dataclasses.asdict(one) == dataclasses.asdict(other)
    assert (await cache.get(other) is not None) == same


@given(life=st.floats(0.1, 1e6), share=st.floats(0, 1.5), chance=st.floats(0, 0.999))
def test_a_token_is_due_before_it_is_unusable(life: float, share: float, chance: float) -> None:
    token = _token(life, issued_at=0.0)
    now = life * share
    assert token.usable(now) == (now < life - min(5.0, life / 4))
    if not token.usable(now):
        assert token.due(now, chance)
    assert not token.due(0.0, chance), "not when it is brand-new, however short its life"


def test_the_margin_is_a_tenth_and_at_least_half_a_minute() -> None:
    hour, minutes = _token(3600, issued_at=0.0), _token(100, issued_at=0.0)
    assert [hour.due(now, 0.0) for now in (3239, 3240)] == [False, True]
    assert [minutes.due(now, 0.0) for now in (69, 70)] == [False, True]
    assert hour.due(3170, 0.99), "jitter brings it forward"


async def test_the_cache_is_bounded_and_drops_the_longest_unused() -> None:
    cache = MemoryTokenCache(FakeClock(), max_tokens=2)
    keys = [TokenKey(TokenKind.CLOUD, name, 1, "") for name in "abc"]
    await cache.put(keys[0], _token(60))
    await cache.put(keys[1], _token(60))
    await cache.get(keys[0])
    await cache.put(keys[2], _token(60))
    assert [await cache.get(key) is not None for key in keys] == [True, False, True]


async def test_setting_the_wall_clock_back_revives_no_token() -> None:
    clock = FakeClock()
    cache = MemoryTokenCache(clock)
    key = TokenKey(TokenKind.CLOUD, "a", 1, "")
    await cache.put(key, _token(60))
    clock.advance(61)
    clock.shift(-3600)
    assert await cache.get(key) is None


async def test_only_the_named_token_is_dropped() -> None:
    cache = MemoryTokenCache(FakeClock())
    key = TokenKey(TokenKind.CLOUD, "a", 1, "")
    await cache.put(key, _token(60, "new"))
    await cache.drop(key, "old")
    assert await cache.get(key) is not None
    await cache.drop(key, "new")
    assert await cache.get(key) is None


async def test_forgetting_a_connection_leaves_the_others() -> None:
    cache = MemoryTokenCache(FakeClock())
    keys = [TokenKey(TokenKind.CLOUD, name, 1, "") for name in "ab"]
    for key in keys:
        await cache.put(key, _token(60))
    cache.forget("a")
    assert [await cache.get(key) is not None for key in keys] == [False, True]
