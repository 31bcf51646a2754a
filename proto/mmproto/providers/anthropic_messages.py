"""Anthropic messages: input EXCLUDES cache reads and writes; stream usage is laid over, field by field.

A stream opens with `message_start`, which has the exact input and a placeholder of 1 to 8 output tokens, and
closes with `message_delta`, which has the final numbers of whatever changed. The delta's fields replace the
start's, they are not added; the placeholder is never reported as output.

`cache_creation` splits writes by lifetime; without it all writes count as 5 minutes, the API's default.

`iterations` lists the passes of one request. The top level is the sum of the passes of type `message`; passes
of other types (`compaction`, `advisor_message`) are billed beside it. A pass without a model of its own ran
on the requested model and is added here. An advisor pass names its own model and price: one call has one
model, so it cannot be added without pricing it wrongly; it is left out, named `other_model_iterations`, and
the quality is PARTIAL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import VALUE, Tree
from mmproto.providers.counts import CONTRADICTORY_COUNTS, Counts
from mmproto.providers.dialect import Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL

_MESSAGE: Final[Tree] = {
    "id": VALUE,
    "type": VALUE,
    "model": VALUE,
    "stop_reason": VALUE,
    "usage": VALUE,
    "error": VALUE,
    "code": VALUE,
}
_TELLING: Final = frozenset({"message_start", "message_delta", "message_stop", "error"})
OTHER_MODEL: Final = "other_model_iterations"


class AnthropicMessages(Dialect):
    """POST .../v1/messages"""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "anthropic"
    response_tree: ClassVar[Tree] = _MESSAGE
    telling_names: ClassVar[frozenset[str]] = _TELLING
    event_tree: ClassVar[Tree] = {
        "type": VALUE,
        "message": _MESSAGE,
        "delta": {"stop_reason": VALUE},
        "usage": VALUE,
        "error": VALUE,
    }

    _usage: Mapping[str, Any] | None = None
    _final: bool = False  # the output count is the last one, not the placeholder

    def read_request(self, document: Any) -> None:
        """As every request; Claude Code puts its session into `metadata.user_id`."""
        super().read_request(document)
        facts = self.facts
        user, mark, session = facts.end_user.partition("_session_")
        if mark and not facts.session:
            facts.end_user, facts.session = user, session

    def read_response(self, document: Any) -> None:
        """Takes a message or an error."""
        if not isinstance(document, dict):
            return
        self._take_message(document)
        self._final = self.facts.terminated = True
        if document.get("error"):
            self.take_error(document["error"], document.get("code"))

    def tells(self, data: bytes) -> bool:
        """All but the content events and pings."""
        return b"message_" in data or b'"error"' in data

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes one of the message events or an error."""
        kind = text(document.get("type")) or name
        if kind == "message_start" and isinstance(document.get("message"), dict):
            self._take_message(document["message"])
        elif kind == "message_delta":
            self.facts.response_shaped = True
            self._take_usage(document.get("usage"))
            usage = document.get("usage")
            if isinstance(usage, dict) and usage.get("output_tokens") is not None:
                self._final = True
            delta = document.get("delta")
            if isinstance(delta, dict):
                self._take_stop(delta.get("stop_reason"))
        elif kind == "message_stop":
            self.facts.terminated = True
        elif kind == "error" or document.get("error"):
            self.take_error(document.get("error"))
            self.facts.terminated = True

    def _take_message(self, message: dict[str, Any]) -> None:
        facts = self.facts
        facts.response_shaped = facts.response_shaped or message.get("type") == "message"
        facts.response_id = text(message.get("id"))
        facts.response_model = text(message.get("model"))
        self._take_stop(message.get("stop_reason"))
        self._take_usage(message.get("usage"))

    def _take_stop(self, reason: Any) -> None:
        if reason := text(reason):
            self.facts.finish_reasons = [reason]

    def _take_usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            reported = {name: value for name, value in usage.items() if value is not None}
            self._usage = {**(self._usage or {}), **reported}
            self.facts.response_tier = text(reported.get("service_tier")) or self.facts.response_tier

    def measured(self, *, complete: bool) -> Measured:
        """The overlaid usage; without a final output count, the input alone."""
        usage = self._usage
        if usage is None:
            return Measured()
        counts = Counts(self.facts)
        tokens: dict[str, int] = {}
        whole = _add(counts, tokens, usage, with_output=self._final)
        iterations = usage.get("iterations")
        for iteration in iterations if isinstance(iterations, list) else ():
            if not isinstance(iteration, dict) or iteration.get("type") in (None, "message"):
                continue
            model = text(iteration.get("model"))
            if model and model not in (self.facts.response_model, self.facts.request_model):
                counts.doubt(OTHER_MODEL)
            else:
                _add(counts, tokens, iteration, with_output=True)
        units: dict[str, float] = {}
        searches = counts.get(usage.get("server_tool_use"), "web_search_requests")
        if searches is not None:
            units["web_searches"] = float(searches)
        if not tokens:
            return Measured()
        exact = whole and self._final and counts.sound
        return Measured(tokens, units, QUALITY_EXACT if exact else QUALITY_PARTIAL)


def _add(counts: Counts, tokens: dict[str, int], usage: Mapping[str, Any], *, with_output: bool) -> bool:
    """Adds the buckets of one usage object; whether it has both input and output."""
    fresh = counts.get(usage, "input_tokens")
    read = counts.get(usage, "cache_read_input_tokens")
    written = counts.get(usage, "cache_creation_input_tokens")
    split = usage.get("cache_creation")
    five_minutes = counts.get(split, "ephemeral_5m_input_tokens")
    one_hour = counts.get(split, "ephemeral_1h_input_tokens")
    if five_minutes is None and one_hour is None:
        five_minutes = written
    elif written is not None:
        # The split may stem from the start of a stream whose end reports more writes.
        grown = written - (five_minutes or 0) - (one_hour or 0)
        if grown < 0:
            counts.doubt(CONTRADICTORY_COUNTS)
            five_minutes, one_hour = written, None
        else:
            five_minutes = (five_minutes or 0) + grown
    output = counts.get(usage, "output_tokens") if with_output else None
    thinking = (
        counts.get(usage.get("output_tokens_details"), "thinking_tokens") if output is not None else None
    )
    if thinking is not None and output is not None and thinking > output:
        counts.doubt(CONTRADICTORY_COUNTS)
        thinking = output
    found = {
        "input": fresh,
        "input_cache_read": read,
        "input_cache_write_5m": five_minutes,
        "input_cache_write_1h": one_hour,
        "output": output - (thinking or 0) if output is not None else None,
        "output_reasoning": thinking,
    }
    for bucket, count in found.items():
        if count is not None:
            tokens[bucket] = tokens.get(bucket, 0) + count
    return fresh is not None and output is not None


ROUTES: Final = (Route(r".*/v1/messages", AnthropicMessages),)
