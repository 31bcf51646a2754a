"""How many tokens Bedrock reports, under its several names, in disjoint buckets.

`inputTokens` EXCLUDES cache reads and writes: the total is the sum of all four. `cacheDetails` tells writes
by lifetime, and counts repeat under two names (`cacheReadInputTokens`, `cacheReadInputTokenCount`), of
which one is taken. The metrics in the last chunk of a stream and the headers of an answer are the same
counts once more.

Source: docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mmproto import usage as totals
from mmproto.providers.counts import CONTRADICTORY_COUNTS, Counts

_HEADER: Final = "x-amzn-bedrock-{}-token-count"
_HEADERS: Final[Mapping[str, str]] = {
    _HEADER.format("input"): "inputTokens",
    _HEADER.format("output"): "outputTokens",
    _HEADER.format("cache-read-input"): "cacheReadInputTokens",
    _HEADER.format("cache-write-input"): "cacheWriteInputTokens",
}
# The names that each family of models has in its own bodies.
_INPUT: Final = ("inputTokens", "inputTokenCount", "inputTextTokenCount", "prompt_token_count")
_OUTPUT: Final = ("outputTokens", "outputTokenCount", "totalOutputTextTokenCount", "generation_token_count")
_READ: Final = ("cacheReadInputTokens", "cacheReadInputTokenCount")
_WRITTEN: Final = ("cacheWriteInputTokens", "cacheWriteInputTokenCount")
_ONE_HOUR: Final = "1h"


def of_headers(headers: Mapping[str, str], counts: Counts) -> dict[str, int]:
    """Counts in the headers of an answer, by the names of a usage object."""
    found = {name: counts.of_text(headers.get(header)) for header, name in _HEADERS.items()}
    return {name: count for name, count in found.items() if count is not None}


def buckets(usage: Any, counts: Counts) -> dict[str, int]:
    """The buckets of a usage object, of metrics, or of the counts that lie open in a body."""
    fresh, output = counts.get(usage, *_INPUT), counts.get(usage, *_OUTPUT)
    read, written = counts.get(usage, *_READ), counts.get(usage, *_WRITTEN)
    total = counts.get(usage, "totalTokens")
    if total is not None and fresh is not None:
        rest = total - fresh - (read or 0) - (written or 0)
        if output is None and rest >= 0:
            output = rest
        elif rest != output:
            counts.doubt(CONTRADICTORY_COUNTS)
    one_hour = _written_for_an_hour(usage, counts)
    if one_hour is not None and one_hour > (written or 0):
        counts.doubt(CONTRADICTORY_COUNTS)
        one_hour = written
    found = {
        "input": fresh,
        "input_cache_read": read,
        "input_cache_write_5m": written - (one_hour or 0) if written is not None else None,
        "input_cache_write_1h": one_hour,
        "output": output,
    }
    return {bucket: count for bucket, count in found.items() if count is not None}


def _written_for_an_hour(usage: Any, counts: Counts) -> int | None:
    details = usage.get("cacheDetails") if isinstance(usage, dict) else None
    if not isinstance(details, list):
        return None
    found = [
        counts.get(one, "inputTokens")
        for one in details
        if isinstance(one, dict) and one.get("ttl") == _ONE_HOUR
    ]
    return sum(count for count in found if count is not None) if found else None


def agreed(sources: Iterable[Mapping[str, int]], counts: Counts) -> dict[str, int]:
    """One answer from several reports of the same counts, the most trusted first.

    The first one counts, the others supply input or output that it lacks; where they differ, that is flagged.
    Only fresh input is compared: older answers report no cached input in their headers.
    """
    result: dict[str, int] = {}
    for source in sources:
        output = totals.output_tokens(source)
        mine = totals.output_tokens(result)
        if mine is None:
            result.update({name: n for name, n in source.items() if name in totals.OUTPUT_BUCKETS})
        elif output is not None and output != mine:
            counts.doubt(CONTRADICTORY_COUNTS)
        if totals.input_tokens(result) is None:
            result.update({name: n for name, n in source.items() if name in totals.INPUT_BUCKETS})
        elif "input" in source and source["input"] != result.get("input"):
            counts.doubt(CONTRADICTORY_COUNTS)
    return result
