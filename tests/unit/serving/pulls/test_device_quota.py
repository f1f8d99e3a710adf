"""Rows of the pulls per device."""

from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.oci.request import PullRequest, Role
from facade.reasons import Reason
from facade.serving.pulls.quota import DeviceQuota
from facade.serving.pulls.reports import Reports
from facade.wings import Pulled
from tests.support.clock import FakeClock
from tests.support.serving import FakeControl, a_device

REQUEST = PullRequest(Role.BLOB, RegistryHost("ghcr.io"), Repository("org/app"), Digest.of(b"x"))


def test_a_burst_and_then_as_time_allows() -> None:
    quota = DeviceQuota(burst=3, per_minute=60)
    assert [quota.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert quota.take("b", 0.0)
    assert [quota.take("a", 2.0) for _ in range(3)] == [True, True, False]
    assert sum(quota.take("a", 1000.0) for _ in range(9)) == 3


def test_the_longest_unseen_device_is_forgotten_first() -> None:
    quota = DeviceQuota(burst=1, per_minute=0, devices=2)
    assert quota.take("a", 0.0)
    assert quota.take("b", 0.0)
    assert not quota.take("a", 0.0)
    assert quota.take("c", 0.0)  # b is forgotten
    assert not quota.take("a", 0.0)


async def test_one_devices_refusals_push_nobody_elses_rows_out() -> None:
    control, clock = FakeControl(), FakeClock()
    reports = Reports(control=control, clock=clock, quota=DeviceQuota(burst=5))

    def refused(name: str) -> None:
        reports.pulled(
            a_device(name=name),
            REQUEST,
            outcome="refused",
            reason=Reason.NOT_SIGNED,
            bytes_sent=0,
            cache="",
        )

    for _ in range(1000):
        refused("loud")
    refused("quiet")
    rows = [event.device for event in control.events if isinstance(event, Pulled)]
    assert rows == ["dev/loud"] * 5 + ["dev/quiet"]
    await clock.run_for(60)
    refused("loud")
    assert len(control.events) == 7
