"""The one enumeration of reason codes.

A reason says which check failed. The same word stands in HTTP error bodies
(`errors[].detail.reason`), log lines (`reason=`), metric labels and audit rows, so
that what a device was told can be searched for everywhere else. Adding a reason is
free; renaming one breaks dashboards and needs a line in the changelog.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a request was refused or failed."""

    # Decided from the request and the signed metadata alone (403).
    NOT_SIGNED = "not-signed"
    BY_TAG = "by-tag"
    DEVICE_REVOKED = "device-revoked"
    IDENTITY = "identity"
    HOST_NOT_CONNECTED = "host-not-connected"
    LISTING = "listing"  # tag lists and the catalog are not offered to devices

    # The request cannot be understood (4xx).
    DIGEST_INVALID = "digest-invalid"
    NAME_INVALID = "name-invalid"
    RANGE_INVALID = "range-invalid"
    UNSUPPORTED = "unsupported"  # push, upload, delete
    NOT_FOUND = "not-found"  # no such route or metadata file

    # The upstream registry (404, 429, 502, 504).
    UPSTREAM_NOT_FOUND = "upstream-not-found"
    UPSTREAM_RATE_LIMITED = "upstream-rate-limited"
    UPSTREAM_REFUSED = "upstream-refused"
    UPSTREAM_UNREACHABLE = "upstream-unreachable"
    DEADLINE = "deadline"
    INTEGRITY = "integrity"

    # This facade (503).
    OVERLOADED = "overloaded"
    DEVICE_RATE_LIMITED = "device-rate-limited"  # 429: the device's own bound, not the facade's
    METADATA_EXPIRED = "metadata-expired"
    METADATA_UNAVAILABLE = "metadata-unavailable"
    CLOCK_SET_BACK = "clock-set-back"
    CLOSURE_INCOMPLETE = "closure-incomplete"
    CONTROL_UNAVAILABLE = "control-unavailable"
    DENY_LIST_TOO_OLD = "deny-list-too-old"
    INTERNAL = "internal"
