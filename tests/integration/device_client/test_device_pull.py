"""The reference device client against a device port over mutual TLS."""

import asyncio
import datetime as dt
import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from facade.device_client.client import ATTEMPTS, DeviceClient, Pulled, Step
from facade.device_client.session import Endpoint
from facade.errors import Denied, Integrity, Invalid, NotFound, Unavailable, Upstream
from facade.oci.digest import Digest
from facade.reasons import Reason
from tests.support.clock import FakeClock
from tests.support.device_port import PLACE, DevicePort, Refusal, device_port
from tests.support.image import make_image, one_layer_image
from tests.support.pki import Authority, Leaf
from tests.support.tuf_repo import TufRepo

IMAGE = make_image(payload_bytes=300_000)
BLOBS = f"/v2/{PLACE}/blobs/"


@dataclass
class Device:
    """A device with its files, in front of a port."""

    folder: Path
    port: DevicePort
    root: bytes
    leaf: Leaf
    steps: list[Step] = field(default_factory=list)
    clock: FakeClock = field(default_factory=lambda: FakeClock(auto=True))
    parallel: int = 1
    """One blob at a time, where a test scripts the answers in order."""

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def endpoint(self) -> Endpoint:
        files = self.leaf.write(self.folder / "certs")
        ca = self.folder / "certs" / "ca.crt"
        if not ca.exists():
            self.port.server_ca.write(ca.parent)
        return Endpoint(self.port.url, files.certificate, files.key, ca)

    async def pull(
        self, artifact: str = "dev/app/v1", platform: str | None = "linux/amd64"
    ) -> Pulled:
        client = DeviceClient(
            self.endpoint(),
            root=self.root,
            metadata_dir=self.folder / "metadata",
            clock=self.clock,
            progress=self.steps.append,
            parallel=self.parallel,
        )
        return await client.pull(artifact, self.out, platform=platform)


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    async with device_port(IMAGE) as port:
        root = port.tuf.pinned
        port.sign()
        yield Device(tmp_path, port, root, port.device_ca.device("dev", "kiosk-7"))


