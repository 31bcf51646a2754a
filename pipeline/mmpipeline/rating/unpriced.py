"""What is missing where a call has no price, and what it would take: the text of the alert.

It names the provider, the model and the reason, and gives the line that a person would add to the file of
negotiated rates, with dots where the prices go. Where no line would help it says so.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from mmproto.ratebook import RateBook
from mmproto.rating import NANO, SERVICE_TIERS, STANDARD, served_tier
from mmproto.usage import TOKEN_BUCKETS
from mmproto.v1.call_pb2 import Call

_NO_RATE = "no_rate_for_"

# Reasons that no price would help against.
_NOT_OF_PRICES = {
    "no_usage": "no usage was reported and none could be estimated, so no price would help; clients that "
    "stream may have to ask for it (OpenAI: stream_options.include_usage)",
    "unknown_bucket": "a kind of usage was reported that this version does not know; a newer one may",
    "invalid_count": "a count was reported that no real call has",
    "absurd_cost": "the counts that were reported would cost a million dollars or more",
    "rating_failed": "rating failed; the log of the process that charged says how",
}


def summary(book: RateBook, overrides: Path | None, call: Call, reason: str) -> str:
    """One line: which calls have no price, why, and what would give them one. `call` is one of them."""
    model = call.response_model or call.request_model
    named = f"calls of {call.provider or '(no provider)'} {model or '(no model)'} have no price"
    if reason in _NOT_OF_PRICES:
        return f"{named}: {_NOT_OF_PRICES[reason]}"
    if not call.provider or not model:
        what = "provider" if not call.provider else "model"
        return f"{named}: they name no {what}, so nothing tells what they cost ({reason})"
    tier = served_tier(call.service_tier)
    why, is_possible = _why(book, call, model, tier, reason)
    if not is_possible:
        return f"{named}: {why}"
    file = overrides if overrides is not None else "a file that rating.overrides names"
    return (
        f"{named}: {why}; add what it costs to {file} and run `mmpipeline prices import`, then `mmpipeline "
        f"prices reprice` for calls before that: {_line(call, model, tier, reason)}"
    )


def _why(book: RateBook, call: Call, model: str, tier: str, reason: str) -> tuple[str, bool]:
    """What is missing, and whether a negotiated rate can say it."""
    if reason == "unknown_provider":
        return f"{book.version} has no prices of this provider", True
    if reason == "unknown_model":
        return f"{book.version} does not know the model", True
    if reason == "unknown_tier":
        if tier not in SERVICE_TIERS:
            known = ", ".join(SERVICE_TIERS)
            return (
                f"they were served in a tier '{tier}' that has no price; tiers that can have are {known}",
                False,
            )
        since = _first_after(book, call, model, tier)
        before = f" before {_day(since)}" if since is not None else ""
        return f"the served tier '{tier}' has no card{before}", True
    if reason.startswith(_NO_RATE):
        return f"the card of the model has no rate for '{reason.removeprefix(_NO_RATE)}'", True
    return reason, False


def _first_after(book: RateBook, call: Call, model: str, tier: str) -> int | None:
    """When the model's first card of the tier begins, if that is after the call."""
    starts = [
        card.effective_from_unix_ns
        for one in book.models(call.provider, model)
        for card in one.cards
        if card.service_tier == tier and card.effective_from_unix_ns > call.started_at_unix_ns
    ]
    return min(starts, default=None)


def _line(call: Call, model: str, tier: str, reason: str) -> str:
    buckets = [bucket for bucket in (*call.usage.tokens, *call.usage.units) if bucket.isidentifier()]
    if reason.startswith(_NO_RATE):
        buckets.append(reason.removeprefix(_NO_RATE))
    tokens = sorted(TOKEN_BUCKETS.intersection(buckets)) or ["input", "output"]
    units = sorted(set(buckets) - TOKEN_BUCKETS)
    parts = [
        f"provider: {_quoted(call.provider)}",
        f"models: [{_quoted(model)}]",
        *([] if tier == STANDARD else [f"service_tier: {tier}"]),
        f'effective_from: "{_day(call.started_at_unix_ns)}"',
        "source: ...",
        f"usd_per_million: {{{', '.join(f'{bucket}: ...' for bucket in tokens)}}}",
        *([f"usd_each: {{{', '.join(f'{unit}: ...' for unit in units)}}}"] if units else []),
    ]
    return f"{{{', '.join(parts)}}}"


def _quoted(text: str) -> str:
    """A name as YAML takes it, whatever is in it: JSON's text is YAML's as well."""
    return json.dumps(text)


def _day(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns // NANO, UTC).strftime("%Y-%m-%d")
