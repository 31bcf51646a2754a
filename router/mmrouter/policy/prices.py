"""What a call may cost at most, and what it did cost, by the pipeline's own rate cards.

The same cards and the same arithmetic as the pipeline's, so that what the router counts before the
pipeline has seen a call is what the pipeline will count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from mmproto.ratebook import RateBook
from mmproto.rating import NANO, REQUESTS, RateCard
from mmproto.v1.call_pb2 import Call
from mmrouter.policy.facts import Facts

_TEXT_INPUT = ("input", "input_cache_write_5m", "input_cache_write_1h", "input_image")
_AUDIO_INPUT = ("input_audio",)
_TEXT_OUTPUT = ("output", "output_reasoning")
_AUDIO_OUTPUT = ("output_audio",)
# What providers put around a request: a system prompt for tools, separators between messages.
_OVERHEAD_TOKENS = 1_000


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Where a request sets no bound itself. Units: bytes for each token, tokens, tokens."""

    bytes_per_token: float
    max_input_tokens: int
    max_output_tokens: int


class Prices:
    """Rate cards, asked before and after a call."""

    def __init__(self, book: RateBook, assumptions: Assumptions) -> None:
        self._book = book
        self._assume = assumptions
        self._bounds: dict[tuple[str, bool], _Bound] = {}

    @property
    def version(self) -> str:
        return self._book.version

    def bound(self, provider: str, facts: Facts, has_output: bool, at_ns: int) -> tuple[int | None, str]:
        """Nano-dollars that the call costs at most and "", or None and why that is not known.

        A model that is not known because the request is too large to be held is taken for the dearest.
        """
        inputs = self._input_tokens(facts)
        outputs = 0
        if has_output:
            limit = self._assume.max_output_tokens if facts.max_output is None else facts.max_output
            outputs = min(limit, 10**7) * facts.choices
        if facts.model is None:
            shelves = [*self._book.overrides.get(provider, ()), *self._book.catalogue.get(provider, ())]
            cards = [card for m in shelves for card in m.cards if card.in_force(at_ns)]
            costs = [self._dearest(card, inputs, outputs, facts.audio) for card in cards]
            return (max(costs), "") if costs else (None, "unknown_provider")
        card, reason = self._book.find(provider, [facts.model], facts.tier, at_ns)
        return (None, reason) if card is None else (self._dearest(card, inputs, outputs, facts.audio), "")

    def cost(self, call: Call) -> int | None:
        """Nano-dollars of a call whose usage is known, None where it cannot be priced."""
        references = [name for name in (call.response_model, call.request_model) if name]
        card, _ = self._book.find(call.provider, references, call.service_tier, call.started_at_unix_ns)
        if card is None:
            return None
        cost, _ = self._book.pricer(card).cost(call.usage.tokens, call.usage.units)
        return cost

    def _input_tokens(self, facts: Facts) -> int:
        if facts.by_reference:
            return self._assume.max_input_tokens
        inside = math.ceil(facts.body_bytes / self._assume.bytes_per_token) + _OVERHEAD_TOKENS
        return min(inside, self._assume.max_input_tokens)

    def _dearest(self, card: RateCard, inputs: int, outputs: int, audio: bool) -> int:
        key = (card.id, audio)
        bound = self._bounds.get(key)
        if bound is None:
            bound = self._bounds[key] = _Bound.of(card, audio)
        return bound.nano_usd(inputs, outputs)


@dataclass(frozen=True, slots=True)
class _Bound:
    """The dearest rates of a card as (above this total input, nano-dollars for a million), rounded up."""

    inputs: tuple[tuple[int, int], ...]
    outputs: tuple[tuple[int, int], ...]
    fee: int

    @classmethod
    def of(cls, card: RateCard, audio: bool) -> _Bound:
        fee = card.rates.get(REQUESTS)
        return cls(
            _steps(card, _TEXT_INPUT + _AUDIO_INPUT if audio else _TEXT_INPUT),
            _steps(card, _TEXT_OUTPUT + _AUDIO_OUTPUT if audio else _TEXT_OUTPUT),
            0 if fee is None else math.ceil(Fraction(fee.usd) * NANO / fee.per),
        )

    def nano_usd(self, inputs: int, outputs: int) -> int:
        # Of the cliffs at or below this input the dearest is taken: the estimate of the input is an upper
        # bound, and the true input may be on the dearer side of a cliff that makes calls cheaper.
        rate_in = rate_out = 0
        for above, rate in self.inputs:
            if above <= inputs and rate > rate_in:
                rate_in = rate
        for above, rate in self.outputs:
            if above <= inputs and rate > rate_out:
                rate_out = rate
        return -(-(inputs * rate_in + outputs * rate_out) // 1_000_000) + self.fee


def _steps(card: RateCard, buckets: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    rates = [card.rates[name] for name in buckets if name in card.rates]
    cliffs = sorted({0, *(tier.above_input_tokens for rate in rates for tier in rate.tiers)})
    return tuple(
        (above, max(math.ceil(Fraction(r.usd_at(above + 1)) * NANO * 1_000_000 / r.per) for r in rates))
        for above in cliffs
        if rates
    )
