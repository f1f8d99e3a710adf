"""How a gauge of several processes becomes one figure.

Guarantees: every gauge of ours is listed here, so one that is not cannot be made (`mode_of` raises): a
sum of expiry times would be nonsense, and the smallest of in-flight transfers a lie. Pure.
"""

from enum import StrEnum

from facade.errors import Invalid


class Mode(StrEnum):
    """What is shown for one label set that several processes have."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


MODES = {
    **dict.fromkeys(
        (
            *("facade_transfers_in_flight", "facade_streams_in_flight", "facade_requests_waiting"),
            *("facade_process_virtual_memory_bytes", "facade_process_resident_memory_bytes"),
            *("facade_workers", "facade_workers_configured"),
            *("facade_connections", "facade_handshakes_under_way"),
        ),
        Mode.SUM,
    ),
    **dict.fromkeys(
        (
            # One cache, looked at by each: the last to look knows most.
            *("facade_cache_objects", "facade_cache_bytes", "facade_cache_limit_bytes"),
            # The process that is nearest to its limit is the one to look at.
            *("facade_process_open_fds", "facade_degraded"),
            "facade_upstream_circuit_open",
        ),
        Mode.MAX,
    ),
    **dict.fromkeys(
        (
            *("facade_metadata_expiry_seconds", "facade_published_metadata_expiry_seconds"),
            *("facade_certificate_expiry_seconds", "facade_token_expiry_seconds"),
            *("facade_cache_disk_free_bytes", "facade_process_max_fds"),
            "facade_upstream_budget_remaining",
            *("facade_process_start_time_seconds", "facade_ready", "facade_redis_up"),
        ),
        Mode.MIN,
    ),
}
"""By the gauge's whole name."""


def mode_of(name: str) -> Mode:
    """The mode of the gauge `name`. Raises Invalid for one that is not listed."""
    try:
        return MODES[name]
    except KeyError:
        raise Invalid(
            f"The gauge {name} has no mode: say in facade/observability/modes.py whether the "
            "figures of several workers are summed, or which of them is shown."
        ) from None
