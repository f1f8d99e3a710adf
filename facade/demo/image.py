"""A small, real, multi-arch image, made on the spot.

Guarantees: the same arguments give the same bytes (and so the same digests) on every machine with
the same zlib; the amd64 and arm64 images really run: their only program is a static binary that
prints one line and exits with 0. Needs no compiler, no network and no other image.
"""

import gzip
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from facade.oci.digest import Digest
from facade.oci.manifest import OCI_INDEX, OCI_MANIFEST

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
PLATFORMS = ("linux/amd64", "linux/arm64")
DEFAULT_LINE = "Hello from the other side of the facade."
DEFAULT_PAYLOAD_BYTES = 4 * 1024 * 1024

_LOAD_ADDRESS = 0x400000
_HEADERS_SIZE = 64 + 56  # one ELF64 header, one program header
_MACHINES = {"amd64": 62, "arm64": 183}  # EM_X86_64, EM_AARCH64


@dataclass(frozen=True, slots=True)
class Image:
    """An image in memory.

    Arguments:
        index: the digest of the top index.
        manifests: media type and bytes of the index and of each platform's manifest.
        blobs: configs and layers.
    """

    index: Digest
    manifests: Mapping[Digest, tuple[str, bytes]]
    blobs: Mapping[Digest, bytes]

    @property
    def size(self) -> int:
        """Bytes of everything together."""
        return sum(map(len, self.blobs.values())) + sum(
            len(data) for _, data in self.manifests.values()
        )


def make_image(
    *,
    line: str = DEFAULT_LINE,
    payload_bytes: int = DEFAULT_PAYLOAD_BYTES,
    platforms: Sequence[str] = PLATFORMS,
) -> Image:
    """Make an image whose program prints `line`.

    Arguments:
        payload_bytes: size of an incompressible file in the layer that all platforms share.
        platforms: of PLATFORMS.
    """
    blobs: dict[Digest, bytes] = {}
    manifests: dict[Digest, tuple[str, bytes]] = {}
    payload = hashlib.shake_256(line.encode()).digest(payload_bytes)
    shared = _tar({"etc/issue": (0o644, line.encode() + b"\n"), "opt/payload": (0o644, payload)})
    children = []
    for platform in platforms:
        system, _, architecture = platform.partition("/")
        program = _tar({"hello": (0o755, elf(architecture, line + "\n"))})
        layers = [_add(blobs, LAYER_TYPE, _gzip(tar)) for tar in (shared, program)]
        config = {
            "architecture": architecture,
            "os": system,
            "config": {"Cmd": ["/hello"], "WorkingDir": "/"},
            "rootfs": {
                "type": "layers",
                "diff_ids": [str(Digest.of(t)) for t in (shared, program)],
            },
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _add(blobs, CONFIG_TYPE, _json(config)),
            "layers": layers,
        }
        child = _descriptor(OCI_MANIFEST, _json(manifest))
        manifests[Digest.parse(str(child["digest"]))] = (OCI_MANIFEST, _json(manifest))
        children.append({**child, "platform": {"os": system, "architecture": architecture}})
    index = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children})
    manifests[Digest.of(index)] = (OCI_INDEX, index)
    return Image(Digest.of(index), manifests, blobs)


def elf(architecture: str, text: str) -> bytes:
    """A static Linux executable that writes `text` to its standard output and exits with 0.

    Arguments:
        architecture: "amd64" or "arm64".
    """
    message = text.encode()
    code = {"amd64": _amd64, "arm64": _arm64}[architecture](len(message))
    size = _HEADERS_SIZE + len(code) + len(message)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bit, little-endian, version 1
        2,  # an executable at a fixed address
        _MACHINES[architecture],
        1,
        _LOAD_ADDRESS + _HEADERS_SIZE,  # the code follows the headers
        64,  # where the program header is
        *(0, 0, 64, 56, 1, 0, 0, 0),
    )
    segment = struct.pack(
        "<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 0x10000
    )  # load the whole file, readable and executable
    return header + segment + code + message


def _amd64(length: int) -> bytes:
    return b"".join(
        (
            b"\xb8\x01\x00\x00\x00",  # mov eax, 1 (write)
            b"\xbf\x01\x00\x00\x00",  # mov edi, 1 (standard output)
            b"\x48\x8d\x35\x10\x00\x00\x00",  # lea rsi, [rip+16]: what follows the code
            b"\xba" + struct.pack("<I", length),  # mov edx, length
            b"\x0f\x05",  # syscall
            b"\xb8\x3c\x00\x00\x00",  # mov eax, 60 (exit)
            b"\x31\xff",  # xor edi, edi
            b"\x0f\x05",  # syscall
        )
    )


def _arm64(length: int) -> bytes:
    def move(register: int, value: int) -> int:  # movz
        return 0xD2800000 | value << 5 | register

    call = 0xD4000001  # svc #0
    message = 0x10000000 | (28 >> 2) << 5 | 1  # adr x1, 28 bytes on: what follows the code
    return struct.pack(
        "<8I",
        *(move(0, 1), message, move(2, length), move(8, 64), call),  # write
        *(move(0, 0), move(8, 93), call),  # exit
    )


def _tar(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """A tar of files (name → mode and content) that are root's and from 1970."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        folders = {name.rpartition("/")[0] for name in files if "/" in name}
        for folder in sorted(folders):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, (mode, content) in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=6, mtime=0)


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, indent=2).encode()


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


def _add(blobs: dict[Digest, bytes], media_type: str, data: bytes) -> dict[str, object]:
    blobs[Digest.of(data)] = data
    return _descriptor(media_type, data)
