"""deploy/runtimes holds what `facade runtime-config` prints today."""

from pathlib import Path

import pytest

from tests.support.operator_server import CommandLine

RUNTIMES = Path(__file__).parents[3] / "deploy" / "runtimes"
REGISTRIES = ("docker.io", "ghcr.io", "registry.example:5000")


@pytest.mark.parametrize("runtime", ["podman", "containerd", "docker", "crio"])
def test_the_example_is_current(alone: CommandLine, runtime: str) -> None:
    options = [option for name in REGISTRIES for option in ("--registry", name)]
    printed = alone("runtime-config", runtime, "--facade", "facade.example:8443", *options)
    assert printed.code == 0
    assert (RUNTIMES / f"{runtime}.txt").read_text() == printed.stdout


def test_there_is_one_for_each_runtime() -> None:
    names = {path.stem for path in RUNTIMES.glob("*.txt")}
    assert names == {"podman", "containerd", "docker", "crio"}
