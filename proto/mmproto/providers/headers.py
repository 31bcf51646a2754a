"""What response headers say, whatever the dialect: which model served, at what tier, for how much. Data.

Sources: the providers' own API references; LiteLLM's `x-litellm-*`, Azure's `azureai-*` and `x-ms-*`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mmproto.providers.facts import Facts, nano_usd, text

# The model that served, for answers whose body does not name one.
_MODEL: Final = ("x-ms-served-model", "dg-model-name", "openai-model")
_TIER: Final = ("azureai-processed-tier", "x-gemini-service-tier")
_COST_USD: Final = ("x-litellm-response-cost",)


def take(headers: Mapping[str, str], facts: Facts) -> None:
    """Notes what the response's headers (names in lower case) tell. The body has the last word."""
    for name in _MODEL:
        if value := headers.get(name):
            facts.response_model = facts.response_model or text(value)
    for name in _TIER:
        if value := headers.get(name):
            facts.response_tier = facts.response_tier or text(value)
    for name in _COST_USD:
        if (value := headers.get(name)) is not None:
            facts.reported_cost_nano_usd = nano_usd(value)
