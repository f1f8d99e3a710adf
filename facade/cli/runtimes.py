"""Configuration files that make a container runtime pull through the facade.

Guarantees: pure text. The default form has no fallback: where a mirror fails or refuses, podman,
containerd, CRI-O and Docker's mirror mode go to the original registry silently, with exit code 0,
which would make every refusal of the facade optional. Forms seen to work with podman 4.3,
containerd 1.6 and Docker 20.10; CRI-O reads podman's files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from facade.oci.host import RegistryHost

CLIENT_FILES = ("ca.crt", "client.cert", "client.key")
"""What `facade device issue --out DIR` writes, under the names that podman and Docker look for."""

_FALLBACK = (
    "With --fallback the runtime asks the original registry whenever the facade refuses: "
    "what it refuses is then pulled all the same, unless the device has no other way out."
)


@dataclass(frozen=True, slots=True)
class File:
    """A file on the device; `content` is whole."""

    path: str
    content: str


@dataclass(frozen=True, slots=True)
class Copy:
    """Credentials of the device to put in place."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """All that a device needs for one runtime."""

    files: tuple[File, ...] = ()
    copies: tuple[Copy, ...] = ()
    notes: tuple[str, ...] = field(default=())


def podman(facade: str, registries: Sequence[RegistryHost], *, fallback: bool) -> RuntimeConfig:
    """podman, buildah, skopeo (containers-registries.conf(5), containers-certs.d(5))."""
    blocks = [_podman_block(facade, registry, fallback=fallback) for registry in registries]
    return RuntimeConfig(
        files=(File("/etc/containers/registries.conf.d/50-facade.conf", "\n".join(blocks)),),
        copies=_copies(f"/etc/containers/certs.d/{facade}"),
        notes=(_pull_note("podman", registries[0]), *_fallback_note(fallback=fallback)),
    )


def crio(facade: str, registries: Sequence[RegistryHost], *, fallback: bool) -> RuntimeConfig:
    """CRI-O, which reads the same files as podman."""
    same = podman(facade, registries, fallback=fallback)
    return RuntimeConfig(
        files=same.files,
        copies=same.copies,
        notes=("Then: systemctl reload crio", *_fallback_note(fallback=fallback)),
    )


def containerd(facade: str, registries: Sequence[RegistryHost], *, fallback: bool) -> RuntimeConfig:
    """For containerd (hosts.md). One folder per registry; `[host]` must exist or the file is ignored."""
    files = [
        File(
            f"/etc/containerd/certs.d/{registry}/hosts.toml",
            _containerd_hosts(facade, registry, fallback=fallback),
        )
        for registry in registries
    ]
    files.append(
        File(
            "/etc/containerd/config.toml (add this to what is there)",
            '[plugins."io.containerd.grpc.v1.cri".registry]\n'
            '  config_path = "/etc/containerd/certs.d"\n',
        )
    )
    return RuntimeConfig(
        files=tuple(files),
        copies=_copies("/etc/facade"),
        notes=("Then: systemctl restart containerd", *_fallback_note(fallback=fallback)),
    )


def docker(facade: str, registries: Sequence[RegistryHost], *, fallback: bool) -> RuntimeConfig:
    """Docker: images are named through the facade; a mirror is possible for Docker Hub only."""
    direct = _pull_note("docker", registries[0], f"{facade}/{registries[0].path_segment}")
    if not fallback:
        return RuntimeConfig(copies=_copies(f"/etc/docker/certs.d/{facade}"), notes=(direct,))
    return RuntimeConfig(
        files=(
            File(
                "/etc/docker/daemon.json (add this to what is there)",
                f'{{"registry-mirrors": ["https://{facade}"]}}\n',
            ),
        ),
        copies=_copies(f"/etc/docker/certs.d/{facade}"),
        notes=(
            "Docker mirrors Docker Hub only; other registries are named directly.",
            direct,
            "Then: systemctl restart docker",
            *_fallback_note(fallback=True),
        ),
    )


RUNTIMES: Mapping[str, Callable[..., RuntimeConfig]] = {
    "podman": podman,
    "containerd": containerd,
    "docker": docker,
    "crio": crio,
}


def _podman_block(facade: str, registry: RegistryHost, *, fallback: bool) -> str:
    location = f"{facade}/{registry.path_segment}"
    if not fallback:
        return f'[[registry]]\nprefix = "{registry}"\nlocation = "{location}"\n'
    return (
        f'[[registry]]\nprefix = "{registry}"\nlocation = "{registry}"\n\n'
        f'[[registry.mirror]]\nlocation = "{location}"\npull-from-mirror = "digest-only"\n'
    )


def _containerd_hosts(facade: str, registry: RegistryHost, *, fallback: bool) -> str:
    identity = (
        'ca = "/etc/facade/ca.crt"\n'
        'client = [["/etc/facade/client.cert", "/etc/facade/client.key"]]\n'
    )
    if not fallback:
        return f'server = "https://{facade}"\n{identity}\n[host]\n'
    indented = "".join(f"  {line}\n" for line in identity.splitlines())
    return (
        f'server = "https://{registry.endpoint}"\n\n'
        f'[host."https://{facade}"]\n  capabilities = ["pull"]\n{indented}'
    )


def _copies(folder: str) -> tuple[Copy, ...]:
    return tuple(Copy(name, f"{folder}/{name}") for name in CLIENT_FILES)


def _pull_note(tool: str, registry: RegistryHost, place: str | None = None) -> str:
    return f"Pull by digest: {tool} pull {place or registry}/REPOSITORY@sha256:DIGEST"


def _fallback_note(*, fallback: bool) -> tuple[str, ...]:
    if not fallback:
        return ()
    return (_FALLBACK,)
