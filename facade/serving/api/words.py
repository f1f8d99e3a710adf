"""What a device is told, where the error's own sentence is meant for the operator.

Guarantees: a device reads nothing that its request did not name: not the registry's own words, not
where a registry redirects to, no path and no address of this machine. The operator finds the
whole sentence in the log, by the request id.
"""

from collections.abc import Mapping
from types import MappingProxyType

from facade.errors import FacadeError, Integrity, Unavailable, Upstream
from facade.oci.request import PullRequest
from facade.reasons import Reason

_LOOK = "The facade's operator finds the details in its log by this request id."

_WORDS: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.UPSTREAM_NOT_FOUND: (
            "This is signed, but {host} does not have it in that repository (any more). An "
            "operator can check the repository."
        ),
        Reason.UPSTREAM_RATE_LIMITED: "{host} limits the rate of requests; try again later.",
        Reason.UPSTREAM_REFUSED: "{host} refused the facade or failed. " + _LOOK,
        Reason.UPSTREAM_UNREACHABLE: "{host} cannot be reached from the facade. " + _LOOK,
        Reason.DEADLINE: "{host} did not answer in time. " + _LOOK,
        Reason.INTEGRITY: (
            "What was found for this digest does not match it, so it is not served. " + _LOOK
        ),
        Reason.CLOCK_SET_BACK: (
            "The facade's clock is behind, so it cannot tell whether the signed metadata is "
            "still valid. Its operator must set it right."
        ),
    }
)
_INTERNAL = "The facade cannot serve this just now. " + _LOOK


def for_device(error: FacadeError, pull: PullRequest | None) -> str:
    """The sentence for the body of a refusal."""
    host = str(pull.host) if pull is not None else "the registry"
    words = _WORDS.get(error.reason) if error.reason is not None else None
    if words is not None:
        return words.format(host=host)
    if isinstance(error, Unavailable) and error.reason in (None, Reason.INTERNAL):
        return _INTERNAL
    if isinstance(error, Upstream | Integrity):
        return _INTERNAL
    return error.message
