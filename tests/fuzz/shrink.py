"""Makes a finding small: the fewest bytes that still fail in the same place."""

from __future__ import annotations

import traceback
from collections.abc import Callable

_MOST_RUNS = 3000


def failure(run: Callable[[bytes], None], data: bytes) -> str:
    """Where and as what `run` fails on `data`, "" where it does not."""
    try:
        run(data)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {frame.name} ({frame.filename}:{frame.lineno})"
    return ""


def shrink(run: Callable[[bytes], None], data: bytes) -> bytes:
    """`data` without what its failure does not need."""
    expected, size, runs = failure(run, data), len(data) // 2, 0
    while size and expected:
        position = 0
        while position < len(data) and runs < _MOST_RUNS:
            shorter = data[:position] + data[position + size :]
            runs += 1
            if failure(run, shorter) == expected:
                data = shorter
            else:
                position += size
        size //= 2
    return data
