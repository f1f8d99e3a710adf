"""Every failure an operator meets, word for word, from the real command line against a real facade.

`UPDATE_GOLDEN=1 pytest tests/integration/control/test_cli_errors.py` writes the texts anew; read the
difference as the person would who has just seen the message: does it say what to do?
"""

import asyncio
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.docker_registry import free_port
from tests.support.facade_process import FacadeProcess, facade_up
from tests.support.image import one_layer_image, small_image
from tests.support.operator_server import CommandLine, Ran
from tests.support.people import connect
from tests.support.registry import BasicAuth, Registry

GOLDEN = Path(__file__).parent / "golden" / "errors.txt"
HOST, LOCKED, DEAD = "open.example:5000", "locked.example:5000", "dead.example:5000"
"""What the texts call the registries of this test."""

USAGE: Sequence[str] = (
    "nonsense",
    "registry lst",
    "registry show",
    "registry list --colour",
    "audit --limit 0",
    "registry tags alpine",
    f"registry add {HOST}",
    f"registry add {HOST} --anonymous --username bot",
    f"registry add {HOST} --username bot",
    f"registry add {HOST} --username bot --password-stdin",
    f"registry add {HOST} --anonymous --ca-file FOLDER/none.pem",
    f"registry add {HOST} --google-key-file FOLDER/none.json",
    f"registry add {HOST} --google-key-file FOLDER/broken.json",
    f"registry add {HOST} --aws-role-arn arn:aws:iam::123456789012:role/r",
    "artifact import app:v1 --fleet dev",
    f"artifact import {HOST}/org/app --fleet dev",
    f"artifact import {HOST}/org/APP:v1 --fleet dev",
    f"artifact import {HOST}/org/app:v1",
    "artifact show dev/app",
    "device issue kiosk-1",
    "device inspect FOLDER/none.pem",
    "device inspect FOLDER/broken.json",
    "runtime-config rocket --facade facade.example:8443",
    "runtime-config podman --facade facade.example",
    "config show --config FOLDER/none.toml",
    "pull dev/app/v1 --url https://f.example:8443 --cert X --key X --ca X --root FOLDER/none -o X",
)
REGISTRIES: Sequence[str] = (
    "registry show quay.io",
    "registry test quay.io",
    "registry remove quay.io",
    "registry rotate quay.io --username bot --password-stdin <secret",
    f"registry add {HOST} --anonymous",
    "registry add https://bot:secret@quay.io --anonymous",
    "registry add 10.1.2.3:5000 --anonymous",
    "registry add quay.io --google-key-file FOLDER/object.json",
    "registry add quay.io --anonymous --proxy ftp://proxy.example",
    f"registry test {DEAD}",
    f"registry test {LOCKED}",
    "registry tags quay.io/org/app",
    f"registry tags {HOST}/org/nothing",
    f"registry tags {LOCKED}/org/app",
)
ARTIFACTS: Sequence[str] = (
    f"artifact import {HOST}/org/app:v1 --fleet nowhere",
    "artifact import quay.io/org/app:v1 --fleet dev",
    f"artifact import {HOST}/org/app:gone --fleet dev",
    f"artifact import {HOST}/org/app:v1 --fleet dev --platform linux/riscv64",
    f"artifact import {HOST}/org/app:v1 --fleet dev --platform linux",
    f"artifact import {HOST}/org/app:v1 {HOST}/org/app:v2 --fleet dev --version v9",
    f"artifact import {HOST}/org/app:v2 --fleet dev --version v1",
    f"artifact import {HOST}/other/app:v1 --fleet dev",
    f"artifact import {HOST}/org/app:old --fleet dev",
    f"artifact import {HOST}/org/app:torn --fleet dev",
    f"artifact import {HOST}/org/app:v1 --fleet dev --name Not/A/Name",
    "artifact show dev/app/v9",
    "artifact show nowhere/app/v1",
    "artifact verify dev/app/v9",
    "artifact withdraw dev/app/v9",
    "artifact warm dev/app/v9",
    "cache warm dev/app/v9",
    "fleet add root",
    "fleet add Kiosks",
    "device issue nowhere/kiosk-1 --out FOLDER/kiosk",
    "device restore dev/never-seen",
    "apikey create ci --permission everything",
    "apikey revoke never-made",
)
LIMITED: Sequence[str] = (
    f"registry add {HOST} --anonymous",
    f"artifact import {HOST}/org/app:v1 --fleet shop",
    "artifact show shop/app/v1",
    "apikey list",
)


