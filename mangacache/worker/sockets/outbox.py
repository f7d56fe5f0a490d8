"""What waits for one socket to be read: bounded in messages and in bytes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Outbox:
    """Frames in the order in which they go out.

    News may be refused, and then is told later or as a gap. Answers never are: each one stands for a message that was
    read, and no further message is read while the outbox is full, so that they are bounded all the same: the limit, and
    what one message can ask for.

    Args:
        most_frames: how many may wait before news is refused.
        most_bytes: how many bytes.

    Attributes:
        waiting_bytes: what waits.
    """

    __slots__ = ("_frames", "_most_bytes", "_most_frames", "waiting_bytes")

    def __init__(self, *, most_frames: int, most_bytes: int) -> None:
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self._frames: deque[bytes] | None = None  # an idle socket has none
        self.waiting_bytes = 0

    def __len__(self) -> int:
        return len(self._frames) if self._frames is not None else 0

    @property
    def is_full(self) -> bool:
        """Whether news is refused, and nothing more is read from the socket."""
        return len(self) >= self._most_frames or self.waiting_bytes >= self._most_bytes

    def put(self, frame: bytes) -> None:
        """Add a frame, whatever waits."""
        if self._frames is None:
            self._frames = deque()
        self._frames.append(frame)
        self.waiting_bytes += len(frame)

    def taken(self) -> Iterator[bytes]:
        """Iterate over what waits, and take each frame out as it is asked for."""
        while self._frames:
            frame = self._frames.popleft()
            self.waiting_bytes -= len(frame)
            yield frame
        self._frames = None

    def clear(self) -> None:
        """Forget what waits."""
        self._frames = None
        self.waiting_bytes = 0
