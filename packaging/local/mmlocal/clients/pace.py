"""How big the demo's calls are and how often they come."""

from __future__ import annotations

import random
import time

RANDOM = random.Random()  # noqa: S311  # sizes and pauses, nothing secret
SPREAD = 0.5  # sigma of the logarithm: most calls within a factor of two of the middle, some far above


def around(middle: int) -> int:
    """A count near `middle`, with the long tail that prompts have."""
    return max(1, round(RANDOM.lognormvariate(0, SPREAD) * middle))


def order(**counts: int) -> dict[str, str]:
    """The header that has the local provider report these token counts."""
    return {"x-local-provider": "; ".join(f"{name}={count}" for name, count in counts.items())}


def pause(seconds: float) -> None:
    """Wait about that long."""
    time.sleep(RANDOM.uniform(0.5, 1.5) * seconds)


def pick(*choices: str) -> str:
    return RANDOM.choice(choices)
