"""Gemini's `usageMetadata` in disjoint buckets, the same on AI Studio, on Vertex AI and in gRPC.

`promptTokenCount` INCLUDES cached tokens; `thoughtsTokenCount` is outside `candidatesTokenCount`, and
`toolUsePromptTokenCount` (what the provider's own tools fed back) outside the prompt. `totalTokenCount` is
the sum of the four, so it tells what is missing among them: a count of 0 is left out, as proto3 does.
Details divide each count by modality; documents are billed as text. Live sessions say `response...` for
`candidates...`.

Chunks of a stream repeat the usage so far. The last one counts, but a field that it lacks is kept from
before: some streams drop `candidatesTokenCount` at the end. Where that contradicts the last total, it is
flagged.

Sources: ai.google.dev/api/generate-content#UsageMetadata, the googleapis protos.
"""

from __future__ import annotations

from typing import Any, Final

from mmproto.providers.counts import CONTRADICTORY_COUNTS, Counts, divide
from mmproto.providers.facts import Facts, Measured
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL

TOTAL: Final = "totalTokenCount"
# What the total is the sum of, each under all its names.
_Names = tuple[str, ...]
_PROMPT: Final[_Names] = ("promptTokenCount",)
_CANDIDATES: Final[_Names] = ("candidatesTokenCount", "responseTokenCount")
_THOUGHTS: Final[_Names] = ("thoughtsTokenCount",)
_TOOL_USE: Final[_Names] = ("toolUsePromptTokenCount",)
_PARTS: Final = (_PROMPT, _CANDIDATES, _THOUGHTS, _TOOL_USE)

_PROMPT_DETAILS: Final = ("promptTokensDetails", "promptTokenDetails")
_CACHE_DETAILS: Final = ("cacheTokensDetails", "cachedContentTokensDetails")
_TOOL_DETAILS: Final = ("toolUsePromptTokensDetails",)
_CANDIDATES_DETAILS: Final = ("candidatesTokensDetails", "responseTokensDetails")

# The modality's name, or its number where enums are asked for as integers.
_IMAGE: Final = "IMAGE"
_VIDEO: Final = "VIDEO"
_AUDIO: Final = "AUDIO"
_MODALITIES: Final = {2: _IMAGE, 3: _VIDEO, 4: _AUDIO}


class RunningUsage:
    """The usage of one exchange or turn, as its chunks tell it."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._last: dict[str, Any] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing about tokens has been said."""
        return not self._fields

    def take(self, usage: Any) -> None:
        """Takes `usageMetadata`. In the first chunks of Vertex AI it is a `trafficType` and no usage."""
        if not isinstance(usage, dict):
            return
        reported = {name: value for name, value in usage.items() if _is_count(name) and value is not None}
        if reported:
            self._fields = {**self._fields, **reported}
            self._last = reported

    def measure(
        self, facts: Facts, *, finished: bool, blocked: bool = False, has_output: bool = True
    ) -> Measured:
        """The buckets.

        `finished`: the counts are the last ones. `blocked`: nothing was generated. `has_output` is false for
        embeddings, which generate nothing ever.
        """
        if self.is_empty:
            return Measured()
        counts = Counts(facts)
        usage = self._fields
        parts = {names: counts.get(usage, *names) for names in _PARTS}
        _settle(counts, parts, counts.get(self._last, TOTAL), has_output=has_output)
        if blocked and parts[_CANDIDATES] is None:
            parts[_CANDIDATES] = 0
        prompt, candidates = parts[_PROMPT], parts[_CANDIDATES]
        thoughts, tool_use = parts[_THOUGHTS], parts[_TOOL_USE]
        tokens: dict[str, int] = {}
        if prompt is not None or tool_use is not None:
            _put_input(counts, tokens, usage, prompt or 0, tool_use or 0)
        if candidates is not None:
            details = _by_modality(counts, usage, _CANDIDATES_DETAILS)
            subsets = {"output_audio": details.get(_AUDIO), "output_image": details.get(_IMAGE)}
            divide(counts, tokens, "output", candidates, subsets)
        if thoughts is not None:
            tokens["output_reasoning"] = thoughts
        if not tokens:
            return Measured()
        whole = prompt is not None and (candidates is not None or not has_output)
        exact = whole and finished and counts.sound
        return Measured(tokens, {}, QUALITY_EXACT if exact else QUALITY_PARTIAL)


