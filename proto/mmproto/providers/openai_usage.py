"""The usage object of OpenAI and of the many that copied it, in disjoint buckets.

`prompt_tokens` (Responses: `input_tokens`) INCLUDES cached, cache-write and audio tokens; `completion_tokens`
(`output_tokens`) INCLUDES reasoning and audio. OpenAI does not say how long a cache write lives; its writes
count as `input_cache_write_5m`, the shorter of the two buckets. Rejected prediction tokens are inside the
completion and priced like it: they have no bucket of their own.

Copies differ in what is inside what. Where a usage carries a total, the total decides; where it does not, the
host's quirks do (`hosts.Quirk`). Subsets that exceed their whole are cut to it and reported as contradictory:
totals stay the provider's own, and nothing goes below zero.
"""

from __future__ import annotations

from typing import Any

from mmproto.providers.counts import CONTRADICTORY_COUNTS, Counts, divide
from mmproto.providers.facts import Facts, Measured
from mmproto.providers.hosts import Quirk
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL


def measure(usage: Any, facts: Facts, quirks: frozenset[Quirk], *, has_output: bool = True) -> Measured:
    """Buckets of a whole `usage` object. `has_output` is false for embeddings, which generate nothing."""
    if not isinstance(usage, dict):
        return Measured()
    counts = Counts(facts)
    whole_input = counts.get(usage, "prompt_tokens", "input_tokens")
    whole_output = counts.get(usage, "completion_tokens", "output_tokens") if has_output else None
    total = counts.get(usage, "total_tokens")
    input_details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    output_details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    audio_in = counts.get(input_details, "audio_tokens")
    # Some put the detail one level up.
    reasoning = counts.get(output_details, "reasoning_tokens")
    if reasoning is None:
        reasoning = counts.get(usage, "reasoning_tokens")
    if has_output and whole_output is None and total is not None and whole_input is not None:
        # Legacy completions leave `completion_tokens` out where nothing was generated.
        whole_output = total - whole_input if total >= whole_input else None
    if whole_input is not None and whole_output is not None:
        whole_input, whole_output = _settle(
            counts,
            quirks,
            whole_input=whole_input,
            whole_output=whole_output,
            total=total,
            audio_in=audio_in or 0,
            reasoning=reasoning or 0,
        )
    tokens: dict[str, int] = {}
    if whole_input is not None:
        cached = counts.get(input_details, "cached_tokens")
        if cached is None:
            cached = counts.get(usage, "prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens")
        subsets = {
            "input_cache_read": cached,
            "input_cache_write_5m": counts.get(input_details, "cache_write_tokens", "cache_creation_tokens"),
            "input_audio": audio_in,
        }
        divide(counts, tokens, "input", whole_input, subsets)
    if whole_output is not None:
        subsets = {
            "output_reasoning": reasoning,
            "output_audio": counts.get(output_details, "audio_tokens"),
            "output_image": counts.get(output_details, "image_tokens"),
        }
        divide(counts, tokens, "output", whole_output, subsets)
    if not tokens:
        return Measured()
    complete = whole_input is not None and (whole_output is not None or not has_output)
    exact = complete and counts.sound
    return Measured(tokens, {}, QUALITY_EXACT if exact else QUALITY_PARTIAL)


def _settle(
    counts: Counts,
    quirks: frozenset[Quirk],
    *,
    whole_input: int,
    whole_output: int,
    total: int | None,
    audio_in: int,
    reasoning: int,
) -> tuple[int, int]:
    """(all input, all output) once it is known what the two reported numbers include."""
    beside = total - whole_input - whole_output if total is not None else None
    if beside and beside == reasoning:
        return whole_input, whole_output + reasoning
    if beside and beside == audio_in:
        return whole_input + audio_in, whole_output
    if beside and beside > 0 and Quirk.THINKING_ONLY_IN_TOTAL in quirks:
        return whole_input, whole_output + beside
    if beside is None:
        if Quirk.REASONING_OUTSIDE_COMPLETION in quirks:
            whole_output += reasoning
        if Quirk.AUDIO_OUTSIDE_PROMPT in quirks:
            whole_input += audio_in
    elif beside:
        counts.doubt(CONTRADICTORY_COUNTS)
    elif reasoning > whole_output and Quirk.REASONING_MAY_BE_OUTSIDE in quirks:
        whole_output += reasoning
    return whole_input, whole_output
