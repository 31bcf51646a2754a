"""Anthropic messages: stream usage is laid over, field by field; the passes of other models are portions.

A stream opens with `message_start`, which has the exact input and a placeholder of 1 to 8 output tokens,
and closes with `message_delta`, which has the final numbers of whatever changed. The delta's fields replace
the start's, they are not added; the placeholder is never reported as output, nor is what a delta without a
reason to stop has counted so far.

`speed: fast` is a tier with a price of its own, whatever `service_tier` says beside it. Searches of the web
are a unit; fetches cost nothing but their tokens. `inference_geo` has no bucket: no catalogue has rates by
region.

A request that is refused before anything was generated is not billed by Anthropic itself, though its usage
has input tokens. What a subscription pays for shows in the limits that the answer's headers tell: those of
plans are `anthropic-ratelimit-unified-*`, and say whether usage beyond the plan is being paid for
(`overage-in-use`).

The same shapes come from Azure (`/anthropic/v1/messages`), DeepSeek, OpenRouter, Snowflake, GitHub Copilot
and any gateway; Vertex AI and Bedrock put them into paths and framings of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import VALUE, Tree
from mmproto.providers import cost, plans
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.dialects.anthropic import usage as anthropic_usage
from mmproto.providers.facts import Facts, Measured, Portion, text
from mmproto.providers.route import Route

MESSAGE: Final[Tree] = {
    "id": VALUE,
    "type": VALUE,
    "model": VALUE,
    "stop_reason": VALUE,
    "usage": VALUE,
    "error": VALUE,
    "code": VALUE,
}
_TELLING: Final = frozenset({"message_start", "message_delta", "message_stop", "error"})
_FAST: Final = "fast"
_REFUSAL: Final = "refusal"
_PLAN: Final = "anthropic-ratelimit-unified-"
_PAID_BEYOND: Final = f"{_PLAN}overage-in-use"


class AnthropicMessages(Dialect):
    """POST .../v1/messages"""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "anthropic"
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "speed": VALUE}
    response_tree: ClassVar[Tree] = MESSAGE
    telling_names: ClassVar[frozenset[str]] = _TELLING
    event_tree: ClassVar[Tree] = {
        "type": VALUE,
        "message": MESSAGE,
        "delta": {"stop_reason": VALUE},
        "usage": VALUE,
        "error": VALUE,
    }

    _usage: Mapping[str, Any] | None = None
    _counted: bool = False  # the output count is no placeholder any more, but perhaps still growing
    _final: bool = False  # it is the last one
    _on_plan: bool = False  # a subscription pays

    def read_request(self, document: Any) -> None:
        """As every request; Claude Code puts its session into `metadata.user_id`."""
        super().read_request(document)
        facts = self.facts
        if isinstance(document, dict) and document.get("speed") == _FAST:
            facts.request_tier = _FAST
        user, mark, session = facts.end_user.partition("_session_")
        if mark and not facts.session:
            facts.end_user, facts.session = user, session

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """The limits that apply show whether a subscription pays."""
        super().read_response_head(status, headers)
        limited = any(name.startswith(_PLAN) for name in headers)
        self._on_plan = limited and headers.get(_PAID_BEYOND) != "true"

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
                self._counted = True
            delta = document.get("delta")
            if isinstance(delta, dict):
                self._take_stop(delta.get("stop_reason"))
            self._final = self._counted and bool(self.facts.finish_reasons)
        elif kind == "message_stop":
            self.facts.terminated = True
            self._final = self._counted
        elif kind == "error" or document.get("error"):
            self.take_error(document.get("error"))
            self.facts.terminated = True

    def _take_message(self, message: dict[str, Any]) -> None:
        facts = self.facts
        facts.response_shaped = facts.response_shaped or message.get("type") == "message"
        facts.response_id = text(message.get("id")) or facts.response_id
        facts.response_model = text(message.get("model")) or facts.response_model
        self._take_stop(message.get("stop_reason"))
        self._take_usage(message.get("usage"))

    def _take_stop(self, reason: Any) -> None:
        if reason := text(reason):
            self.facts.finish_reasons = [reason]

    def _take_usage(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        reported = {name: value for name, value in usage.items() if value is not None}
        self._usage = {**(self._usage or {}), **reported}
        facts = self.facts
        facts.response_tier = _tier(self._usage, facts.request_tier) or facts.response_tier
        if (amount := cost.reported(self._usage)) is not None:
            facts.reported_cost_nano_usd = amount

    def close(self, *, complete: bool) -> None:
        """Tells the passes of other models apart, each at its own price, and knows who pays."""
        counts, usage = Counts(self.facts), self._usage or {}
        plans.mark(self.asked, self.facts)
        if self._on_plan:
            self.facts.response_tier = plans.SUBSCRIPTION
        if self.facts.finish_reasons == [_REFUSAL] and usage.get("output_tokens") == 0:
            self.paid_by_portions = self.asked.provider == AnthropicMessages.flavour
        for other in self._passes(counts).others:
            self.portions.append(
                Portion(
                    Facts(
                        request_model=other.model,
                        streamed=self.facts.stream_requested,
                        response_id=self.facts.response_id,
                        response_model=other.model,
                        response_tier=self.facts.response_tier,
                        terminated=True,
                    ),
                    Measured(other.tokens, {}, counts.quality(whole=other.whole)),
                    suffix=f"#iteration-{other.number}",
                )
            )

    def measured(self, *, complete: bool) -> Measured:
        """The overlaid usage; without a final output count, the input alone."""
        counts = Counts(self.facts)
        own = self._passes(counts)
        if not own.tokens:
            return Measured()
        units: dict[str, float] = {}
        searches = counts.get((self._usage or {}).get("server_tool_use"), "web_search_requests")
        if searches is not None:
            units["web_searches"] = float(searches)
        return Measured(own.tokens, units, counts.quality(whole=own.whole and self._final))

    def _passes(self, counts: Counts) -> anthropic_usage.Passes:
        facts = self.facts
        model = facts.response_model or facts.request_model
        return anthropic_usage.count(counts, self._usage or {}, model, with_output=self._final)


def _tier(usage: Mapping[str, Any], requested: str) -> str:
    """The tier that served: the speed has the last word where it was fast."""
    speed = text(usage.get("speed"))
    if speed == _FAST or (not speed and requested == _FAST):
        return _FAST
    return text(usage.get("service_tier"))


ROUTES: Final = (Route(r".*/v1/messages", AnthropicMessages),)
