"""The image made on the spot: deterministic, well-formed, and it runs."""

import gzip
import io
import json
import platform
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from facade.demo.image import elf, make_image
from facade.oci.digest import Digest
from facade.oci.manifest import ImageManifest, Index, parse_manifest


def test_the_same_arguments_give_the_same_image() -> None:
    assert make_image(payload_bytes=100) == make_image(payload_bytes=100)
    assert make_image(payload_bytes=100).index != make_image(payload_bytes=101).index
    assert make_image(payload_bytes=100).index != make_image(line="x", payload_bytes=100).index


def test_every_descriptor_is_true() -> None:
    image = make_image(payload_bytes=1000)
    media_type, data = image.manifests[image.index]
    index = parse_manifest(data, media_type)
    assert isinstance(index, Index)
    assert [str(child.platform) for child in index.manifests] == ["linux/amd64", "linux/arm64"]
    named = {image.index}
    for child in index.manifests:
        child_type, child_data = image.manifests[child.digest]
        assert (child.media_type, child.size) == (child_type, len(child_data))
        manifest = parse_manifest(child_data, child_type)
        assert isinstance(manifest, ImageManifest)
        named.add(child.digest)
        for blob in (manifest.config, *manifest.layers):
            assert len(image.blobs[blob.digest]) == blob.size
            assert blob.digest.matches(image.blobs[blob.digest])
            named.add(blob.digest)
        config = json.loads(image.blobs[manifest.config.digest])
        assert child.platform is not None
        assert config["architecture"] == child.platform.architecture
        tars = [gzip.decompress(image.blobs[layer.digest]) for layer in manifest.layers]
        assert config["rootfs"]["diff_ids"] == [str(Digest.of(tar)) for tar in tars]
        with tarfile.open(fileobj=io.BytesIO(tars[1])) as archive:
            assert archive.getnames() == ["hello"]
            assert archive.getmember("hello").mode == 0o755
    assert named == set(image.manifests) | set(image.blobs)
    assert image.size == sum(map(len, image.blobs.values())) + sum(
        len(data) for _, data in image.manifests.values()
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="runs an amd64 program")
def test_the_amd64_program_runs(tmp_path: Path) -> None:
    program = tmp_path / "hello"
    program.write_bytes(elf("amd64", "it runs\n"))
    program.chmod(0o755)
    done = subprocess.run([program], check=True, capture_output=True, timeout=10)
    assert (done.stdout, done.returncode) == (b"it runs\n", 0)


def test_the_arm64_program_is_what_an_assembler_makes() -> None:
    program = elf("arm64", "hi\n")
    assert struct.unpack_from("<8I", program, 120) == (
        0xD2800020,  # mov x0, #1
        0x100000E1,  # adr x1, .+28
        0xD2800062,  # mov x2, #3
        0xD2800808,  # mov x8, #64
        0xD4000001,  # svc #0
        0xD2800000,  # mov x0, #0
        0xD2800BA8,  # mov x8, #93
        0xD4000001,  # svc #0
    )
    assert program.endswith(b"hi\n")
    machine, entry = struct.unpack_from("<H", program, 18)[0], struct.unpack_from("<Q", program, 24)
    assert (machine, entry[0]) == (183, 0x400078)
