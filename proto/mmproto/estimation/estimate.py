"""Fills in the tokens that a served call certainly had and nobody reported.

What is estimated, and what is not:

- A call that was served and reported no input: its input, from the text of the request.
- One that reported no output, or that was cut off while its output grew: its output, from the text that came.
  A running count that the provider gave meanwhile is the least it can be.
- Nothing for errors, nor for requests without an answer: whether those were served is not known.

An estimate is never 0 and never EXACT. It is a lower bound, and an anomaly says so, where media are among the
input, where the provider adds context of its own (a kept conversation, what its own tools found), or where
bytes are missing and nobody knows how many. Thinking that the provider does not show is in no estimate.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from mmproto import usage
from mmproto.estimation import places, tokenizer
from mmproto.estimation.families import OTHER, Family, family_of
from mmproto.estimation.scanner import OTHERS
from mmproto.estimation.texts import AnswerText, RequestText
from mmproto.providers.facts import Facts, Measured
from mmproto.v1.usage_pb2 import QUALITY_ESTIMATED, QUALITY_EXACT, QUALITY_PARTIAL

# Anomalies: what an estimate could not see.
WITHOUT_MEDIA: Final = "estimate_without_media"
WITHOUT_CONTEXT: Final = "estimate_without_context"
WITHOUT_MISSING_BYTES: Final = "estimate_without_missing_bytes"

# Providers that send no usage at the end of a chat's stream unless they are asked for it: only there is a
# stream without usage foreseen, and worth a tokenizer while it passes. Elsewhere the characters must do.
_MUST_BE_ASKED: Final = frozenset({"openai", "azure.ai.openai", "azure.ai.inference"})
_STREAMED_WITHOUT: Final = frozenset({"chat", "text_completion"})
# Bedrock's chunks hold the events of the model's own API in base64.
_WRAPPED: Final = re.compile(rb'\s*\{\s*"bytes"\s*:\s*"([A-Za-z0-9+/=]*)"')


class Estimate:
    """Measures the text of one exchange and completes its usage."""

    __slots__ = (
        "_answer",
        "_answer_lost",
        "_answers",
        "_event_keys",
        "_may_come_without",
        "_operation",
        "_request",
        "_request_lost",
        "_tokenizer",
        "_unseen",
    )

    def __init__(self, dialect: str, operation: str, provider: str) -> None:
        self._operation = operation
        reads = operation in places.READ_TEXT
        self._request = RequestText(places.ASKED) if reads else None
        self._event_keys = places.OTHER_ANSWERS.get(dialect, places.ANSWERED)
        self._answers = operation in places.ANSWER_IN_TEXT
        self._answer: AnswerText | None = None
        self._tokenizer: tokenizer.Tokenizer | None = None
        self._may_come_without = (
            provider in _MUST_BE_ASKED
            and operation in _STREAMED_WITHOUT
            and dialect not in places.OTHER_ANSWERS
        )
        self._request_lost = self._answer_lost = False
        self._unseen = False  # bytes are missing, nobody knows how many

    def request_bytes(self, data: bytes) -> None:
        """The next bytes of the request's document."""
        if self._request is not None:
            self._request.feed(data)

    def request_end(self, facts: Facts, document: Mapping[str, Any]) -> None:
        """The request has been read, and says whether its numbers will be missing."""
        request = self._request
        if request is None:
            return
        options = document.get("stream_options")
        asked_for = isinstance(options, Mapping) and options.get("include_usage") is True
        foreseen = self._may_come_without and facts.stream_requested and not asked_for
        if foreseen and family_of(facts.request_model).has_tokenizer:
            self._tokenizer = tokenizer.load()
            if self._answer is not None and self._tokenizer is not None:
                self._answer.tokenise(self._tokenizer)
        request.end(self._tokenizer)

    def answer_bytes(self, data: bytes, *, streamed: bool) -> None:
        """The next bytes of the answer: of a document, or of a stream of text events."""
        if self._answers:
            if self._answer is None:
                keys = self._event_keys if streamed else places.ANSWERED
                self._answer = AnswerText(keys, self._tokenizer, streamed=streamed)
            self._answer.feed(data)

    def answer_event(self, data: bytes) -> None:
        """The payload of an event, of framings that are no text."""
        if self._answers:
            wrapped = _WRAPPED.match(data)
            self.answer_bytes(_unwrap(wrapped[1]) if wrapped else data, streamed=True)

    def lose(self, *, of_request: bool) -> None:
        """Bytes of the request, or of the answer, are missing."""
        if of_request:
            self._request_lost = True
        else:
            self._answer_lost = True
            if self._answer is not None:
                self._answer.lose()

    def complete(
        self, measured: Measured, facts: Facts, *, ended: bool, lengths: tuple[int, int] = (0, 0)
    ) -> Measured:
        """`measured` with estimates where it lacks numbers. `ended`: the answer came to its end.

        `lengths` of request and answer in bytes, 0 where unknown: after a gap they tell what is missing.
        """
        if measured.quality == QUALITY_EXACT or facts.error_type is not None:
            return measured
        family = family_of(facts.response_model)
        if family is OTHER:  # a name of the server's own, or none
            family = family_of(facts.request_model)
        tokens, estimated = dict(measured.tokens), list(measured.estimated)
        units_instead = self._operation == "embeddings" and measured.units
        if self._request is not None and usage.input_tokens(tokens) is None and not units_instead:
            share = self._share_seen(self._request.size, lengths[0], lost=self._request_lost)
            if self._request.tokens():
                tokens["input"] = max(1, round(self._input(self._request, family, facts) / share))
                estimated.append("input")
            else:
                facts.anomaly(WITHOUT_CONTEXT)
        if self._answers and (usage.output_tokens(tokens) is None or not ended):
            seen = 1
            if self._answer is not None:
                share = self._share_seen(self._answer.size, lengths[1], lost=self._answer_lost)
                seen = max(1, round(family.factor * self._answer.tokens() / share))
            if seen > (usage.output_tokens(tokens) or 0):
                rest = sum(tokens.get(name, 0) for name in usage.OUTPUT_BUCKETS if name != "output")
                tokens["output"] = max(1, seen - rest)
                estimated.append("output")
        if not estimated:
            return measured
        if self._unseen:
            facts.anomaly(WITHOUT_MISSING_BYTES)
        missing = self._request is not None and usage.input_tokens(tokens) is None and not units_instead
        quality = QUALITY_PARTIAL if self._unseen or missing else QUALITY_ESTIMATED
        return Measured(tokens, measured.units, quality, tuple(estimated))

    def _share_seen(self, seen: int, length: int, *, lost: bool) -> float:
        """How much of a body its text was read from, 1 where nobody can tell."""
        if not lost:
            return 1.0
        if not length or not seen:
            self._unseen = True
            return 1.0
        return min(1.0, seen / length)

    def _input(self, request: RequestText, family: Family, facts: Facts) -> float:
        if any(request.found[mark] for mark in places.NOT_TEXT):
            facts.anomaly(WITHOUT_MEDIA)
        if request.found[OTHERS]:
            facts.anomaly(WITHOUT_CONTEXT)
        count = family.factor * request.tokens()
        if self._operation in places.ANSWER_IN_TEXT:
            count += family.start + family.message * request.found[places.ROLE]
            if request.found[places.TOOLS]:
                count += family.tools + family.typed * request.found[places.TYPED]
        return count

    def __repr__(self) -> str:
        return "Estimate()"


def _unwrap(encoded: bytes) -> bytes:
    try:
        return base64.b64decode(encoded)
    except binascii.Error:
        return b""
