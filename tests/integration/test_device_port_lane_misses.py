"""The short way of a blob that has to be fetched first: with it and without, the same answer or the same
refusal, the same requests to the registry, and the same is written down.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from facade.clock import on_the_beat
from facade.oci.digest import Digest
from facade.reasons import Reason
from facade.serving.api.understood import MAX_KNOWN
from facade.serving.identity.limits import TlsLimits
from facade.serving.pulls.rates import Rates
from facade.upstream.retry import Timeouts
from tests.support.both_ways import Outcome, Story, all_in_turn, both, half_same, quiet, same, told
from tests.support.facade_app import FacadeApp, Tuning
from tests.support.image import with_two_sizes
from tests.support.lanes import CONFIG, IMAGE, LAYER, PAYLOAD, SECONDS, Bench
from tests.support.misbehaviour import (
    Misbehaviour,
    corrupt,
    drop,
    held,
    rate_limited,
    redirect,
    slow_head,
    status,
    trickle,
    wrong_length,
)
from tests.support.pki import client_context
from tests.support.registry import Registry

DEVICE = ("dev", "kiosk-7")
BLOB = f"*/blobs/{LAYER}"
WORDS_ALONE = ("config",)
"""Asked for before: another blob, in the same words. The one that the stories are about is nowhere yet."""
UNKNOWN = Digest.of(b"signed by nobody")


async def fetched(tmp_path: Path, story: Story, tuning: Tuning | None = None) -> Outcome:
    """What the story comes to, both ways; the HTTP server saw none of it with a lane."""
    short, long = await same(tmp_path, story, tuning=tuning or Tuning(), before=WORDS_ALONE)
    assert short.asked == 0
    assert long.asked > 0
    return short


async def test_a_blob_that_is_nowhere_then_in_the_store_then_open(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        got = []
        for _ in range(3):
            async with bench.wire() as wire:
                got += await all_in_turn(wire, bench.get("blobs"))
            await bench.facade.settled()
        assert all(each.endswith(PAYLOAD) for each in got)
        return got

    outcome = await fetched(tmp_path, story)
    assert [line["cache"] for line in outcome.lines] == ["miss", "hit", "hit"]
    assert len(outcome.fetched) == 1


async def test_one_connection_after_the_other_answer(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        unsigned = bench.get("blobs").replace(LAYER.hex.encode(), UNKNOWN.hex.encode())
        async with bench.wire() as wire:
            return await all_in_turn(
                wire, unsigned, bench.get("blobs"), unsigned, bench.get("config"), unsigned
            )

    outcome = await told_short(tmp_path, story)
    assert [line["outcome"] for line in outcome.lines if "outcome" in line] == [
        "refused",
        "served",
        "refused",
        "served",
        "refused",
    ]


async def told_short(tmp_path: Path, story: Story) -> Outcome:
    """As `fetched`; what is refused at once still goes to the HTTP server."""
    short, long = await same(tmp_path, story, before=WORDS_ALONE)
    assert short.asked < long.asked
    return short


async def test_those_who_join(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        gate = asyncio.Event()
        bench.registry.script(BLOB, held(gate))
        async with contextlib.AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(bench.wire()) for _ in range(4)]
            for number, wire in enumerate(wires, 1):
                wire.writer.write(bench.get("blobs"))
                await running(bench, number)
            gate.set()
            return list(await asyncio.gather(*(wire.verbatim() for wire in wires)))

    outcome = await fetched(tmp_path, story)
    assert sorted(line["cache"] for line in outcome.lines) == ["join", "join", "join", "miss"]
    assert len(outcome.fetched) == 1


async def waiting(bench: Bench) -> None:
    """Return when the registry is asked for the one blob, and whoever wants it knows."""
    async with asyncio.timeout(SECONDS):
        while not bench.registry.count(BLOB):  # noqa: ASYNC110 - real sockets
            await asyncio.sleep(0.002)
    await asyncio.sleep(0.05)


async def running(bench: Bench, count: int) -> None:
    async with asyncio.timeout(SECONDS):
        while bench.facade.guard.running < count:  # noqa: ASYNC110 - real sockets
            await asyncio.sleep(0.002)


REFUSED_UPSTREAM: dict[str, tuple[Misbehaviour, int]] = {
    "not there": (status(404), 404),
    "unauthorised": (status(401), 502),
    "forbidden": (status(403), 502),
    "out of order": (status(500), 502),
    "unavailable": (status(503, headers=(("Retry-After", "60"),)), 502),
    "limited": (rate_limited("60"), 429),
    "gone": (drop(), 504),
    "silent": (slow_head(3.0), 504),
    "elsewhere": (redirect("http://169.254.169.254/latest"), 504),
    "too long": (wrong_length(5), 502),
}


@pytest.mark.parametrize("trouble", REFUSED_UPSTREAM)
async def test_what_the_registry_does_wrong_before_the_first_byte(
    tmp_path: Path, trouble: str
) -> None:
    change, expected = REFUSED_UPSTREAM[trouble]

    async def story(bench: Bench) -> list[bytes]:
        bench.registry.script(BLOB, change)
        async with bench.wire() as wire:
            first = await all_in_turn(wire, bench.get("blobs"))
            # The connection goes on, with a blob that is there.
            second = await all_in_turn(wire, bench.get("config"))
        assert int(first[0][9:12]) == expected, first
        return first + second

    # A busy machine takes a second for an answer too: only where that is what is tried, it is too long.
    timeouts = Timeouts(first_byte=1.0) if trouble == "silent" else Timeouts()
    outcome = await fetched(tmp_path, story, Tuning(timeouts=timeouts))
    (refused, _served) = [line for line in outcome.lines if line["event"] == "request"]
    assert (refused["status"], refused["outcome"]) == (expected, "refused")


@pytest.mark.parametrize("change", [corrupt(at=10), corrupt(at=len(PAYLOAD) - 1)])
async def test_what_the_registry_does_wrong_later_cuts_the_answer(
    tmp_path: Path, change: Misbehaviour
) -> None:
    async def story(bench: Bench) -> list[bytes]:
        bench.registry.script(BLOB, change)
        async with bench.wire() as wire:
            wire.writer.write(bench.get("blobs"))
            assert len(await wire.rest()) < len(PAYLOAD)
        await bench.facade.settled()
        return []

    short, long = await half_same(tmp_path, story, before=WORDS_ALONE)
    assert short == long
    assert [outcome for _role, outcome, *_ in short] == ["cut"]


async def test_what_was_wrong_a_moment_ago_is_refused_in_the_same_words(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        bench.registry.script(f"*/blobs/{CONFIG}", corrupt())
        await bench.facade.store.remove(CONFIG)
        got = []
        for _ in range(2):
            async with bench.wire() as wire:
                got += await all_in_turn(wire, bench.get("config"))
        return got

    async with Registry() as registry:
        short, long = [
            await told(story, tmp_path / str(lanes), registry, lanes=lanes, before=WORDS_ALONE)
            for lanes in (True, False)
        ]
    # How long it is to wait is a matter of the moment.
    first, second = (
        [re.sub(rb"(?<=Retry-After: )\d+", b"*", each) for each in one.got] for one in (short, long)
    )
    assert first == second
    assert all(b" 502 " in each for each in first)
    assert (short.asked, long.asked) == (0, 2)
    assert short.pulled == long.pulled


def _revoke(bench: Bench) -> None:
    bench.facade.control.revoke(*DEVICE, bench.facade.clock.time())


def _disconnect(bench: Bench) -> None:
    bench.facade.control.disconnect(bench.registry.host)


async def _withdraw(bench: Bench) -> None:
    await bench.facade.withdraw(bench.target)
    await bench.facade.refresher.refresh()


@pytest.mark.parametrize("happens", [_revoke, _disconnect, _withdraw])
async def test_what_ends_a_permission_ends_the_waiting(
    tmp_path: Path, happens: Callable[[Bench], Awaitable[None] | None]
) -> None:
    async def story(bench: Bench) -> list[bytes]:
        async with bench.wire() as wire:  # learnt here
            wire.writer.write(bench.get("config", "Connection: close"))
            await wire.rest()
        gate = asyncio.Event()
        bench.registry.script(BLOB, held(gate))
        async with bench.wire() as wire:
            wire.writer.write(bench.get("blobs", "Connection: close"))
            await waiting(bench)
            if (done := happens(bench)) is not None:
                await done
            got = await wire.rest()
            await quiet(bench.facade)
            gate.set()
        await bench.facade.settled()
        return [got]

    short, long = await same(tmp_path, story, before=WORDS_ALONE)
    assert long.asked - short.asked == 1
    line = [line for line in short.lines if line["event"] == "request"][-1]
    assert (line["outcome"], line["bytes"]) == ("refused", 0)
    assert b" 200 " not in short.got[0]


async def test_a_device_revoked_just_before_the_first_byte_is_told_so(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        gate = asyncio.Event()
        bench.registry.script(BLOB, held(gate))
        async with bench.wire() as wire:
            wire.writer.write(bench.get("blobs"))
            await running(bench, 1)
            await on_the_beat(bench.facade.clock, 1.0)
            await asyncio.sleep(0.1)  # the guard's next round is not sooner than what follows
            _revoke(bench)
            gate.set()
            got = await wire.verbatim()
        await bench.facade.settled()
        return [got]

    async with Registry() as registry:
        for lanes in (True, False):
            folder = tmp_path / str(lanes)
            one = await told(story, folder, registry, lanes=lanes, before=WORDS_ALONE)
            assert b" 403 " in one.got[0]
            assert b"device-revoked" in one.got[0]
            assert one.pulled[0][3:5] == ("refused", Reason.DEVICE_REVOKED)
            assert one.asked == (0 if lanes else 1)


@pytest.mark.parametrize("more", [b"", b"GET /v2/ HTTP/1.1\r\n", b"blob"])
@pytest.mark.parametrize("politely", [True, False])
async def test_a_device_that_leaves_while_it_waits(
    tmp_path: Path, more: bytes, politely: bool
) -> None:
    async def story(bench: Bench) -> list[bytes]:
        gate = asyncio.Event()
        bench.registry.script(BLOB, held(gate))
        async with bench.wire() as wire:
            wire.writer.write(bench.get("blobs"))
            await waiting(bench)
            wire.writer.write(bench.get("blobs") if more == b"blob" else more)
            await wire.writer.drain()
            if politely:
                wire.writer.close()
        await quiet(bench.facade)  # its slots are free, with the registry still thinking
        assert bench.facade.pulls.streams.total == 0
        gate.set()
        await bench.facade.settled()
        return []

    outcome = await fetched(tmp_path, story)
    (line,) = outcome.lines
    assert (line["outcome"], line["status"], line["bytes"]) == ("left", 499, 0)


@pytest.mark.parametrize("which", ["requests", "streams", "transfers"])
async def test_who_waits_too_long_for_a_slot_is_refused(tmp_path: Path, which: str) -> None:
    async def story(bench: Bench) -> list[bytes]:
        gate = asyncio.Event()
        bench.registry.script(BLOB, held(gate))
        async with bench.wire() as first, bench.wire() as second:
            first.writer.write(bench.get("blobs"))
            await running(bench, 1)
            await bench.facade.store.remove(CONFIG)
            got = await all_in_turn(second, bench.get("config"))
            gate.set()
            got.append(await first.verbatim())
            assert (b" 503 " in got[0], got[1].endswith(PAYLOAD)) == (True, True)
            got += await all_in_turn(second, bench.get("config"))
        return got

    tuning = {
        "requests": Tuning(wait_seconds=0.3, requests=1),
        "streams": Tuning(wait_seconds=0.3, streams=1),
        "transfers": Tuning(wait_seconds=0.3, transfers=1),
    }[which]
    await fetched(tmp_path, story, tuning)


@pytest.mark.parametrize(
    "rates",
    [Rates(requests_per_second=1.0), Rates(bytes_per_second=1000.0), Rates(bytes_per_day=500)],
)
async def test_who_is_beyond_its_rate_is_refused(tmp_path: Path, rates: Rates) -> None:
    async def story(bench: Bench) -> list[bytes]:
        accounts = bench.facade.pulls.rates
        assert accounts is not None
        spent = [accounts.request(DEVICE) for _ in range(40)]
        spent += [accounts.sent(DEVICE, 2_000_000)]
        tasks = [asyncio.create_task(each) for each in spent]
        await asyncio.sleep(0)
        async with bench.wire() as wire:
            got = await all_in_turn(wire, bench.get("blobs"))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert b" 429 " in got[0]
        # How long it is to wait is a matter of the moment.
        return [re.sub(rb"(?<=Retry-After: )\d+", b"*", each) for each in got]

    await fetched(tmp_path, story, Tuning(wait_seconds=0.1, rates=rates))


async def test_who_is_at_its_rate_waits(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        loop = asyncio.get_running_loop()
        async with bench.wire() as wire:
            began = loop.time()
            got = await all_in_turn(wire, bench.get("blobs"))
            assert loop.time() - began > 0.5
        return got

    # 8 MB at 5 MB a second, of which the first 5 MB go at once.
    tuning = Tuning(rates=Rates(bytes_per_second=5e6))
    short, long = await both(tmp_path, story, tuning=tuning, before=WORDS_ALONE)
    assert short.got == long.got
    assert short.pulled == long.pulled
    assert (short.asked, long.asked) == (0, 1)


async def test_a_blob_whose_size_the_registry_has_to_say(tmp_path: Path) -> None:
    odd = with_two_sizes(IMAGE)
    async with bench_alone(tmp_path) as bench:
        await words(bench)
        await bench.facade.sign(bench.registry, "org/app", odd, name="odd")
        async with bench.wire() as wire:
            for digest in odd.manifests:  # the walk knows both sizes before the blob is asked for
                asked = bench.get().replace(IMAGE.index.hex.encode(), digest.hex.encode())
                await wire.ask(asked)
        async with bench.wire() as wire:
            assert (await bench.short_way(wire, bench.get("blobs")))[1] == PAYLOAD
    assert bench.registry.count(BLOB, "HEAD") == 1


async def test_a_registry_slower_than_the_limit_on_idle_connections(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        bench.registry.script(BLOB, slow_head(1.2))
        async with bench.wire() as wire:
            return await all_in_turn(wire, bench.get("blobs"))

    outcome = await fetched(tmp_path, story, Tuning(tls=TlsLimits(idle_seconds=0.3)))
    assert outcome.got[0].endswith(PAYLOAD)


async def test_a_blob_that_comes_in_drops(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        bench.registry.script(f"*/blobs/{CONFIG}", trickle(20, 0.01))
        await bench.facade.store.remove(CONFIG)
        async with bench.wire() as wire:
            return await all_in_turn(wire, bench.get("config"))

    await fetched(tmp_path, story)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_who_wants_no_further_answer_is_closed_after_a_refusal_too(
    tmp_path: Path, version: str
) -> None:
    async def story(bench: Bench) -> list[bytes]:
        words = ("Connection: close",) if version == "1.1" else ()
        async with bench.wire() as wire:  # learnt here
            wire.writer.write(bench.get("config", *words, v=version))
            await wire.rest()
        bench.registry.script(BLOB, status(404))
        async with bench.wire() as wire:
            wire.writer.write(bench.get("blobs", *words, v=version))
            return [await wire.rest()]

    short, long = await same(tmp_path, story, before=WORDS_ALONE)
    assert long.asked - short.asked == 1
    assert b" 404 " in short.got[0]


async def test_what_comes_while_it_is_waited_for_is_answered_after_it(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        gate = asyncio.Event()
        bench.registry.script(BLOB, held(gate))
        async with bench.wire() as wire:
            wire.writer.write(bench.get("blobs"))
            await running(bench, 1)
            for request in (bench.get(), bench.get("config"), bench.get()):
                wire.writer.write(request)
                await wire.writer.drain()
                await asyncio.sleep(0.02)
            gate.set()
            got = [await wire.verbatim() for _ in range(4)]
            await bench.facade.settled()
            return [*got, *await all_in_turn(wire, bench.get(), bench.get("blobs"))]

    short, long = await same(tmp_path, story, before=WORDS_ALONE)
    assert short.asked < long.asked


async def test_a_drain_lets_who_waits_be_answered(tmp_path: Path) -> None:
    async with bench_alone(tmp_path) as bench, bench.wire() as wire:
        await words(bench)
        gate = asyncio.Event()
        bench.registry.script(BLOB, held(gate))
        wire.writer.write(bench.get("blobs"))
        await running(bench, 1)
        finished = asyncio.create_task(bench.facade.app.finish(SECONDS))
        await asyncio.sleep(0.05)
        assert not finished.done()
        gate.set()
        assert (await wire.answer())[1] == PAYLOAD
        assert await wire.ended()
        await finished


async def test_a_drain_that_takes_too_long_cuts_who_waits(tmp_path: Path) -> None:
    async with bench_alone(tmp_path) as bench, bench.wire() as wire:
        await words(bench)
        gate = asyncio.Event()
        bench.registry.script(BLOB, held(gate))
        wire.writer.write(bench.get("blobs"))
        await running(bench, 1)
        await bench.facade.app.finish(0.1)
        assert bench.reports[-1].outcome == "left"
        assert await wire.rest() == b""
        gate.set()


@asynccontextmanager
async def bench_alone(tmp_path: Path) -> AsyncIterator[Bench]:
    async with FacadeApp(tmp_path) as facade, Registry() as registry:
        target = await facade.sign(registry, "org/app", IMAGE)
        context = client_context(facade.server_ca, facade.ca.device())
        yield Bench(facade, registry, target, context)


async def words(bench: Bench, *headers: str) -> None:
    async with bench.wire() as wire:
        await bench.long_way(wire, bench.get("config", *headers))


# Which words are known by others.


async def is_known(bench: Bench, request: bytes) -> bool:
    """Whether a lane answers it; that it is answered as the HTTP server does, the stories say."""
    before = bench.facade.http_server.requests_count
    async with bench.wire() as wire:
        wire.writer.write(request)
        with contextlib.suppress(asyncio.IncompleteReadError):
            await wire.verbatim(body=not request.startswith(b"HEAD"))
    await quiet(bench.facade)
    return bench.facade.http_server.requests_count == before


HEX, OTHER_HEX = LAYER.hex.encode(), CONFIG.hex.encode()


async def test_nothing_but_the_digest_may_differ(tmp_path: Path) -> None:
    async with bench_alone(tmp_path) as bench:
        await words(bench)
        right = bench.get("blobs")
        for odd in (
            right.replace(HEX, HEX.upper()),
            right.replace(HEX, HEX[:-1]),
            right.replace(HEX, HEX + b"0"),
            right.replace(HEX, HEX[:-1] + b" "),
            right.replace(HEX, HEX[:-1] + b"?"),
            right.replace(HEX, HEX[:-1] + b"/"),
            right.replace(HEX, b"%" + HEX[:2] + HEX[3:]),
            right.replace(HEX[:1], b"%%%02x" % HEX[0], 1),
            right.replace(b"sha256:", b"sha256%3A"),
            right.replace(b"sha256:", b"sha512:"),
            right.replace(HEX, HEX + HEX),
            right.replace(HEX, HEX + b"?ns=" + HEX),
            right.replace(HEX, HEX + b"#" + HEX),
            right.replace(b"Host: x", b"Host: " + HEX),
            right.replace(b"\r\n\r\n", b"\r\nX: " + HEX + b"\r\n\r\n"),
            right.replace(b"/blobs/", b"/manifests/"),
            right.replace(b"/blobs/", b"//blobs/"),
            right.replace(b"GET ", b"HEAD "),
            right.replace(b"HTTP/1.1", b"HTTP/1.0"),
            right + right,
            right + right[:20],
            right + b"\r\n",
            b"\r\n" + right,
        ):
            assert not await is_known(bench, odd), odd
            assert await is_known(bench, right)


@pytest.mark.parametrize(
    "learnt",
    [
        lambda words: words.replace(b"sha256:", b"sha256%3A"),
        lambda words: words.replace(OTHER_HEX[:1], b"%%%02x" % OTHER_HEX[0], 1),
        lambda words: words.replace(b"Host: x", b"Host: " + OTHER_HEX),
        lambda words: words.replace(OTHER_HEX, OTHER_HEX + b"?x=" + OTHER_HEX),
        lambda words: words.replace(OTHER_HEX, OTHER_HEX + b"#x"),
        lambda words: words.replace(b"org/app", b"org/a%70p"),
        lambda words: words.replace(b"GET /", b"GET http://x/"),
        lambda words: words.replace(b"\r\n\r\n", b"\r\nRange: bytes=0-5\r\n\r\n"),
        lambda words: words.replace(b"\r\n\r\n", b'\r\nIf-None-Match: "sha256:%b"\r\n\r\n' % HEX),
    ],
)
async def test_what_is_not_plain_is_not_known_with_another_digest(
    tmp_path: Path, learnt: Callable[[bytes], bytes]
) -> None:
    async with bench_alone(tmp_path) as bench:
        asked = learnt(bench.get("config"))
        async with bench.wire() as wire:
            for _ in range(2):
                head, _body = await bench.long_way(wire, asked)
                assert head[""].split()[1] in ("200", "206")
        assert not await is_known(bench, asked.replace(OTHER_HEX, HEX))


async def test_words_with_a_query_are_known_with_another_digest(tmp_path: Path) -> None:
    async with bench_alone(tmp_path) as bench:
        host = str(bench.registry.host).encode()

        def asked(kind: str) -> bytes:
            return bench.get(kind).replace(b" HTTP/", b"?ns=" + host + b" HTTP/")

        async with bench.wire() as wire:
            await bench.long_way(wire, asked("config"))
            _head, body = await bench.short_way(wire, asked("blobs"))
        assert body == PAYLOAD
        # Another registry's name is another request.
        assert not await is_known(bench, asked("blobs").replace(host, b"127.0.0.1:1"))


async def test_what_one_fleet_may_have_is_not_given_to_another_in_its_words(
    tmp_path: Path,
) -> None:
    async with bench_alone(tmp_path) as bench:
        await words(bench)
        bench.context = client_context(
            bench.facade.server_ca, bench.facade.ca.device("other", "till-1")
        )
        async with bench.wire() as wire:
            head, body = await wire.ask(bench.get("blobs"))
        assert "403" in head[""]
        assert b"not-signed" in body
        assert bench.registry.count(BLOB) == 0


async def test_how_many_words_of_blobs_are_remembered_is_bounded(tmp_path: Path) -> None:
    async with bench_alone(tmp_path) as bench, bench.wire() as wire:
        for number in range(MAX_KNOWN + 1):
            await bench.long_way(wire, bench.get("config", f"X-Number: {number}"))
        await bench.short_way(wire, bench.get("config", f"X-Number: {MAX_KNOWN}"))
        await bench.short_way(wire, bench.get("config", "X-Number: 1"))
        await bench.long_way(wire, bench.get("config", "X-Number: 0"))
