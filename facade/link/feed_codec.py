"""The frames of the snapshot feed, and where a feed stands. Pure.

Guarantees: a frame is four bytes of length and JSON; decoding what was encoded gives an equal value;
anything else raises `Malformed`. A beat names what the receiver should hold by now, so a feed that
lost something is noticed.
"""

from dataclasses import dataclass

from facade.link.codec import snapshot_in, snapshot_out
from facade.link.strict import Fields, Malformed, dump, load
from facade.wings import ControlSnapshot

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Half a million revoked devices, or a thousand connections each with a large CA bundle."""
LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Position:
    """Which snapshot.

    Arguments:
        epoch: of the control process: generations of two processes say nothing about each other.
        generation: as the control side counts.
    """

    epoch: str
    generation: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: the snapshot at `position`, or (None) that it still is the current one."""

    position: Position
    snapshot: ControlSnapshot | None = None


def frame_out(frame: Frame) -> bytes:
    """Its bytes, with the length before. Raises Malformed when it would be too long."""
    body = dump(
        {
            "epoch": frame.position.epoch,
            "generation": frame.position.generation,
            "snapshot": None if frame.snapshot is None else snapshot_out(frame.snapshot),
        }
    )
    if len(body) > MAX_FRAME_BYTES:
        raise Malformed(f"more than {MAX_FRAME_BYTES} bytes")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def length_in(data: bytes) -> int:
    """How many bytes follow. Raises Malformed."""
    length = int.from_bytes(data, "big")
    if length > MAX_FRAME_BYTES:
        raise Malformed(f"more than {MAX_FRAME_BYTES} bytes")
    return length


def frame_in(body: bytes) -> Frame:
    """Raises Malformed."""
    fields = Fields(load(body), "frame")
    position = _position(fields)
    inner = fields.any("snapshot")
    fields.done()
    snapshot = None if inner is None else snapshot_in(inner)
    if snapshot is not None and snapshot.generation != position.generation:
        raise Malformed("frame: not the snapshot it names")
    return Frame(position, snapshot)


def position_out(position: Position) -> bytes:
    """Alone."""
    return dump({"epoch": position.epoch, "generation": position.generation})


def position_in(body: bytes) -> Position:
    """Raises Malformed."""
    fields = Fields(load(body), "position")
    position = _position(fields)
    fields.done()
    return position


def _position(fields: Fields) -> Position:
    return Position(fields.text("epoch"), fields.integer("generation"))