def _is_count(name: str) -> bool:
    return name.endswith(("TokenCount", "TokensDetails", "TokenDetails"))


def _settle(counts: Counts, parts: dict[_Names, int | None], total: int | None, *, has_output: bool) -> None:
    """Finds by the total what was left out: nothing, because it is 0, or one of the four."""
    if total is None:
        return
    missing = total - sum(part for part in parts.values() if part is not None)
    if missing < 0:
        counts.doubt(CONTRADICTORY_COUNTS)
    elif parts[_PROMPT] is None:
        # With neither prompt nor candidates the total cannot be divided, unless nothing is generated.
        if parts[_CANDIDATES] is not None or not has_output:
            parts[_PROMPT] = missing
    elif parts[_CANDIDATES] is None:
        if has_output:
            parts[_CANDIDATES] = missing
    elif missing and parts[_THOUGHTS] is None and has_output:
        # All that is billed and not input is output; whether it was thought is a guess.
        parts[_CANDIDATES] = (parts[_CANDIDATES] or 0) + missing
        counts.doubt(CONTRADICTORY_COUNTS)
    elif missing:
        counts.doubt(CONTRADICTORY_COUNTS)


def _put_input(
    counts: Counts, tokens: dict[str, int], usage: dict[str, Any], prompt: int, tool_use: int
) -> None:
    """Divides all input into cached and fresh, each by modality."""
    whole = _by_modality(counts, usage, _PROMPT_DETAILS)
    cached = counts.get(usage, "cachedContentTokenCount")
    held = _cached_by_modality(counts, usage, cached or 0, prompt - sum(whole.values()), whole)
    cached_audio = min(held.get(_AUDIO, 0), cached or 0)
    modal = {kind: max(0, count - held.get(kind, 0)) for kind, count in whole.items()}
    for kind, count in _by_modality(counts, usage, _TOOL_DETAILS).items():
        modal[kind] = modal.get(kind, 0) + count
    subsets = {
        "input_cache_read": cached - cached_audio if cached is not None else None,
        "input_audio_cache_read": cached_audio or None,
        "input_audio": modal.get(_AUDIO),
        "input_image": modal.get(_IMAGE),
        "input_video": modal.get(_VIDEO),
    }
    divide(counts, tokens, "input", prompt + tool_use, subsets)


def _cached_by_modality(
    counts: Counts, usage: dict[str, Any], cached: int, text: int, whole: dict[str, int]
) -> dict[str, int]:
    """What of each modality came from the cache: without details text before anything else."""
    if any(isinstance(usage.get(name), list) for name in _CACHE_DETAILS):
        return _by_modality(counts, usage, _CACHE_DETAILS)
    held: dict[str, int] = {}
    left = cached - max(0, text)
    for kind in (_VIDEO, _IMAGE, _AUDIO):
        held[kind] = max(0, min(left, whole.get(kind, 0)))
        left -= held[kind]
    return held


def _by_modality(counts: Counts, usage: dict[str, Any], names: _Names) -> dict[str, int]:
    """Counts of everything but text, by modality."""
    found: dict[str, int] = {}
    details = next((usage[name] for name in names if isinstance(usage.get(name), list)), ())
    for detail in details:
        if isinstance(detail, dict):
            modality = detail.get("modality")
            kind = _MODALITIES.get(modality) if isinstance(modality, int) else str(modality).upper()
            count = counts.get(detail, "tokenCount", "tokens")
            if kind in (_IMAGE, _VIDEO, _AUDIO) and count is not None:
                found[kind] = found.get(kind, 0) + count
    return found
