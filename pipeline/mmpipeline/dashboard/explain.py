"""What the names of reasons mean, and what to do about them, in one sentence each."""

from __future__ import annotations

from typing import Final

QUALITIES: Final = {
    "EXACT": ("Exact", "the provider's own final numbers, read without a gap"),
    "PARTIAL": ("Partial", "some numbers were reported and others are missing"),
    "ESTIMATED": ("Estimated", "at least one number is a tokenizer's or a byte estimate"),
    "UNKNOWN": ("Unknown", "no usage was reported or none could be read"),
}

_REASONS: Final = {
    "unknown_model": "The catalogue has no price for this model. Add one to the file rating.overrides names.",
    "unknown_provider": "The catalogue does not know this provider. Add its rates to rating.overrides.",
    "unknown_tier": "The catalogue has no price for this service tier. Add one to rating.overrides.",
    "no_usage": "The provider reported no usage, so there is nothing to price.",
    "no_price_at_date": "No price was in force when the call was made.",
}


def unpriced(reason: str) -> str:
    """Why calls have no price, and what to do."""
    if reason.startswith("no_rate_for_"):
        bucket = reason.removeprefix("no_rate_for_")
        return f"The price list has no rate for {bucket} tokens. Add one to rating.overrides."
    return _REASONS.get(reason, reason.replace("_", " "))
