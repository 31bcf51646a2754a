"""The token counts of one answer, and how each dialect writes them.

The formula, where the caller orders nothing:

    characters = length of every string value under `messages`, `system`, `input` and `instructions`
    input      = 8 + characters // 4
    output     = the smaller of 16 + characters % 97 and the request's own limit (`max_tokens` and its kin)

and zero for cache and reasoning. Embeddings have no output. Buckets are disjoint, named as in the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.e2e.provider.plan import Plan

PROMPT_FIELDS = ("messages", "system", "input", "instructions")
LIMIT_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in disjoint buckets."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0

    @property
    def input_total(self) -> int:
        return self.input + self.cache_read + self.cache_write + self.cache_write_1h

    @property
    def output_total(self) -> int:
        return self.output + self.reasoning

    def buckets(self) -> dict[str, int]:
        """The contract's bucket names, those that are not zero."""
        counts = {
            "input": self.input,
            "input_cache_read": self.cache_read,
            "input_cache_write_5m": self.cache_write,
            "input_cache_write_1h": self.cache_write_1h,
            "output": self.output,
            "output_reasoning": self.reasoning,
        }
        return {name: count for name, count in counts.items() if count}

    def as_chat(self) -> dict[str, Any]:
        """OpenAI chat completions: the prompt includes what was cached, the completion includes reasoning."""
        return {
            "prompt_tokens": self.input_total,
            "completion_tokens": self.output_total,
            "total_tokens": self.input_total + self.output_total,
            "prompt_tokens_details": {"cached_tokens": self.cache_read, "audio_tokens": 0}
            | ({"cache_write_tokens": self.cache_write} if self.cache_write else {}),
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def as_responses(self) -> dict[str, Any]:
        """OpenAI responses."""
        return {
            "input_tokens": self.input_total,
            "input_tokens_details": {"cached_tokens": self.cache_read}
            | ({"cache_write_tokens": self.cache_write} if self.cache_write else {}),
            "output_tokens": self.output_total,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.input_total + self.output_total,
        }

    def as_embeddings(self) -> dict[str, Any]:
        return {"prompt_tokens": self.input_total, "total_tokens": self.input_total}

    def as_messages(self, tier: str) -> dict[str, Any]:
        """Anthropic messages: `input_tokens` EXCLUDES what was read from or written to the cache."""
        usage: dict[str, Any] = {
            "input_tokens": self.input,
            "cache_creation_input_tokens": self.cache_write + self.cache_write_1h,
            "cache_read_input_tokens": self.cache_read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.cache_write,
                "ephemeral_1h_input_tokens": self.cache_write_1h,
            },
            "output_tokens": self.output_total,
            "service_tier": tier,
        }
        if self.reasoning:
            usage["output_tokens_details"] = {"thinking_tokens": self.reasoning}
        return usage


def characters(value: object) -> int:
    """Length of every string in a JSON value, keys, types and roles left out."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(characters, value))
    if isinstance(value, dict):
        return sum(
            characters(part) for name, part in value.items() if name not in {"type", "role", "id", "name"}
        )
    return 0


def usage_of(body: Mapping[str, Any], plan: Plan, *, generates: bool = True) -> Usage:
    """What answering `body` costs in tokens, by the plan where it says so and else by the formula above."""
    length = sum(characters(body.get(field)) for field in PROMPT_FIELDS)
    limits = [value for field in LIMIT_FIELDS if isinstance(value := body.get(field), int)]
    output = min([16 + length % 97, *limits]) if generates else 0
    return Usage(
        input=8 + length // 4 if plan.input is None else plan.input,
        output=output if plan.output is None else plan.output,
        cache_read=plan.cache_read or 0,
        cache_write=plan.cache_write or 0,
        cache_write_1h=plan.cache_write_1h or 0,
        reasoning=plan.reasoning or 0,
    )
