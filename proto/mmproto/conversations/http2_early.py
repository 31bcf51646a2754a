"""Answers that were seen before their requests: what two threads do is not always seen in its order."""

from __future__ import annotations

from typing import Final

from mmproto.framing.http2 import Block, Part
from mmproto.framing.http2_frames import Piece

MAX_HELD: Final = 64 * 1024
# What a part costs besides its bytes, and headers altogether.
_PIECE: Final = 256
_BLOCK: Final = 4096


class EarlyAnswers:
    """Parts by stream, `MAX_HELD` bytes at most. What did not find room leaves a hole in its stream."""

    def __init__(self) -> None:
        self._parts: dict[int, list[Piece | Block]] = {}
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def streams(self) -> list[int]:
        """Those of which something is held."""
        return list(self._parts)

    def hold(self, part: Piece | Block) -> None:
        """Keeps a part for when its request is seen."""
        if self._size + _cost(part) > MAX_HELD:
            # Without its head nothing that comes later is taken for a part of the body.
            self.take(part.stream)
            part = Piece(part.stream, b"", part.end, missing=True)
            if self._size + _cost(part) > MAX_HELD:
                return
        parts = self._parts.setdefault(part.stream, [])
        last = parts[-1] if parts else None
        if isinstance(part, Piece) and isinstance(last, Piece) and not part.missing:
            parts[-1] = Piece(part.stream, last.data + part.data, part.end, last.missing)
            self._size += len(part.data)
        else:
            parts.append(part)
            self._size += _cost(part)

    def take(self, stream: int) -> list[Part]:
        """What was held of a stream, in its order."""
        parts = self._parts.pop(stream, [])
        self._size -= sum(map(_cost, parts))
        return list(parts)

    def clear(self) -> None:
        """Lets go of everything."""
        self._parts.clear()
        self._size = 0


def _cost(part: Piece | Block) -> int:
    return _PIECE + len(part.data) if isinstance(part, Piece) else _BLOCK
