"""The usage object of OpenAI and of the many that copied it, in disjoint buckets.

`prompt_tokens` (Responses: `input_tokens`) INCLUDES cached, cache-write, audio and image tokens;
`completion_tokens` (`output_tokens`) INCLUDES reasoning and audio. OpenAI does not say how long a cache write
lives; its writes count as `input_cache_write_5m`, the shorter of the two buckets. Rejected prediction tokens
are inside the completion and priced like it: they have no bucket of their own.

Copies differ in names, which tables here list, and in what is inside what. Where a usage carries a total,
the total decides; where it does not, the host's quirks do (`hosts.Quirk`). Subsets that exceed their whole
are cut to it and reported as contradictory: totals stay the provider's own, and nothing goes below zero.
Cached tokens and tokens of a modality may overlap, which only realtime sessions take apart
(`cached_tokens_details`); elsewhere what is cached counts as cached.
"""

from __future__ import annotations

from typing import Any, Final

from mmproto.providers import cost
from mmproto.providers.counts import CONTRADICTORY_COUNTS, Counts, divide
from mmproto.providers.facts import Facts, Measured
from mmproto.providers.hosts import Quirk
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL

# Assistants and transcriptions write `..._token_details`, everything else the plural.
_INPUT_DETAILS: Final = (
    "prompt_tokens_details",
    "input_tokens_details",
    "prompt_token_details",
    "input_token_details",
)
_OUTPUT_DETAILS: Final = (
    "completion_tokens_details",
    "output_tokens_details",
    "completion_token_details",
    "output_token_details",
)
# The same number has other names at the top level, or in the details of gateways that speak several dialects.
_READ: Final = (
    "cached_tokens",
    "prompt_cache_hit_tokens",
    "num_cached_tokens",
    "cache_read_input_tokens",
    "cached_prompt_tokens",
)
_WRITTEN: Final = (
    "cache_write_tokens",
    "cache_creation_tokens",
    "cache_creation_input_tokens",
    "cache_write_input_tokens",
)
# Searches that the provider made on its own and charges for, by the place of their number.
_SEARCHES: Final = (
    ("num_search_queries",),  # Perplexity
    ("server_side_tool_usage_details", "web_search_calls"),  # xAI
    ("server_tool_use", "web_search_requests"),  # gateways to Anthropic
)

_SEARCH_NAMES: Final = frozenset(place[0] for place in _SEARCHES)
_CACHE_NAMES: Final = frozenset((*_READ, *_WRITTEN))


def measure(usage: Any, facts: Facts, quirks: frozenset[Quirk], *, has_output: bool = True) -> Measured:
    """Buckets of a whole `usage` object. `has_output` is false for embeddings, which generate nothing.

    The cost that the usage reports goes into `facts`.
    """
    if not isinstance(usage, dict):
        return Measured()
    amount = cost.reported(usage)
    if amount is not None and Quirk.COST_IS_ANOTHERS not in quirks:
        facts.reported_cost_nano_usd = amount
    counts = Counts(facts)
    input_details, output_details = _first(usage, _INPUT_DETAILS), _first(usage, _OUTPUT_DETAILS)
    whole_input = _whole_input(counts, usage)
    whole_output = counts.get(usage, "completion_tokens", "output_tokens") if has_output else None
    total = counts.get(usage, "total_tokens")
    if has_output and whole_output is None and total is not None and whole_input is not None:
        # Legacy completions leave `completion_tokens` out where nothing was generated.
        whole_output = total - whole_input if total >= whole_input else None
    inside = _inside_input(counts, usage, input_details)
    reasoning = _either(counts, output_details, usage, "reasoning_tokens")
    if whole_input is not None and whole_output is not None:
        whole_input, whole_output = _settle(
            counts,
            quirks,
            whole_input=whole_input,
            whole_output=whole_output,
            total=total,
            inside=inside,
            reasoning=reasoning or 0,
            is_gemini="gemini" in (facts.response_model or facts.request_model).lower(),
        )
    tokens: dict[str, int] = {}
    if whole_input is not None:
        divide(counts, tokens, "input", whole_input, _fitting(inside, whole_input))
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
    return Measured(tokens, searches(counts, usage), QUALITY_EXACT if exact else QUALITY_PARTIAL)


def measure_images(usage: Any, facts: Facts) -> Measured:
    """As `measure`, for a usage of which the output is images, except where it says that some is text."""
    measured = measure(usage, facts, frozenset())
    split = _first(usage, _OUTPUT_DETAILS) if isinstance(usage, dict) else None
    said = isinstance(split, dict) and split.get("image_tokens") is not None
    if "output" in measured.tokens and not said:
        tokens = measured.tokens
        tokens["output_image"] = tokens.pop("output") + tokens.get("output_image", 0)
    return measured


