"""Handshakes under way: bounded by address, and the greediest makes room."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.serving.identity.half_open import HalfOpen, source


class Hanging:
    def __init__(self, half_open: HalfOpen, address: str) -> None:
        self.given_up = False
        self._address = address
        self._half_open = half_open
        half_open.begin(address, self)

    def give_up(self) -> None:
        self.given_up = True
        self._half_open.end(self._address, self)


def test_an_address_has_its_bound() -> None:
    half_open = HalfOpen(2)
    first, _second = Hanging(half_open, "a"), Hanging(half_open, "a")
    assert not half_open.admits("a")
    assert half_open.admits("b")
    half_open.end("a", first)
    half_open.end("a", first)
    assert half_open.admits("a")
    assert len(half_open) == 1


def test_the_oldest_of_the_greediest_makes_room() -> None:
    half_open = HalfOpen(10)
    modest = Hanging(half_open, "b")
    greedy = [Hanging(half_open, "a") for _ in range(3)]
    assert half_open.make_room("c")
    assert [one.given_up for one in greedy] == [True, False, False]
    assert not modest.given_up


def test_who_is_greediest_makes_no_room_for_itself() -> None:
    half_open = HalfOpen(10)
    greedy = [Hanging(half_open, "a") for _ in range(3)]
    modest = Hanging(half_open, "b")
    assert not half_open.make_room("a")
    assert half_open.make_room("b")
    assert not half_open.make_room("b")  # two and two: nobody is greedier
    assert not modest.given_up
    assert [one.given_up for one in greedy].count(True) == 1


def test_equals_do_not_push_each_other_out() -> None:
    half_open = HalfOpen(10)
    assert not half_open.make_room("a")
    first = Hanging(half_open, "a")
    assert not half_open.make_room("b")
    assert not first.given_up


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["come", "go", "room"]))))
def test_it_is_always_one_that_has_most(steps: list[tuple[str, str]]) -> None:
    half_open = HalfOpen(100)
    under_way: dict[str, list[Hanging]] = {address: [] for address in "abcd"}
    for address, step in steps:
        if step == "come":
            under_way[address].append(Hanging(half_open, address))
        elif step == "go" and under_way[address]:
            under_way[address].pop(0).give_up()
        elif step == "room":
            most = max(map(len, under_way.values()))
            expected = most > len(under_way[address]) + 1
            assert half_open.make_room(address) is expected
            given_up = [one for each in under_way.values() for one in each if one.given_up]
            assert len(given_up) == expected
            for each in under_way.values():
                if any(one.given_up for one in each):
                    assert len(each) == most
                    assert each.pop(0).given_up, "the oldest"
        assert len(half_open) == sum(map(len, under_way.values()))


def test_making_room_takes_no_longer_with_many_addresses() -> None:
    def seconds(addresses: int) -> float:
        half_open = HalfOpen(10)
        for number in range(addresses):
            Hanging(half_open, str(number))
        for _ in range(3):
            Hanging(half_open, "greedy")
        before = time.thread_time()
        for _ in range(2000):
            assert half_open.make_room("c")
            Hanging(half_open, "greedy")
        return time.thread_time() - before

    assert seconds(20_000) < 20 * seconds(20) + 0.2


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_what_counts_as_one_address(host: str, expected: str) -> None:
    assert source(host) == expected
