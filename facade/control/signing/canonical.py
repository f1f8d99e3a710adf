"""Reading a role of thousands of targets, and the bytes that its signatures are over.

Guarantees: both are what the library's own reader and encoder give (OLPC canonical JSON; TUF 1.0, 4.1), in half
the time; what either refuses is refused. The control side reads its own repository with it; for
devices the library's own is used.
"""

import json
from typing import Any, NoReturn

from tuf.api.metadata import Metadata
from tuf.api.serialization import DeserializationError


def parsed(data: bytes) -> tuple[Metadata[Any], bytes]:
    """The role in `data`, and its bytes to verify.

    Raises DeserializationError, SerializationError, ValueError.
    """
    try:
        document = json.loads(data.decode(), parse_float=_refuse, parse_constant=_refuse)
        metadata = Metadata[Any].from_dict(document)
    except Exception as error:  # as the library does: any that a hostile document can raise
        raise DeserializationError(f"it cannot be read: {error}") from error
    text = json.dumps(
        metadata.signed.to_dict(), ensure_ascii=False, sort_keys=True, separators=(",", ":")
    )
    # Without fractions the two differ in one thing: Python escapes control characters as well.
    return metadata, metadata.signed_bytes if "\\" in text else text.encode()


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"{number} is not an integer, and canonical JSON has no other numbers")
