"""What `[[device.ca]]` says reaches the listener."""

from pathlib import Path

from facade.app.serving import _tls_files
from facade.config import Settings
from facade.serving.identity.tls import DeviceCAFile


def test_every_setting_of_a_device_ca_is_passed_on() -> None:
    settings = Settings.model_validate(
        {
            "device": {
                "server_cert": "cert.pem",
                "server_key": "key.pem",
                "ca": [
                    {"file": "a.pem"},
                    {"file": "b.pem", "fleets": ["x-*"], "crl": "b.crl", "refuse_stale_crl": True},
                ],
            }
        }
    )
    assert _tls_files(settings).cas == (
        DeviceCAFile(Path("a.pem")),
        DeviceCAFile(Path("b.pem"), ("x-*",), Path("b.crl"), refuse_stale_crl=True),
    )
