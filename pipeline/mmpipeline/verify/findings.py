"""What a verification finds: differences, and what it could not compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mmpipeline.store.control.charged import Sums
from mmproto.callform import format_time
from mmproto.rating import usd


@dataclass(frozen=True, slots=True)
class Difference:
    """A number that is not what the charges give.

    `what`: budget, crossing, totals, charge, warehouse. `subject` says which one, `field` which number of
    it; amounts are decimal strings in USD.
    """

    what: str
    tenant: str
    subject: str
    field: str
    kept: str | int
    charged: str | int

    def form(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "what": self.what,
            "tenant": self.tenant,
            "subject": self.subject,
            "field": self.field,
            "kept": self.kept,
            "charged": self.charged,
        }


@dataclass(slots=True)
class Findings:
    """`compared` counts what was held against the charges, by its name."""

    at_unix_ns: int
    tenants: tuple[str, ...] = ()
    differences: list[Difference] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, number: int = 1) -> None:
        self.compared[what] = self.compared.get(what, 0) + number

    def hold(self, what: str, tenant: str, subject: str, kept: Sums, charged: Sums) -> None:
        """Compare sums, and put down where they differ."""
        self.count(what)
        self.differences += between(what, tenant, subject, kept, charged)

    def form(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "as_of": format_time(self.at_unix_ns),
            "tenants": list(self.tenants),
            "agrees": not self.differences,
            "differences": [difference.form() for difference in self.differences],
            "not_compared": self.not_compared,
            "compared": self.compared,
        }


def between(what: str, tenant: str, subject: str, kept: Sums, charged: Sums) -> Iterator[Difference]:
    """The numbers in which two sums differ."""
    if kept.nano_usd != charged.nano_usd:
        yield Difference(what, tenant, subject, "cost_usd", usd(kept.nano_usd), usd(charged.nano_usd))
    if kept.calls != charged.calls:
        yield Difference(what, tenant, subject, "calls", kept.calls, charged.calls)
    if kept.unpriced_calls != charged.unpriced_calls:
        yield Difference(what, tenant, subject, "unpriced_calls", kept.unpriced_calls, charged.unpriced_calls)
