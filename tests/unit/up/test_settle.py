"""What `facade up` fills in, and what it leaves as configured."""

from pathlib import Path

from facade.config.sources import load
from facade.control.devices.development import DevelopmentPki
from facade.up.settings import settle
from facade.up.state import StateFolder


def test_everything_open_lies_in_the_state_folder(tmp_path: Path) -> None:
    settled = settle(load(None, {}), StateFolder(tmp_path), DevelopmentPki(tmp_path))
    assert settled.device.server_cert == tmp_path / "server.pem"
    assert [ca.file for ca in settled.device.ca] == [tmp_path / "device-ca.pem"]
    assert settled.trust.root == tmp_path / "root.json"
    assert settled.trust.source == str(tmp_path / "trust" / "repository" / "metadata")
    assert settled.database.url == f"sqlite+aiosqlite:///{tmp_path}/facade.db"
    assert settled.store.url == f"file://{tmp_path}/cache"
    assert settled.sealing.key_file == tmp_path / "sealing.key"


def test_what_is_configured_stays(tmp_path: Path) -> None:
    file = tmp_path / "facade.toml"
    file.write_text(
        '[device]\nserver_cert = "/own.pem"\nserver_key = "/own.key"\n'
        '[[device.ca]]\nfile = "/fleet-ca.pem"\nfleets = ["kiosk-*"]\n'
        '[store]\nurl = "file:///var/cache/facade"\n'
    )
    settled = settle(load(file, {}), StateFolder(tmp_path), DevelopmentPki(tmp_path))
    assert settled.device.server_cert == Path("/own.pem")
    assert settled.device.ca[0].fleets == ("kiosk-*",)
    assert settled.store.url == "file:///var/cache/facade"
