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


# The status codes of gRPC by number, as its documentation names them; 0 is OK.
_GRPC_CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


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
    take_grpc_status(headers, facts)


def take_grpc_status(headers: Mapping[str, str], facts: Facts) -> None:
    """Notes how a gRPC call ended: told after the messages, or in place of them."""
    status = headers.get("grpc-status", "")
    if status == "0":
        facts.terminated = True
    elif status:
        known = status.isdecimal() and int(status) < len(_GRPC_CODES)
        facts.error_type = _GRPC_CODES[int(status)] if known else text(status)
