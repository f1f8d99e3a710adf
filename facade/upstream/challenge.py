"""The `WWW-Authenticate` grammar (RFC 9110, 11.6.1).

Guarantees: `parse_challenges` reads any number of challenges, quoted commas and escapes, parameters
and schemes in any case, and raises nothing: what it cannot read it leaves out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: `scheme` in lower case ("bearer", "basic"), parameter names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)
