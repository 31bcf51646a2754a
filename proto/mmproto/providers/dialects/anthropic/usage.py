"""The usage object of Anthropic messages, in disjoint buckets, and the passes that one request took.

`input_tokens` EXCLUDES cache reads and writes. `cache_creation` splits writes by lifetime; without it all
writes count as 5 minutes, the API's default. `output_tokens` includes thinking.

`iterations` lists the passes of one request. The top level is the sum of the passes of type `message` (or
`fallback_message`); passes of other types (`compaction`, `advisor_message`) are billed beside it. A pass
without a model of its own ran on the call's model and is added to the call. A pass that names another model
has that model's price: it is told apart, and the call stays exact without it.

An attempt that another model declined before a fallback answered is such a pass, too, but of type
`message`. It is billed only where it had generated something, and whether the top level includes it is
nowhere said: then the call is the sum of its own passes instead.

Source: the API reference and the types of Anthropic's SDKs (`BetaUsage`, `BetaIterationsUsage`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mmproto.providers.counts import CONTRADICTORY_COUNTS, Counts
from mmproto.providers.facts import text

# Types of passes that the top level sums up.
_SUMMED: Final = frozenset({"", "message", "fallback_message"})
# An alias and the dated model that it stands for are one.
_DATE: Final = re.compile(r"[-@](\d{8}|latest|default)$")


@dataclass(slots=True)
class Pass:
    """A pass of another model: number in the list from 1, its model, its buckets."""

    number: int
    model: str
    tokens: dict[str, int] = field(default_factory=dict)
    whole: bool = False  # both input and output were reported


@dataclass(slots=True)
class Passes:
    """What a whole usage comes to: the buckets of the call's own model, and the passes of others."""

    tokens: dict[str, int]
    whole: bool  # both input and output were reported
    others: list[Pass] = field(default_factory=list)


def count(counts: Counts, usage: Mapping[str, Any], model: str, *, with_output: bool) -> Passes:
    """Divides `usage` between `model`, the call's own, and others. The output may be a placeholder."""
    tokens: dict[str, int] = {}
    whole = _add(counts, tokens, usage, with_output=with_output)
    result = Passes(tokens, whole)
    iterations = usage.get("iterations")
    if not isinstance(iterations, list) or not with_output:
        return result
    own_model = _DATE.sub("", model)
    own_sum: dict[str, int] = {}
    declined = False
    for number, iteration in enumerate(iterations, 1):
        if not isinstance(iteration, dict):
            continue
        named, summed = text(iteration.get("model")), text(iteration.get("type")) in _SUMMED
        if named and _DATE.sub("", named) != own_model:
            other = Pass(number, named)
            other.whole = _add(counts, other.tokens, iteration, with_output=True)
            declined = declined or summed
            if not summed or iteration.get("output_tokens"):
                result.others.append(other)
            continue
        _add(counts, own_sum, iteration, with_output=True)
        if not summed:
            _add(counts, tokens, iteration, with_output=True)
    if declined and own_sum:
        result.tokens = own_sum
    return result


def _add(counts: Counts, tokens: dict[str, int], usage: Mapping[str, Any], *, with_output: bool) -> bool:
    """Adds the buckets of one usage object; whether it has both input and output."""
    fresh = counts.get(usage, "input_tokens")
    five_minutes, one_hour = _writes(counts, usage)
    output = counts.get(usage, "output_tokens") if with_output else None
    thinking = (
        counts.get(usage.get("output_tokens_details"), "thinking_tokens") if output is not None else None
    )
    if thinking is not None and output is not None and thinking > output:
        counts.doubt(CONTRADICTORY_COUNTS)
        thinking = output
    found = {
        "input": fresh,
        "input_cache_read": counts.get(usage, "cache_read_input_tokens"),
        "input_cache_write_5m": five_minutes,
        "input_cache_write_1h": one_hour,
        "output": output - (thinking or 0) if output is not None else None,
        "output_reasoning": thinking,
    }
    for bucket, number in found.items():
        if number is not None:
            tokens[bucket] = tokens.get(bucket, 0) + number
    return fresh is not None and output is not None


def _writes(counts: Counts, usage: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Tokens written to the cache for five minutes and for an hour."""
    written = counts.get(usage, "cache_creation_input_tokens")
    split = usage.get("cache_creation")
    five_minutes = counts.get(split, "ephemeral_5m_input_tokens")
    one_hour = counts.get(split, "ephemeral_1h_input_tokens")
    if five_minutes is None and one_hour is None:
        return written, None
    if written is None:
        return five_minutes, one_hour
    # The split may stem from the start of a stream whose end reports more writes.
    grown = written - (five_minutes or 0) - (one_hour or 0)
    if grown < 0:
        counts.doubt(CONTRADICTORY_COUNTS)
        return written, None
    return (five_minutes or 0) + grown, one_hour