def check_layout(folder: Path) -> dict[str, Any]:
    """Whether a layout is sound: every blob hashes to its name, all that is named is there."""
    assert json.loads((folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    for path in (folder / "blobs").rglob("*"):
        if path.is_file():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    index: dict[str, Any] = json.loads((folder / "index.json").read_text())
    (entry,) = index["manifests"]
    _check_reachable(folder, entry)
    assert not [path for path in folder.rglob(".*") if path.name != ".partial"]
    return entry  # type: ignore[no-any-return]


def _check_reachable(folder: Path, descriptor: dict[str, Any]) -> None:
    data = (folder / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()
    assert len(data) == descriptor["size"]
    if "manifest" in descriptor["mediaType"] or "index" in descriptor["mediaType"]:
        document = json.loads(data)
        for child in [
            *document.get("manifests", []),
            *document.get("layers", []),
            *filter(None, [document.get("config")]),
        ]:
            _check_reachable(folder, child)


async def test_an_image_arrives_whole(device: Device) -> None:
    pulled = await device.pull()
    entry = check_layout(device.out)
    assert entry["digest"] == str(pulled.manifest)
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "v1"
    assert entry["annotations"]["io.facade.signed.digest"] == str(IMAGE.index)
    assert entry["platform"] == {"os": "linux", "architecture": "amd64"}
    assert pulled.target.path == "dev/app/v1"
    assert pulled.platform == "linux/amd64"
    assert pulled.reused == 0
    assert pulled.fetched == sum(
        path.stat().st_size for path in (device.out / "blobs").rglob("*") if path.is_file()
    )
    done = {step.digest: step for step in device.steps}
    assert all(step.done == step.size for step in done.values())
    assert not (device.out / ".partial").exists()


async def test_the_other_platform_gives_another_manifest(device: Device) -> None:
    first = await device.pull(platform="linux/amd64")
    second = await device.pull(platform="linux/arm64")
    assert first.manifest != second.manifest
    assert check_layout(device.out)["digest"] == str(second.manifest)


async def test_all_platforms_give_the_signed_index(device: Device) -> None:
    pulled = await device.pull(platform="all")
    assert check_layout(device.out)["digest"] == str(IMAGE.index) == str(pulled.manifest)
    assert pulled.fetched == IMAGE.size


async def test_this_machines_platform_is_the_default(device: Device) -> None:
    assert (await device.pull(platform=None)).platform.startswith("linux/")


async def test_a_platform_that_the_image_is_not_made_for(device: Device) -> None:
    with pytest.raises(Invalid, match=r"not made for linux/s390x, but for: linux/amd64"):
        await device.pull(platform="linux/s390x")
    assert not (device.out / "index.json").exists()


async def test_an_image_without_an_index(tmp_path: Path) -> None:
    async with device_port(one_layer_image(b"layer")) as port:
        root = port.tuf.pinned
        port.sign()
        device = Device(tmp_path, port, root, port.device_ca.device())
        await device.pull()
        assert check_layout(device.out)["digest"] == str(port.image.index)


async def test_a_second_pull_fetches_nothing_but_metadata(device: Device) -> None:
    first = await device.pull()
    device.port.requests.clear()
    second = await device.pull()
    assert device.port.count("/v2/") == 0
    assert (second.fetched, second.reused) == (0, first.fetched)


async def test_a_blob_gone_bad_on_the_devices_disk_is_fetched_again(device: Device) -> None:
    await device.pull()
    largest = max((device.out / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[1000] ^= 1
    largest.write_bytes(data)
    pulled = await device.pull()
    assert pulled.fetched == len(data)
    check_layout(device.out)


async def test_a_folder_with_something_else_in_it_is_left_alone(device: Device) -> None:
    device.out.mkdir()
    (device.out / "thesis.tex").write_text("…")
    with pytest.raises(Invalid, match="no OCI layout"):
        await device.pull()
    assert [path.name for path in device.out.iterdir()] == ["thesis.tex"]


# Transfers that break.


async def test_blobs_that_come_at_once_arrive_whole_each_resumed_by_itself(device: Device) -> None:
    device.parallel = 4
    device.port.cut_after = [10, 100_000, 20, 300_000]
    await device.pull(platform="all")
    check_layout(device.out)


async def test_of_blobs_that_come_at_once_the_first_that_fails_is_told(device: Device) -> None:
    device.parallel = 4
    device.port.refusals[BLOBS] = [Refusal(403, "not-signed", "no")] * 4
    with pytest.raises(Denied) as caught:
        await device.pull()
    assert caught.value.reason is Reason.NOT_SIGNED
    assert not (device.out / "index.json").exists()


async def test_a_cut_transfer_is_resumed_where_it_stopped(device: Device) -> None:
    device.port.cut_after = [100_000, 100_000]
    pulled = await device.pull()
    check_layout(device.out)
    ranges = [asked for path, asked in device.port.requests if path.startswith(BLOBS)]
    resumed = [asked for asked in ranges if asked]
    assert resumed
    assert pulled.fetched == sum(
        path.stat().st_size for path in (device.out / "blobs").rglob("*") if path.is_file()
    )


async def test_a_killed_pull_is_taken_up_by_the_next(device: Device) -> None:
    # Every response is cut; config first (small, so cut after nothing), then the layer.
    device.port.cut_after = [0] * ATTEMPTS
    with pytest.raises(Unavailable):
        await device.pull()
    device.port.cut_after = [10_000_000, 200_000, *[0] * (ATTEMPTS)]
    with pytest.raises(Unavailable):
        await device.pull()
    assert not (device.out / "index.json").exists()
    device.port.cut_after.clear()
    device.port.requests.clear()
    pulled = await device.pull()
    check_layout(device.out)
    assert pulled.reused > 0
    assert any(asked for _, asked in device.port.requests)


async def test_a_partial_of_zeros_is_found_out_and_fetched_anew(device: Device) -> None:
    folder = device.out / ".partial"
    folder.mkdir(parents=True)
    for digest, data in IMAGE.blobs.items():
        (folder / f"sha256-{digest.hex}").write_bytes(bytes(len(data) // 2))
    await device.pull()
    check_layout(device.out)


async def test_a_partial_that_is_too_long_is_thrown_away(device: Device) -> None:
    folder = device.out / ".partial"
    folder.mkdir(parents=True)
    for digest, data in IMAGE.blobs.items():
        (folder / f"sha256-{digest.hex}").write_bytes(bytes(len(data) + 1))
    await device.pull()
    check_layout(device.out)


async def test_a_facade_that_ignores_ranges_sends_from_the_start(device: Device) -> None:
    device.port.cut_after = [10, 100_000, 10]
    device.port.ignore_range = True
    await device.pull()
    check_layout(device.out)


async def test_a_facade_that_sends_another_range(device: Device) -> None:
    device.port.cut_after = [10]
    device.port.wrong_range = True
    with pytest.raises(Integrity, match="another part"):
        await device.pull()


async def test_a_busy_facade_is_asked_again_when_it_said(device: Device) -> None:
    busy = Refusal(503, "overloaded", "busy", {"Retry-After": "7"})
    device.port.refusals[BLOBS] = [busy, busy]
    await device.pull()
    assert device.clock.slept == [7, 7]


async def test_a_facade_that_stays_busy_is_given_up(device: Device) -> None:
    device.port.refusals[BLOBS] = [Refusal(429, "upstream-rate-limited", "later")] * ATTEMPTS
    with pytest.raises(Unavailable, match="429: later") as caught:
        await device.pull()
    assert caught.value.reason is Reason.UPSTREAM_RATE_LIMITED


@pytest.mark.parametrize(
    ("refusal", "error", "reason"),
    [
        (Refusal(403, "not-signed", "no"), Denied, Reason.NOT_SIGNED),
        (Refusal(403, "device-revoked", "no"), Denied, Reason.DEVICE_REVOKED),
        (Refusal(404, "upstream-not-found", "no"), NotFound, Reason.UPSTREAM_NOT_FOUND),
        (Refusal(400, "digest-invalid", "no"), Invalid, Reason.DIGEST_INVALID),
        (Refusal(502, "integrity", "no"), Upstream, Reason.INTEGRITY),
        (Refusal(500, "something-new", "no"), Unavailable, None),
        (Refusal(301, "", "no"), Unavailable, None),
    ],
)
async def test_a_refusal_is_passed_on_in_the_facades_words(
    device: Device, refusal: Refusal, error: type[Exception], reason: Reason | None
) -> None:
    device.port.refusals[f"/v2/{PLACE}/manifests"] = [refusal]
    with pytest.raises(error, match=rf"answered {refusal.status}: no") as caught:
        await device.pull()
    assert caught.value.reason is reason  # type: ignore[attr-defined]


# Bytes that are not what was signed.


async def _spoil(device: Device, digest: Digest, data: bytes) -> str:
    device.port.replaced[digest] = data
    with pytest.raises(Integrity) as caught:
        await device.pull()
    assert not (device.out / "index.json").exists()
    assert not device.out.joinpath("blobs", "sha256", digest.hex).exists()
    return caught.value.message


async def test_other_bytes_for_the_index(device: Device) -> None:
    _, data = IMAGE.manifests[IMAGE.index]
    assert "is not it" in await _spoil(device, IMAGE.index, data.replace(b"amd64", b"amd65"))


@pytest.mark.parametrize("change", [b"longer", None])
async def test_a_manifest_of_another_length(device: Device, change: bytes | None) -> None:
    _, data = IMAGE.manifests[IMAGE.index]
    await _spoil(device, IMAGE.index, data + change if change else data[:-1])


@pytest.mark.parametrize("flip", [True, False], ids=["flipped bit", "more bytes"])
async def test_other_bytes_for_a_blob(device: Device, flip: bool) -> None:
    pulled = await device.pull()
    manifest = json.loads((device.out / "blobs" / "sha256" / pulled.manifest.hex).read_bytes())
    digest = Digest.parse(manifest["layers"][0]["digest"])
    shutil.rmtree(device.out)
    data = bytearray(IMAGE.blobs[digest])
    if flip:
        data[7] ^= 1
    else:
        data += b"more"
    words = await _spoil(device, digest, bytes(data))
    assert ("another hash" if flip else "more than") in words


# Metadata that must not be believed.


async def test_an_artifact_that_nobody_signed(device: Device) -> None:
    with pytest.raises(NotFound, match="not signed") as caught:
        await device.pull("dev/app/v2")
    assert caught.value.reason is Reason.NOT_SIGNED
    assert device.port.count("/v2/") == 0


async def test_a_malformed_artifact_asks_nobody(device: Device) -> None:
    with pytest.raises(Invalid):
        await device.pull("dev/app")
    assert not device.port.requests


async def test_another_root_than_the_pinned_one(device: Device) -> None:
    device.root = TufRepo().pinned
    with pytest.raises(Integrity, match="not signed by the keys"):
        await device.pull()


@pytest.mark.parametrize("root", [b"", b"{}", b"junk"])
async def test_a_pinned_root_that_is_none(device: Device, root: bytes) -> None:
    device.root = root
    with pytest.raises((Integrity, Invalid)):
        await device.pull()


async def test_metadata_rolled_back_since_the_last_pull(device: Device) -> None:
    old = dict(device.port.tuf.files)
    device.port.tuf.publish(fleets=["dev"])
    await device.pull()
    device.port.tuf.files.clear()
    device.port.tuf.files.update(old)
    with pytest.raises(Integrity, match="older than what this device knows"):
        await device.pull()


async def test_frozen_metadata(device: Device) -> None:
    device.port.tuf.lifetimes["timestamp"] = dt.timedelta(days=-1)
    device.port.tuf.bump("timestamp")
    with pytest.raises(Unavailable, match="expired") as caught:
        await device.pull()
    assert caught.value.reason is Reason.METADATA_EXPIRED


async def test_mixed_and_matched_metadata(device: Device) -> None:
    old = device.port.tuf.files["2.dev.json"]
    device.port.tuf.publish(fleets=["dev"])
    device.port.tuf.files["3.dev.json"] = old
    with pytest.raises(Integrity):
        await device.pull()


async def test_a_root_rotated_twice_is_followed(device: Device) -> None:
    for _ in range(2):
        device.port.tuf.rotate_root()
    await device.pull()


async def test_a_fleet_whose_metadata_is_not_for_this_device(device: Device) -> None:
    device.port.refusals["/tuf/2.dev.json"] = [Refusal(404)]
    with pytest.raises(NotFound, match="no metadata of fleet dev"):
        await device.pull()


async def test_metadata_that_is_too_large(device: Device) -> None:
    device.port.tuf.files["timestamp.json"] = b" " * 5_000_001
    with pytest.raises(Integrity, match=r"larger|long"):
        await device.pull()


async def test_a_device_that_may_not_see_metadata_learns_why(device: Device) -> None:
    refusal = Refusal(403, "identity", "The certificate has no SPIFFE ID.")
    device.port.refusals["/tuf/timestamp.json"] = [refusal]
    with pytest.raises(Denied, match="no SPIFFE ID") as caught:
        await device.pull()
    assert caught.value.reason is Reason.IDENTITY


# The connection.


async def test_a_facade_with_another_ca(device: Device) -> None:
    Authority.root("Server CA").write(device.folder / "certs")
    with pytest.raises(Denied, match="not to be trusted"):
        await device.pull()


async def test_nobody_there(device: Device) -> None:
    device.port.url = "https://127.0.0.1:1"
    with pytest.raises(Unavailable, match="connection"):
        await device.pull()


@pytest.mark.parametrize(
    "url", ["http://localhost", "https://", "https://u:p@h", "https://h/x", "https://h:99999", "h"]
)
async def test_urls_that_are_no_facade(device: Device, url: str) -> None:
    device.port.url = url
    with pytest.raises(Invalid, match="https://host:port"):
        await device.pull()


async def test_files_that_cannot_be_used_are_named(device: Device) -> None:
    endpoint = device.endpoint()
    endpoint.server_ca.write_text("junk")
    with pytest.raises(Invalid, match=r"ca\.crt"):
        endpoint.context()
    device.port.server_ca.write(endpoint.server_ca.parent)
    endpoint.key.write_text("junk")
    with pytest.raises(Invalid, match=r"client\.key"):
        endpoint.context()


async def test_a_cancelled_pull_ends_at_once(device: Device) -> None:
    device.port.silent = True
    task = asyncio.create_task(device.pull())
    async with asyncio.timeout(5):
        while not device.port.requests:  # noqa: ASYNC110 - real sockets
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
