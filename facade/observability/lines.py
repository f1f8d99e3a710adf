"""Lines that several processes write to one pipe, whole.

Guarantees: what `fitted` and `writes` give goes out in one `write` of at most `MAX_WRITE_BYTES`, which
the kernel does not mix with another process's (pipe(7), PIPE_BUF), provided that the stream flushes
once per write. A line that is too long stays valid JSON: its longest texts are cut. Pure.
"""

import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

MAX_WRITE_BYTES = select.PIPE_BUF
"""4096 on Linux; POSIX allows 512."""
MARK = "..."

Encode = Callable[[Any], str]


def fitted(fields: Mapping[str, Any], encode: Encode) -> str:
    """`encode(fields)`, with the longest values cut so that it and its newline are one write.

    Arguments:
        encode: gives ASCII.
    """
    line = encode(fields)
    while (excess := len(line) + 1 - MAX_WRITE_BYTES) > 0:
        name = max(fields, key=lambda each: len(encode(fields[each])))
        value = fields[name]
        text = value if isinstance(value, str) else encode(value)
        kept = max(0, len(text) - excess - len(MARK))  # a character takes a byte or more
        if kept + len(MARK) >= len(text):  # nothing but short ones, hundreds of them
            fields = {"event": "line_too_long", "level": "error", "count": len(fields)}
        elif name == "exception":
            fields = {**fields, name: MARK + text[len(text) - kept :]}  # its end says what happened
        else:
            fields = {**fields, name: text[:kept] + MARK}
        line = encode(fields)
    return line


def writes(lines: Sequence[str]) -> Iterator[str]:
    """Lines of ASCII that fit, joined to as few writes as they go into."""
    gathered: list[str] = []
    size = 0
    for line in lines:
        if gathered and size + len(line) > MAX_WRITE_BYTES:
            yield "".join(gathered)
            gathered, size = [], 0
        gathered.append(line)
        size += len(line)
    if gathered:
        yield "".join(gathered)
