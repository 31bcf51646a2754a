"""What a provider itself says that a call cost, wherever it puts the number. Data, mostly.

Sources: the API references of OpenRouter, Vercel, xAI, Perplexity, DeepInfra and GitHub Copilot; the recorded
exchanges of the others. Amounts in other currencies than dollars, and units of which no price in dollars is
published, are left alone.
"""

from __future__ import annotations

from typing import Any, Final

from mmproto.providers.facts import nano_usd

# Where the amount stands inside the usage, and how many of its units are a dollar. Tried in this order.
_PLACES: Final = (
    (("cost",), 1),
    (("cost", "total_cost"), 1),  # Perplexity
    (("estimated_cost",), 1),  # DeepInfra
    (("cost_in_usd_ticks",), 10_000_000_000),  # xAI
    (("pydantic_ai_gateway", "cost_estimate"), 1),
)
_NAMES: Final = frozenset(place[0] for place, _ in _PLACES)
# Copilot counts in billionths of a credit, and a credit is a cent.
_NANO_CREDITS_PER_USD: Final = 100_000_000_000


def reported(usage: Any) -> int | None:
    """Nano-dollars that a usage object says its call cost; None where it says nothing.

    Where the caller's own key at the upstream provider was used (`is_byok`), `cost` is the gateway's fee
    alone, and what the upstream provider charged stands beside it: the call cost both.
    """
    if not isinstance(usage, dict) or _NAMES.isdisjoint(usage) or not _in_dollars(usage):
        return None
    for place, per_usd in _PLACES:
        value: Any = usage
        for name in place:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None and (amount := nano_usd(value, per_usd)) is not None:
            return amount + _upstream(usage)
    return None


def of_copilot(usage: Any) -> int | None:
    """Nano-dollars in GitHub Copilot's `copilot_usage`."""
    if not isinstance(usage, dict):
        return None
    return nano_usd(usage.get("total_nano_aiu"), _NANO_CREDITS_PER_USD)


def _in_dollars(usage: dict[str, Any]) -> bool:
    cost = usage.get("cost")
    currency = cost.get("currency") if isinstance(cost, dict) else None
    return currency in (None, "USD")


def _upstream(usage: dict[str, Any]) -> int:
    details = usage.get("cost_details")
    if usage.get("is_byok") is not True or not isinstance(details, dict):
        return 0
    return nano_usd(details.get("upstream_inference_cost")) or 0
