"""Token counts in disjoint buckets, and the totals derived from them.

No token is in two buckets, so a total is a plain sum and is never stored beside its parts. A bucket
that is present was reported, even as 0; one that is absent was not, and a total of which no part was
reported is absent too. These rules live here once: the JSON form, rating, roll-ups and the router's
settlement all ask this module.
"""

from __future__ import annotations

from collections.abc import Mapping

INPUT_BUCKETS = (
    "input",
    "input_cache_read",
    "input_cache_write_5m",
    "input_cache_write_1h",
    "input_audio",
    "input_audio_cache_read",
    "input_image",
    "input_video",
)
OUTPUT_BUCKETS = ("output", "output_reasoning", "output_audio", "output_image")
CACHE_READ_BUCKETS = ("input_cache_read", "input_audio_cache_read")
CACHE_WRITE_BUCKETS = ("input_cache_write_5m", "input_cache_write_1h")
REASONING_BUCKETS = ("output_reasoning",)

TOKEN_BUCKETS = frozenset(INPUT_BUCKETS + OUTPUT_BUCKETS)
UNITS = frozenset(
    {
        "web_searches",
        "audio_seconds",
        "images",
        "pages",
        "annotated_pages",  # read with what was asked for besides; none of them is among `pages`
        "characters",
        "rerank_units",
    }
)

# One call cannot hold more tokens than this: the largest context windows are near 10^7. A larger count
# is damage or an attack, and would overflow money arithmetic further on.
MAX_TOKENS = 10**10


def total(tokens: Mapping[str, int], buckets: tuple[str, ...]) -> int | None:
    """Sum of those `buckets` that were reported; None where none was."""
    reported = [tokens[name] for name in buckets if name in tokens]
    return sum(reported) if reported else None


def input_tokens(tokens: Mapping[str, int]) -> int | None:
    """All input, cache reads and writes included."""
    return total(tokens, INPUT_BUCKETS)


def output_tokens(tokens: Mapping[str, int]) -> int | None:
    """All output, reasoning included."""
    return total(tokens, OUTPUT_BUCKETS)


def cache_read_tokens(tokens: Mapping[str, int]) -> int | None:
    """The part of the input that came from the provider's cache."""
    return total(tokens, CACHE_READ_BUCKETS)


def cache_write_tokens(tokens: Mapping[str, int]) -> int | None:
    """The part of the input that was written to the provider's cache."""
    return total(tokens, CACHE_WRITE_BUCKETS)


def reasoning_tokens(tokens: Mapping[str, int]) -> int | None:
    """The part of the output that the model spent thinking."""
    return total(tokens, REASONING_BUCKETS)