def searches(counts: Counts, usage: dict[str, Any]) -> dict[str, float]:
    """The searches in a usage object as units; none where it names none."""
    if _SEARCH_NAMES.isdisjoint(usage):
        return {}
    for place in _SEARCHES:
        source: Any = usage
        for name in place[:-1]:
            source = source.get(name) if isinstance(source, dict) else None
        found = counts.get(source, place[-1])
        if found:
            return {"web_searches": float(found)}
    return {}


def _first(usage: dict[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if found := usage.get(name):
            return found
    return None


def _either(counts: Counts, details: Any, usage: dict[str, Any], *names: str) -> int | None:
    """A detail, which some put one level up."""
    found = counts.get(details, *names)
    return found if found is not None else counts.get(usage, *names)


def _whole_input(counts: Counts, usage: dict[str, Any]) -> int | None:
    whole = counts.get(usage, "prompt_tokens", "input_tokens")
    if whole is None:
        hit = counts.get(usage, "prompt_cache_hit_tokens")
        missed = counts.get(usage, "prompt_cache_miss_tokens")
        if hit is not None and missed is not None:
            whole = hit + missed
    return whole


def _inside_input(counts: Counts, usage: dict[str, Any], details: Any) -> dict[str, int | None]:
    """The parts of the input by bucket, before they are held against the whole."""
    inside: dict[str, int | None] = {"input_cache_read": None, "input_cache_write_5m": None}
    if isinstance(details, dict):
        inside["input_cache_read"] = counts.get(details, *_READ)
        inside["input_cache_write_5m"] = counts.get(details, *_WRITTEN)
    if not _CACHE_NAMES.isdisjoint(usage):
        for bucket, names in (("input_cache_read", _READ), ("input_cache_write_5m", _WRITTEN)):
            if inside[bucket] is None:
                inside[bucket] = counts.get(usage, *names)
    for name in ("audio", "image", "video"):
        inside[f"input_{name}"] = counts.get(details, f"{name}_tokens")
    if isinstance(details, dict) and (split := details.get("cached_tokens_details")) is not None:
        _take_cached_out(counts, inside, split)
    return inside


def _take_cached_out(counts: Counts, inside: dict[str, int | None], split: Any) -> None:
    """Takes the cached tokens of a modality out of it, and those that have a price of their own apart."""
    read, sound, seen = inside["input_cache_read"], inside["input_audio"] or 0, inside["input_image"] or 0
    audio, image = counts.get(split, "audio_tokens"), counts.get(split, "image_tokens")
    if read is not None and audio is not None and audio <= min(read, sound):
        inside["input_cache_read"] = read - audio
        inside["input_audio"] = sound - audio
        inside["input_audio_cache_read"] = audio
    if image is not None and image <= seen:
        inside["input_image"] = seen - image


def _fitting(inside: dict[str, int | None], whole: int) -> dict[str, int | None]:
    """`inside` without the tokens of a modality that were cached: what overlaps counts as cached."""
    modalities = [bucket for bucket in ("input_audio", "input_image", "input_video") if inside[bucket]]
    if not modalities:
        return inside
    room = whole - sum(count or 0 for bucket, count in inside.items() if "cache" in bucket)
    fitting = dict(inside)
    for bucket in modalities:
        count = inside[bucket] or 0
        if 0 <= room < count <= whole:
            fitting[bucket] = room
        room -= fitting[bucket] or 0
    return fitting


def _settle(
    counts: Counts,
    quirks: frozenset[Quirk],
    *,
    whole_input: int,
    whole_output: int,
    total: int | None,
    inside: dict[str, int | None],
    reasoning: int,
    is_gemini: bool,
) -> tuple[int, int]:
    """(all input, all output) once it is known what the two reported numbers include."""
    audio_in = inside["input_audio"] or 0
    cached = (inside["input_cache_read"] or 0) + (inside["input_cache_write_5m"] or 0)
    beside = total - whole_input - whole_output if total is not None else None
    if beside and beside == reasoning:
        return whole_input, whole_output + reasoning
    if beside and beside in (audio_in, cached):
        return whole_input + beside, whole_output
    if beside and beside > 0 and (is_gemini or Quirk.THINKING_ONLY_IN_TOTAL in quirks):
        return whole_input, whole_output + beside
    if beside is None:
        if Quirk.REASONING_OUTSIDE_COMPLETION in quirks:
            whole_output += reasoning
        if Quirk.AUDIO_OUTSIDE_PROMPT in quirks:
            whole_input += audio_in
    elif beside:
        counts.doubt(CONTRADICTORY_COUNTS)
    elif Quirk.REASONING_OUTSIDE_TOTAL in quirks or (
        Quirk.REASONING_MAY_BE_OUTSIDE in quirks and (is_gemini or reasoning > whole_output)
    ):
        whole_output += reasoning
    return whole_input, whole_output
