"""The short way of a blob: with it and without, a device gets the same bytes, and the same is written down."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from facade.reasons import Reason
from facade.serving.blobs.port import BLOCK_BYTES
from facade.serving.identity.limits import TlsLimits
from tests.support.both_ways import all_in_turn, both, half_same, quiet, same
from tests.support.facade_app import Tuning
from tests.support.lanes import LAYER, PAYLOAD, Bench
from tests.support.pki import client_context


@pytest.mark.parametrize(
    ("version", "headers"), [("1.1", ()), ("1.0", ("Connection: keep-alive",))]
)
async def test_one_after_the_other(tmp_path: Path, version: str, headers: tuple[str, ...]) -> None:
    async def story(bench: Bench) -> list[bytes]:
        request = bench.get("blobs", *headers, v=version)
        async with bench.wire() as wire:
            got = await all_in_turn(wire, request, *[bench.get(), request] * 3)
        assert got[0].endswith(PAYLOAD)
        return got

    # The first of these words is new, if they are: the manifest is not, nor what follows it.
    spared = 7 if version == "1.1" else 6
    short, long = await same(tmp_path, story)
    assert long.asked - short.asked == spared
    assert [line["cache"] for line in short.lines if line["route"] == "blobs"] == ["hit"] * 4


@pytest.mark.parametrize(("version", "header"), [("1.1", "Connection: close"), ("1.0", "X: y")])
async def test_who_wants_no_further_answer(tmp_path: Path, version: str, header: str) -> None:
    async def story(bench: Bench) -> list[bytes]:
        got = []
        for _ in range(2):
            async with bench.wire() as wire:
                wire.writer.write(bench.get("blobs", header, v=version))
                got.append(await wire.rest())
        assert all(each.endswith(PAYLOAD) for each in got)
        return got

    short, long = await same(tmp_path, story)
    assert (short.asked, long.asked) == (1, 2)


async def test_what_is_not_plain(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        blob = bench.get("blobs")
        odd = [
            bench.get("blobs", method="HEAD"),
            bench.get("blobs", "Range: bytes=5-300000"),
            bench.get("blobs", "Range: bytes=9999999-"),
            bench.get("blobs", f'If-None-Match: "{LAYER}"'),
            bench.get("blobs", "Range: bytes=0-4", 'If-Range: "x"'),
            blob.replace(b"/blobs/sha256:", b"/blobs/sha257:"),
            blob.replace(b"org/app", b"org/other"),
        ]
        async with bench.wire() as wire:
            return await all_in_turn(wire, *[each for one in odd for each in (blob, one, one)])

    short, long = await same(tmp_path, story)
    assert long.asked - short.asked == 7


async def test_a_request_cut_anywhere(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        got = []
        blob = bench.get("blobs")
        async with bench.wire() as wire:
            for at in (1, 4, 20, len(blob) - 4, len(blob) - 1):
                wire.writer.write(blob[:at])
                await asyncio.sleep(0.02)
                wire.writer.write(blob[at:])
                got.append(await wire.verbatim())
                got += await all_in_turn(wire, bench.get())
        return got

    await same(tmp_path, story)


async def test_requests_that_do_not_wait(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        blob, manifest = bench.get("blobs"), bench.get()
        async with bench.wire() as wire:
            wire.writer.write(blob + manifest + blob)
            got = [await wire.verbatim() for _ in range(3)]
        for pause in (0.0, 0.02):
            async with bench.wire() as wire:
                for request in (blob, manifest, blob[:30], blob[30:], manifest):
                    wire.writer.write(request)
                    await asyncio.sleep(pause)
                got += [await wire.verbatim() for _ in range(4)]
        return got

    await same(tmp_path, story)


@pytest.mark.parametrize("more", ["blobs", "manifests", "nonsense", "half"])
async def test_what_comes_while_a_blob_is_sent_is_answered_after_it(
    tmp_path: Path, more: str
) -> None:
    async def story(bench: Bench) -> list[bytes]:
        second = {"nonsense": b"\0\1nonsense\r\n\r\n", "half": bench.get()[:20]}
        async with bench.wire(slow=True) as wire:
            wire.writer.write(bench.get("blobs"))
            await bench.sending()
            wire.writer.write(second[more] if more in second else bench.get(more))
            await asyncio.sleep(0.05)
            got = [await wire.verbatim()]
            assert got[0].endswith(PAYLOAD)
            if more == "half":
                wire.writer.write(bench.get()[20:])
            got.append(await wire.verbatim())
            if more == "nonsense":
                return [*got, await wire.rest()]
            return [*got, *await all_in_turn(wire, bench.get(), bench.get("blobs"))]

    short, long = await same(tmp_path, story)
    assert short.asked < long.asked


async def test_many_devices_at_once(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        async def one(slow: bool) -> list[bytes]:
            async with bench.wire(slow=slow) as wire:
                return await all_in_turn(wire, bench.get("blobs"), bench.get(), bench.get("blobs"))

        answers = await asyncio.gather(*(one(number % 4 == 0) for number in range(8)))
        return [each for answer in answers for each in answer]

    short, long = await both(tmp_path, story)
    assert short.got == long.got
    assert sorted(map(repr, short.lines)) == sorted(map(repr, long.lines))
    assert sorted(map(repr, short.pulled)) == sorted(map(repr, long.pulled))
    assert short.counts == long.counts
    assert (short.asked, long.asked) == (0, 24)


def _revoke(bench: Bench) -> None:
    bench.facade.control.revoke("dev", "kiosk-7", time.time())


def _disconnect(bench: Bench) -> None:
    bench.facade.control.disconnect(bench.registry.host)


def _nobody_confirms_the_deny_list(bench: Bench) -> None:
    bench.facade.control.silent = 900


async def _withdraw(bench: Bench) -> None:
    await bench.facade.withdraw(bench.target)
    await bench.facade.refresher.refresh()


async def _evict(bench: Bench) -> None:
    assert await bench.facade.store.remove(LAYER) is not None
    await bench.facade.index.forget([LAYER])


def _file(bench: Bench) -> Path:
    (found,) = bench.facade.folder.glob(f"cache/blobs/sha256/*/{LAYER.hex}")
    return found


def _spoil(at: int) -> Callable[[Bench], None]:
    def spoil(bench: Bench) -> None:
        with _file(bench).open("r+b") as file:
            byte = os.pread(file.fileno(), 1, at)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 1]), at)

    return spoil


def _cut_short(bench: Bench) -> None:
    os.truncate(_file(bench), BLOCK_BYTES + 5)


def _take_away(bench: Bench) -> None:
    _file(bench).unlink()


def _ask_as_another_fleet(bench: Bench) -> None:
    other = bench.facade.ca.device("other", "till-1")
    bench.context = client_context(bench.facade.server_ca, other)


@pytest.mark.parametrize(
    "happens",
    [
        _revoke,
        _disconnect,
        _nobody_confirms_the_deny_list,
        _withdraw,
        _evict,
        _spoil(5),
        _spoil(3 * BLOCK_BYTES + 5),
        _spoil(len(PAYLOAD) - 1),
        _cut_short,
        _take_away,
        _ask_as_another_fleet,
    ],
)
async def test_whatever_happens_between_two_requests(
    tmp_path: Path, happens: Callable[[Bench], Awaitable[None] | None]
) -> None:
    async def story(bench: Bench) -> list[bytes]:
        got = []
        async with bench.wire() as wire:
            got += await all_in_turn(wire, bench.get("blobs"))
            if (done := happens(bench)) is not None:
                await done
            wire.writer.write(bench.get("blobs", "Connection: close"))
            got.append(await wire.rest())
        for _ in range(2):
            await bench.facade.settled()
            async with bench.wire() as wire:
                wire.writer.write(bench.get("blobs"))
                with contextlib.suppress(asyncio.IncompleteReadError):
                    got.append(await wire.verbatim())
        return got

    await same(tmp_path, story)


@pytest.mark.parametrize("happens", [_revoke, _disconnect, _withdraw])
async def test_what_ends_a_permission_ends_what_is_being_sent(
    tmp_path: Path, happens: Callable[[Bench], Awaitable[None] | None]
) -> None:
    async def story(bench: Bench) -> list[bytes]:
        async with bench.wire(slow=True) as wire:
            wire.writer.write(bench.get("blobs"))
            await bench.sending()
            if (done := happens(bench)) is not None:
                await done
            await quiet(bench.facade)  # it was cut, or waits for ever
            assert len(await wire.rest()) < len(PAYLOAD)
        return []

    short, long = await half_same(tmp_path, story)
    assert short == long
    assert short[0][1] == "cut"
    assert short[0][2] is not None


async def test_a_device_that_leaves_in_the_middle(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        async with bench.wire(slow=True) as wire:
            wire.writer.write(bench.get("blobs"))
            await bench.sending()
        return []

    short, long = await half_same(tmp_path, story)
    assert short == long == [("blob", "left", None, "hit")]


async def test_a_device_that_takes_nothing_is_cut(tmp_path: Path) -> None:
    async def story(bench: Bench) -> list[bytes]:
        async with bench.wire(slow=True) as wire:
            wire.writer.write(bench.get("blobs"))
            await bench.sending()
            await quiet(bench.facade)
        return []

    tls = TlsLimits(stall_seconds=0.3, min_bytes_per_second=100_000_000)
    short, long = await half_same(tmp_path, story, tuning=Tuning(tls=tls))
    assert short == long == [("blob", "left", None, "hit")]


@pytest.mark.parametrize("spoiled", [BLOCK_BYTES + 5, len(PAYLOAD) - 1])
async def test_a_connection_ends_with_a_block_that_is_not_right(
    tmp_path: Path, spoiled: int
) -> None:
    async def story(bench: Bench) -> list[bytes]:
        _spoil(spoiled)(bench)
        async with bench.wire() as wire:
            wire.writer.write(bench.get("blobs"))
            got = await wire.rest()  # returns because the connection ends
            assert 0 < len(got) < len(PAYLOAD)
        return []

    short, long = await half_same(tmp_path, story)
    assert short == long
    assert [each[1:] for each in short] == [("cut", Reason.INTEGRITY, "hit")]
