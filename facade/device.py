"""A device's identity as a value, its names, and their SPIFFE form.

Guarantees: a name that `parse_name` let through is safe as a TUF role name, a path segment and a
log field. A `Device` is made only by `serving.identity.certificate` from a verified peer
certificate; nothing in a request changes it (trust.md, "Identity").
"""

import re
from dataclasses import dataclass
from datetime import datetime

from facade.errors import Denied, Invalid
from facade.reasons import Reason

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
RESERVED_FLEETS = frozenset({"root", "targets", "snapshot", "timestamp"})
"""TUF's own role names (TUF specification, 4): a fleet's role file would collide with them."""

SUBJECT_FIELDS = ("CN", "O", "OU", "serialNumber")
"""The subject fields that can name a fleet or a device, by their usual short names."""


@dataclass(frozen=True, slots=True)
class Device:
    """Who is connected, from its certificate alone.

    Arguments:
        fleet, name: from the SPIFFE URI SAN (or configured subject fields).
        issuer: RFC 4514 string of the issuing CA's subject.
        serial: the certificate's serial number as lower-case hex, no leading zeros.
        fingerprint: SHA-256 of the certificate's DER, lower-case hex.
        not_before, not_after: validity, aware, UTC.
        trusted_until: `not_after`, or the end of the CAs that vouch for it, if that is sooner.
    """

    fleet: str
    name: str
    issuer: str
    serial: str
    fingerprint: str
    not_before: datetime
    not_after: datetime
    trusted_until: datetime

    def __str__(self) -> str:
        return f"{self.fleet}/{self.name}"


def parse_name(text: str, what: str = "name") -> str:
    """Check a fleet, device or artifact name and give it back.

    Raises Invalid (NAME_INVALID) when it is outside `[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?`.
    """
    if not _NAME.fullmatch(text) or ".." in text:
        raise Invalid(
            f"{'An' if what[0] in 'aeiou' else 'A'} {what} is 1 to 63 lower-case letters, digits, '.', '_' or '-', and starts "
            "and ends with a letter or digit.",
            reason=Reason.NAME_INVALID,
        )
    return text


def parse_fleet(text: str) -> str:
    """Check a fleet name: `parse_name`, and none of TUF's own roles. Raises Invalid."""
    if text in RESERVED_FLEETS:
        raise Invalid(
            f"A fleet cannot be called {text!r}: TUF keeps that name for itself.",
            reason=Reason.NAME_INVALID,
        )
    return parse_name(text, "fleet name")


def parse_device_path(text: str) -> tuple[str, str]:
    """Read `FLEET/NAME`. Raises Invalid (NAME_INVALID)."""
    fleet, slash, name = text.partition("/")
    if not slash:
        raise Invalid("Write FLEET/NAME, like dev/kiosk-7.", reason=Reason.NAME_INVALID)
    return parse_fleet(fleet), parse_name(name, "device name")


def identity_fields(text: str) -> tuple[str, str] | None:
    """The subject fields of (fleet, device) that the setting `device.identity` names.

    "spiffe" gives None, "subject" OU and CN, "subject:O,serialNumber" these. Raises Invalid.
    """
    if text == "spiffe":
        return None
    kind, colon, named = text.partition(":")
    fields = named.split(",") if colon else ["OU", "CN"]
    if kind != "subject" or len(fields) != 2 or not set(fields) <= set(SUBJECT_FIELDS):
        raise Invalid(
            "Write spiffe, subject (fleet from OU, device from CN), or subject:FIELD,FIELD with "
            f"the fields of fleet and device, of {', '.join(SUBJECT_FIELDS)}."
        )
    if fields[0] == fields[1]:
        raise Invalid("Fleet and device cannot stand in the same subject field.")
    return fields[0], fields[1]


def spiffe_id(trust_domain: str, fleet: str, name: str) -> str:
    """`spiffe://<trust-domain>/fleet/<fleet>/device/<name>` (SPIFFE-ID, 2)."""
    return f"spiffe://{trust_domain}/fleet/{fleet}/device/{name}"


def parse_spiffe_id(uri: str, trust_domain: str) -> tuple[str, str]:
    """The (fleet, name) in a SPIFFE ID of ours.

    Raises Denied (IDENTITY) when the trust domain differs or the path is not of our form.
    """
    # Compared whole with what we would write: a general URL parser drops, folds and forgives.
    segments = uri.split("/")
    if len(segments) != 7 or uri != spiffe_id(trust_domain, segments[4], segments[6]):
        raise Denied(
            "The certificate's SPIFFE ID is not spiffe://<trust domain>/fleet/<fleet>/device/"
            "<name> of this installation's trust domain.",
            reason=Reason.IDENTITY,
        )
    try:
        return parse_fleet(segments[4]), parse_name(segments[6], "device name")
    except Invalid as error:
        raise Denied(error.message, reason=Reason.IDENTITY) from error
