"""A rollout: many devices arrive within a second at a cold facade, and all end with their image.

300 of them here; ARRIVING_DEVICES=2000 tries as many as the product promises (a minute on two
busy cores, most of it the clients' own TLS). The clients share the machine with the facade, so
the limit on a handshake, which begins at the accept, is raised: they would outwait it by themselves.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.arrivals import Order, to_json
from tests.support.facade_process import run
from tests.support.live import REPOSITORY, live
from tests.support.pki import Authority

DEVICES = int(os.environ.get("ARRIVING_DEVICES", "300"))
IDENTITIES = max(1, DEVICES // 10)
WITHIN_SECONDS = 100.0


@pytest.mark.slow
async def test_devices_that_arrive_within_a_second_all_get_their_image(tmp_path: Path) -> None:
    ca = Authority.root("Fleet CA")
    file = ca.write(tmp_path, "fleet-ca.pem")
    env = {
        "FACADE_DEVICE__CA": json.dumps(
            [{"file": str(tmp_path / "state" / "device-ca.pem")}, {"file": str(file)}]
        ),
        "FACADE_DEVICE__LIMITS__HANDSHAKE": "100",
        "FACADE_LOG__LEVEL": "warning",
    }
    async with live(tmp_path, env=env) as it:
        await it.add()
        await it.import_all()
        folder = it.certificates
        for number in range(IDENTITIES):
            leaf = ca.device("dev", f"kiosk-{number}", trust_domain="facade.local")
            (folder / f"{number}.cert").write_bytes(leaf.pem)
            (folder / f"{number}.key").write_bytes(leaf.key_pem)
        base = f"/v2/{it.registry.host.path_segment}/{REPOSITORY}"
        images = [
            [(f"{base}/manifests/{digest}", digest.hex) for digest in image.manifests]
            + [(f"{base}/blobs/{digest}", digest.hex) for digest in image.blobs]
            for image in it.images.values()
        ]
        host, _, port = it.facade.device.rpartition(":")
        order = Order(
            *(host, int(port), str(folder), IDENTITIES, DEVICES),
            spread_seconds=1.0,
            within_seconds=WITHIN_SECONDS,
            images=images,
        )
        before = it.facade.cpu_seconds
        finished = await run(
            *(sys.executable, "-m", "tests.support.arrivals"),
            stdin=to_json(order),
            timeout=WITHIN_SECONDS + 60,
        )
        assert finished.code == 0, finished.stderr
        result = finished.json
        spent = it.facade.cpu_seconds - before
        print(f"{DEVICES} devices: {result}; server CPU {spent:.2f} s")
        assert result["outcomes"] == {"ok": DEVICES}
        # Cold, and still one transfer for each blob.
        for image in it.images.values():
            for digest in image.blobs:
                assert it.registry.count(f"*/blobs/{digest}") == 1
