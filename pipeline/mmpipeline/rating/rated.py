"""A call with its charge: one row of the ledger and of the warehouse.

Rows are never edited. Where a better observer reports a call that was already charged, the old row is
taken back by a row of `sign` -1 that carries the OLD call and the OLD charge, and the new row follows
with `sign` +1: every sum over `value * sign` is right at any moment, in the ledger, in the budget
counters and in the roll-ups alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmproto.v1.call_pb2 import Call

# The "rate card" of a call that the provider does not bill: it costs 0 by rule, not by price.
NOT_BILLABLE = "not_billable"


@dataclass(frozen=True, slots=True)
class RatedCall:
    """One row: what was called, what it costs, and by which prices.

    `call` has its attribution defaults filled: tenant "default", and team, application and user "" where
    no rule mapped them (unallocated). `cost_nano_usd` is None where the price cannot be known, and then
    `unpriced_reason` says why (`unknown_model`, `no_usage`, `unknown_tier`, `no_rate_for_<bucket>`, ...)
    and `rate_card` is "". A call that the provider does not bill costs 0; its `rate_card` is NOT_BILLABLE.
    """

    call: Call
    sign: int
    cost_nano_usd: int | None
    unpriced_reason: str
    rate_card: str

    def reversed(self) -> RatedCall:
        """The row that takes this one back."""
        return RatedCall(self.call, -self.sign, self.cost_nano_usd, self.unpriced_reason, self.rate_card)