@dataclass
class Told:
    """Runs commands and writes down what they said, the same on every machine."""

    folder: Path
    names: dict[str, str]
    text: list[str] = field(default_factory=list)

    async def all(self, title: str, facade: CommandLine, lines: Sequence[str]) -> None:
        self.text.append(f"## {title}\n")
        for line in lines:
            command, _, stdin = line.partition(" <")
            for real, shown in self.names.items():
                command = command.replace(shown, real)
            argv = command.replace("FOLDER", str(self.folder)).split()
            ran = await asyncio.to_thread(lambda a=argv, s=stdin: facade(*a, stdin=s))  # type: ignore[misc]
            assert ran.code in (1, 2), f"{line}: {ran}"
            assert "Traceback" not in ran.stderr
            if ran.code == 1 and argv[0] != "config":
                again = await asyncio.to_thread(_as_json, facade, argv, stdin)
                assert again.code == 1
                assert isinstance(json.loads(again.stdout), dict), "one document, also on failure"
            said = "".join(f"  {each}\n" for each in (ran.stdout + ran.stderr).splitlines())
            self.text.append(f"$ facade {line}  → {ran.code}\n{self._same(said)}")

    def _same(self, text: str) -> str:
        for real, shown in self.names.items():
            text = text.replace(real, shown)
        text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:…", text)
        return text.replace(str(self.folder), "FOLDER")


def _as_json(facade: CommandLine, argv: Sequence[str], stdin: str) -> Ran:
    return facade(*argv, "--json", stdin=stdin)


async def test_every_failure_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "object.json").write_text(json.dumps({"type": "authorized_user"}))
    dead = f"127.0.0.1:{free_port()}"
    async with (
        Registry() as registry,
        Registry(auth=BasicAuth("bot", "right")) as locked,
        facade_up(tmp_path / "state") as facade,
    ):
        names = {str(registry.host): HOST, str(locked.host): LOCKED, dead: DEAD}
        told = Told(
            tmp_path, {**names, facade.operator.removeprefix("http://"): "facade.example:8080"}
        )
        told.names[facade.metrics.removeprefix("http://")] = "other.example:80"
        _fill(registry)
        host = await connect(facade, registry)
        await facade.must("artifact", "import", f"{host}/org/app:v1", "--fleet", "dev")
        await facade.must("registry", "add", dead, "--anonymous", "--insecure")
        await facade.must(
            *("registry", "add", str(locked.host), "--username", "bot", "--password-stdin"),
            "--insecure",
            stdin="wrong",
        )
        ours = CommandLine({"FACADE_STATE": str(facade.state)})
        await told.all("Usage", ours, USAGE)
        await told.all("Registries", ours, REGISTRIES)
        await told.all("Artifacts, fleets, devices, keys", ours, ARTIFACTS)
        await told.all("A key for one fleet, to import only", await _limited(facade), LIMITED)
        (facade.state / "offline").rename(tmp_path / "carried-away")
        await told.all("With the offline keys away", ours, ["fleet add shop"])
        await told.all(
            "Not reaching a facade", CommandLine({"FACADE_STATE": "/none"}), ["fleet list"]
        )
        for title, environ in _unreachable(facade, dead).items():
            await told.all(title, CommandLine(environ), ["fleet list"])
    text = "\n".join(told.text)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def _fill(registry: Registry) -> None:
    registry.add_image("org/app", small_image("one"), "v1")
    registry.add_image("org/app", small_image("two"), "v2")
    registry.add_image("other/app", small_image("one"), "v1")
    registry.add_manifest("org/app", b'{"schemaVersion": 1}', "application/json", "old")
    torn = one_layer_image(b"the layer that was lost")
    registry.add_image("org/app", torn, "torn")
    registry.forget("org/app", max(torn.blobs, key=lambda digest: len(torn.blobs[digest])))


async def _limited(facade: FacadeProcess) -> CommandLine:
    made = await facade.must(
        *("apikey", "create", "ci", "--permission", "artifacts.write", "--fleet", "dev", "--json")
    )
    return CommandLine({"FACADE_STATE": str(facade.state), "FACADE_API_KEY": made.json["key"]})


def _unreachable(facade: FacadeProcess, dead: str) -> dict[str, dict[str, str]]:
    state = {"FACADE_STATE": str(facade.state)}
    return {
        "Nobody listens": {**state, "FACADE_URL": f"http://{dead}"},
        "A URL that is none": {**state, "FACADE_URL": "facade.example"},
        "A key that is not known": {**state, "FACADE_API_KEY": "fk_wrong"},
        "https where http is spoken": {
            **state,
            "FACADE_URL": facade.operator.replace("http:", "https:"),
        },
        "Another service": {**state, "FACADE_URL": facade.metrics},
    }
