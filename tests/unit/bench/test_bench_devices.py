"""Which device makes the pulls that are to be written down."""

from pathlib import Path

import pytest

from facade.serving.pulls.quota import BURST, DeviceQuota
from tests.bench.devices import Rested
from tests.bench.loads import MANIFESTS, WARM_MANIFESTS


@pytest.fixture
def rested() -> Rested:
    made: list[Path] = []

    def enrol() -> Path:
        made.append(Path(f"device-{len(made)}"))
        return made[-1]

    return Rested(enrol)


def test_every_pull_of_a_device_that_is_given_out_has_its_row(rested: Rested) -> None:
    quota = DeviceQuota()
    for pulls in (BURST, 1, 1500, 499, 600, 1400):
        device = rested.device(pulls)
        assert all(quota.take(str(device), 0.0) for _ in range(pulls))


def test_a_device_is_used_up_before_the_next_is_made(rested: Rested) -> None:
    given = [rested.device(pulls).name for pulls in (1000, 1000, 1)]
    assert given == ["device-0", "device-0", "device-1"]


def test_more_than_one_device_is_written_down_of_is_an_error(rested: Rested) -> None:
    with pytest.raises(ValueError, match=str(BURST)):
        rested.device(BURST + 1)


def test_a_measurement_of_manifests_is_one_device_s(rested: Rested) -> None:
    assert rested.device(MANIFESTS + WARM_MANIFESTS) == Path("device-0")
