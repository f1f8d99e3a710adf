"""AWS Signature Version 4, checked as AWS checks it (AWS General Reference, "Signing AWS API requests").

Guarantees: written from the specification, without botocore, so that the two check each other. For
requests to `/` without a query string, as STS and ECR get them.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.support.raw_http import Seen

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>\w+)/(?P<day>\d{8})/(?P<region>[a-z0-9-]+)/"
    r"(?P<service>[a-z]+)/aws4_request, SignedHeaders=(?P<signed>[a-z0-9;-]+), "
    r"Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Signature:
    """The Authorization of a request, taken apart. `time` in Unix seconds."""

    key: str
    day: str
    region: str
    service: str
    signed: tuple[str, ...]
    signature: str
    stamp: str

    @classmethod
    def of(cls, seen: Seen) -> "Signature | None":
        """What a request was signed with; None when it was not, or badly."""
        found = _AUTHORIZATION.fullmatch(seen.authorization or "")
        stamp = seen.headers.get("x-amz-date", "")
        if found is None or not re.fullmatch(r"\d{8}T\d{6}Z", stamp):
            return None
        signed = tuple(found["signed"].split(";"))
        return cls(
            found["key"],
            found["day"],
            found["region"],
            found["service"],
            signed,
            found["signature"],
            stamp,
        )

    @property
    def time(self) -> float:
        return datetime.strptime(self.stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()

    def matches(self, seen: Seen, secret: str) -> bool:
        """Whether it was made with this secret over this very request."""
        if not {"host", "x-amz-date"} <= set(self.signed) or self.stamp[:8] != self.day:
            return False
        if "x-amz-security-token" in seen.headers and "x-amz-security-token" not in self.signed:
            return False
        headers = [f"{name}:{' '.join(seen.headers.get(name, '').split())}" for name in self.signed]
        payload = hashlib.sha256(seen.body).hexdigest()
        canonical = "\n".join(
            [seen.method, seen.path, "", *headers, "", ";".join(self.signed), payload]
        )
        scope = f"{self.day}/{self.region}/{self.service}/aws4_request"
        text = "\n".join(
            ["AWS4-HMAC-SHA256", self.stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()]
        )
        key = f"AWS4{secret}".encode()
        for part in (self.day, self.region, self.service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        expected = hmac.digest(key, text.encode(), "sha256").hex()
        return hmac.compare_digest(expected, self.signature)
