"""Round robin between askers, first come first served within one, and work that is shared."""

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.errors import Unavailable
from facade.serving.pulls.admission import Slots, upstream_overloaded
from tests.support.clock import FakeClock, settle

Work = tuple[str, int]


def slots(limit: int, clock: FakeClock | None = None) -> Slots[str]:
    return Slots(limit, wait_seconds=30, clock=clock or FakeClock(), refusal=upstream_overloaded)


async def served(bound: Slots[str], wanted: list[Work]) -> list[Work]:
    """The order in which `wanted`, all queued behind one holder, get the only slot."""
    order: list[Work] = []

    async def fetch(work: Work) -> None:
        async with bound.hold("c", work[0], work):
            order.append(work)
            await asyncio.sleep(0)

    await bound.acquire("c", "first")
    tasks = [asyncio.create_task(fetch(work)) for work in wanted]
    await settle()
    bound.release("c")
    await asyncio.gather(*tasks)
    assert bound.keys == 0
    return order


async def test_a_device_that_queued_sixty_keeps_no_other_from_its_first() -> None:
    wanted = [("greedy", number) for number in range(60)] + [("modest", 0), ("modest", 1)]
    order = await served(slots(1), wanted)
    assert order[:4] == [("greedy", 0), ("modest", 0), ("greedy", 1), ("modest", 1)]
    assert order[4:] == [("greedy", number) for number in range(2, 60)]


@given(st.lists(st.sampled_from("abcde"), max_size=40))
def test_between_two_turns_of_one_asker_every_other_has_at_most_one(askers: list[str]) -> None:
    wanted = [(asker, number) for number, asker in enumerate(askers)]
    order = asyncio.run(_served_alone(wanted))
    assert sorted(order) == sorted(wanted)
    for asker in set(askers):
        turns = [at for at, work in enumerate(order) if work[0] == asker]
        numbers = [order[at][1] for at in turns]
        assert numbers == sorted(numbers)
        for first, second in zip([-1, *turns], turns, strict=False):
            others = [work[0] for work in order[first + 1 : second]]
            assert len(others) == len(set(others))


async def _served_alone(wanted: list[Work]) -> list[Work]:
    return await served(slots(1), wanted)


class Model:
    """What slots should do, in the plainest words."""

    def __init__(self, limit: int) -> None:
        self.free = limit
        self.lines: dict[str, deque[int]] = {}

    def ask(self, asker: str, number: int) -> list[int]:
        if self.free:
            self.free -= 1
            return [number]
        self.lines.setdefault(asker, deque()).append(number)
        return []

    def leave(self, asker: str, number: int) -> None:
        self.lines[asker].remove(number)
        if not self.lines[asker]:
            del self.lines[asker]

    def give_back(self) -> list[int]:
        if not self.lines:
            self.free += 1
            return []
        asker = next(iter(self.lines))
        line = self.lines.pop(asker)
        number = line.popleft()
        if line:
            self.lines[asker] = line
        return [number]


@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9))))
def test_any_order_of_coming_leaving_and_giving_back(
    limit: int, steps: list[tuple[str, int]]
) -> None:
    """`steps`: an asker comes (0-4), somebody who holds gives back (5-7), who waits leaves (8-9)."""
    asyncio.run(_against_the_model(limit, steps))


async def _against_the_model(limit: int, steps: list[tuple[str, int]]) -> None:
    bound, model = slots(limit), Model(limit)
    waiting: dict[int, tuple[str, asyncio.Task[None]]] = {}
    holding: list[int] = []
    for number, (asker, what) in enumerate(steps):
        if what <= 4:
            granted = model.ask(asker, number)
            task = asyncio.create_task(bound.acquire("c", asker, ("w", number)))
            waiting[number] = (asker, task)
        elif what <= 7 and holding:
            del holding[what % len(holding)]
            granted = model.give_back()
            bound.release("c")
        elif waiting:
            leaver = sorted(waiting)[what % len(waiting)]
            who, task = waiting.pop(leaver)
            model.leave(who, leaver)
            granted = []
            task.cancel()
        else:
            continue
        await settle()
        for winner in granted:
            assert waiting.pop(winner)[1].done()
            holding.append(winner)
        assert not any(task.done() for _, task in waiting.values())
        assert bound.held("c") == len(holding)
    for _, task in waiting.values():
        task.cancel()
    await settle()
    for _ in holding:
        bound.release("c")
    assert bound.keys == 0


async def test_work_that_another_wants_too_is_done_in_that_ones_turn() -> None:
    """B waits for what A queued as its third: it comes with B's first turn, not after A's second."""
    bound = slots(1)
    order: list[str] = []

    async def fetch(asker: str, work: str) -> None:
        async with bound.hold("c", asker, work):
            order.append(work)
            await asyncio.sleep(0)

    await bound.acquire("c", "z")
    tasks = [asyncio.create_task(fetch("a", work)) for work in ("one", "two", "three")]
    await settle()
    bound.join("c", "b", "three")
    bound.join("c", "b", "three")  # asking twice is no second turn
    bound.join("c", "b", "unknown")
    bound.join("nobody", "b", "three")
    bound.release("c")
    await asyncio.gather(*tasks)
    assert order == ["one", "three", "two"]
    assert bound.keys == 0


@pytest.mark.parametrize("how", ["refused", "cancelled"])
async def test_shared_work_that_gives_up_leaves_every_line(how: str) -> None:
    clock = FakeClock()
    bound = slots(1, clock)
    await bound.acquire("c", "z")
    task = asyncio.create_task(bound.acquire("c", "a", "shared"))
    await settle()
    bound.join("c", "b", "shared")
    if how == "refused":
        await clock.run_for(31)
        with pytest.raises(Unavailable):
            await task
    else:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    later = asyncio.create_task(bound.acquire("c", "b", "later"))
    await settle()
    bound.release("c")
    await later
    bound.release("c")
    assert bound.keys == 0
