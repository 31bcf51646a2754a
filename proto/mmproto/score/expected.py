"""What is known about a recorded exchange: the values that a careful product may report, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

# Fields with one value each. Tokens are compared by rules of their own (`compare`).
PLAIN: Final = ("model_requested", "model_response", "streaming", "usage_reported", "billable")
SUBSETS: Final = ("cached_read_tokens", "cache_write_tokens", "reasoning_tokens")
TOTALS: Final = ("input_tokens", "output_tokens")
TOKENS: Final = TOTALS + SUBSETS


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected. `values` holds every field that the record has; None there means not reported."""

    provider: str
    endpoint: str  # the flavour of the API and its operation, as "openai.chat"
    values: Mapping[str, Any]
    totals: tuple[tuple[Any, Any], ...]  # accepted pairs of input and output tokens
    accepted: Mapping[str, tuple[Any, ...]]  # other values of the other fields that are right too
    service_tier: str
    ambiguous: bool

    @property
    def billable(self) -> bool:
        """Whether the exchange itself costs money."""
        return self.values.get("billable") is True

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Expected | None:
        """Reads the `expected` of a record; None where it says nothing of use."""
        provider = document.get("provider")
        if not isinstance(provider, str) or not provider:
            return None
        alternatives = document.get("alt")
        others = alternatives if isinstance(alternatives, Mapping) else {}
        extra = document.get("extra")
        tier = extra.get("service_tier") if isinstance(extra, Mapping) else None
        return cls(
            provider=provider,
            endpoint=str(document.get("endpoint") or ""),
            values={name: document[name] for name in (*PLAIN, *TOKENS) if name in document},
            totals=_pairs(document, others),
            accepted={name: _several(others.get(name)) for name in (*PLAIN, *SUBSETS) if name in others},
            service_tier=tier if isinstance(tier, str) else "",
            ambiguous=document.get("ambiguous") is True,
        )


def _pairs(document: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[tuple[Any, Any], ...]:
    """Input and output go together: another input is right only with the output that it was counted with."""
    first = tuple(document.get(name) for name in TOTALS)
    lists = [_several(others.get(name)) for name in TOTALS]
    missing = object()
    rest = (
        tuple(first[index] if value is missing else value for index, value in enumerate(pair))
        for pair in zip_longest(*lists, fillvalue=missing)
    )
    return tuple((pair[0], pair[1]) for pair in (first, *rest))


def _several(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)
