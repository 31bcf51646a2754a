"""Cohere's two counts of one call, and which of them the buckets hold.

`usage` (v2) or `meta` (v1) has `billed_units`, what is charged, and `tokens`, what the model saw: with its
own template, tool and citation tokens, which are many (8 against 503 for a greeting) and which nobody pays. A
call's buckets are what its price is multiplied by, so they hold `billed_units`; `tokens` counts only where
nothing is billed by name, as in some copies of the API.

`cached_tokens` and `tokens.reasoning_tokens` are parts of `tokens`. How many of them are among the billed
is not said, and Cohere has no price of its own for either, so as many as fit are put there: neither the
total nor the cost depends on it. Where not all fit (576 of 577 tokens cached, 377 of them billed) nothing
is contradictory, but not all that was reported is told: the usage is PARTIAL.

Images are billed in `image_tokens` beside the input, or in older models by the piece (`images`), reranking in
`search_units`.

Source: the API reference (`Usage`, `ApiMeta`).
"""

from __future__ import annotations

from typing import Any

from mmproto.providers.counts import Counts, divide
from mmproto.providers.facts import Facts, Measured


def measure(usage: Any, facts: Facts, *, has_output: bool = True) -> Measured:
    """Buckets of `usage` or `meta`. `has_output` is false for what generates nothing."""
    if not isinstance(usage, dict):
        return Measured()
    counts = Counts(facts)
    billed, seen = usage.get("billed_units"), usage.get("tokens")
    source = billed if isinstance(billed, dict) and billed else seen
    units: dict[str, float] = {}
    for unit, name in (("rerank_units", "search_units"), ("images", "images")):
        if amount := counts.units(billed, name):
            units[unit] = amount
    tokens: dict[str, int] = {}
    fits = True
    whole_input = counts.get(source, "input_tokens")
    whole_output = counts.get(source, "output_tokens") if has_output else None
    if whole_input is not None:
        cached = counts.get(usage, "cached_tokens")
        fits = fits and (cached or 0) <= whole_input
        cached = min(cached, whole_input) if cached is not None else None
        divide(counts, tokens, "input", whole_input, {"input_cache_read": cached})
    if whole_output is not None:
        reasoning = counts.get(seen, "reasoning_tokens")
        fits = fits and (reasoning or 0) <= whole_output
        reasoning = min(reasoning, whole_output) if reasoning is not None else None
        divide(counts, tokens, "output", whole_output, {"output_reasoning": reasoning})
    images = counts.get(billed, "image_tokens")
    if images is not None:
        tokens["input_image"] = images
    if not tokens and not units:
        return Measured()
    whole = whole_input is not None and (whole_output is not None or not has_output)
    return Measured(tokens, units, counts.quality(whole=fits and (whole or bool(units))))
