"""The `Link` field of a paged listing (RFC 8288; OCI distribution-spec, "Content Discovery").

Guarantees: `next_page` gives a URL on the registry's own origin or None: pages carry the
Authorization header, so a link elsewhere is not followed.
"""

import re
from collections.abc import Iterable

from yarl import URL

from facade.upstream.redirects import resolve, same_origin

_LINK = re.compile(r"<([^<>]{1,4096})>([^<]*)", re.ASCII)
_RELATIONS = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.ASCII | re.IGNORECASE)
_MAX_CHARS = 16 * 1024


def next_page(current: URL, header_values: Iterable[str]) -> URL | None:
    """The next page, or None when there is none, or none that may be followed."""
    for value in header_values:
        for target, parameters in _LINK.findall(value[:_MAX_CHARS]):
            if _is_next(parameters):
                url = resolve(current, target)
                if url is None or url.user is not None or not same_origin(url, current):
                    return None
                return url
    return None


def _is_next(parameters: str) -> bool:
    """Whether they say `rel=next`, alone or among others. Reads them once: a registry chose them."""
    found = _RELATIONS.findall(parameters)
    return any("next" in (quoted or plain).lower().split() for quoted, plain in found)
