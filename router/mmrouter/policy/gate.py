"""May this call be sent? And when it is over: what did it cost?

One object decides, in one piece of code without an await: virtual key, the pipeline's last word on
budgets, prices and the request's own bounds. Every refusal says what to do about it.

When the pipeline is away, `on_loss` decides. Open: the last known budgets and what was spent here since
keep applying, and where nothing was ever known calls pass. Closed: no call passes until it is back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mmproto.callform import format_time
from mmproto.framing.jsonpick import prune
from mmproto.providers.dialect import REQUEST_TREE
from mmproto.rating import usd
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import Quality
from mmrouter.dialects import Refusal, Route
from mmrouter.keys import VirtualKey
from mmrouter.policy.facts import Facts, Unreadable, facts_of, facts_of_large, read_document
from mmrouter.policy.ledger import Breach, Budget, Entry, Ledger, Reservation, Why
from mmrouter.policy.prices import Prices
from mmrouter.policy.state import Known

# How soon a call that only waits for others in flight is worth another try.
_RESERVED_RETRY_S = 1


class OnLoss(Enum):
    """What happens to calls while the pipeline's budgets are not known."""

    FAIL_OPEN = "fail_open"
    FAIL_CLOSED = "fail_closed"


class Unpriced(Enum):
    """What happens to a model without a price where a budget blocks."""

    REFUSE = "refuse"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Rules:
    """The configured part of every decision. Sizes in bytes, ages in seconds."""

    on_loss: OnLoss
    unpriced: Unpriced
    state_max_age_s: float
    hold_bytes: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that is not sent. `budget_id` is set where a budget refused it."""

    refusal: Refusal
    message: str
    budget_id: str = ""
    model: str = ""
    retry_after_s: int | None = None
    should_retry: bool | None = False


@dataclass(slots=True)
class Admitted:
    """A call that may be sent, with what was set aside for it.

    `document` is the body pruned to `REQUEST_TREE`, where the decision had to read it. Who reads it next
    takes it out, so that a long call keeps nothing of its request.
    """

    reservation: Reservation | None
    model: str
    document: Mapping[str, Any] | None = None


class Gate:
    """Admission and settlement of every call of this router. Used from the event loop only."""

    def __init__(
        self, ledger: Ledger, rules: Rules, clock_ns: Callable[[], int], monotonic: Callable[[], float]
    ) -> None:
        self.ledger = ledger
        self.prices: Prices | None = None
        self.rules = rules
        self._clock_ns = clock_ns
        self._monotonic = monotonic
        self.known = False
        self._confirmed_at: float | None = None
        self.unmeasured_calls = 0

    # -- what the pipeline says

    def restore(self, budgets: Iterable[Budget]) -> None:
        """Budgets as they were when the router last ran."""
        self.known = True
        self.ledger.apply(budgets)

    def learn(self, known: Known) -> None:
        """The pipeline's newest word."""
        for call_id, place in known.placed:
            self.ledger.place(call_id, place)
        if known.state is None:
            return
        self.known = True
        confirmed_at = self._monotonic() - known.age_s
        self._confirmed_at = max(self._confirmed_at or confirmed_at, confirmed_at)
        self.ledger.apply(known.state.budgets, known.reflected)

    @property
    def state_age_s(self) -> float | None:
        """Seconds since the pipeline's last word, None where there was none since the start."""
        return None if self._confirmed_at is None else self._monotonic() - self._confirmed_at

    @property
    def lost(self) -> bool:
        """Whether what is known of the budgets is too old to rely on."""
        age = self.state_age_s
        return age is None or age > self.rules.state_max_age_s

    # -- before a call

    def early(self, key: VirtualKey, route: Route) -> Refused | None:
        """A refusal that needs no body."""
        if not route.spends:
            return None
        if self.rules.on_loss is OnLoss.FAIL_CLOSED and self.lost:
            return Refused(
                Refusal.BUDGETS_UNKNOWN,
                "budgets cannot be checked because the ModelMeter pipeline does not answer, and this router "
                "is set to fail closed; start the pipeline or ask an operator",
                retry_after_s=5,
                should_retry=None,
            )
        breach = self.ledger.exhausted(key.who, self._clock_ns())
        return None if breach is None else self._refused(breach, "")

    def needs_body(self, key: VirtualKey, route: Route) -> bool:
        """Whether the decision depends on what is in the request."""
        return route.spends and (bool(key.models) or bool(self.ledger.covering(key.who)))

    def admit(
        self, key: VirtualKey, route: Route, provider: str, body: bytes, content_encoding: bytes
    ) -> Admitted | Refused:
        """Decide on a whole request. Check and reserve are one step."""
        try:
            text, document = read_document(body, content_encoding, self.rules.hold_bytes)
            facts = facts_of(text, document)
        except Unreadable as problem:
            return Refused(Refusal.UNREADABLE, str(problem))
        return self._admit(key, route, provider, facts, prune(document, REQUEST_TREE))

    def admit_large(
        self, key: VirtualKey, route: Route, provider: str, content_length: int | None
    ) -> Admitted | Refused:
        """Decide on a request of which only the size is known."""
        if key.models:
            return Refused(
                Refusal.TOO_LARGE,
                f"this key may use certain models only, and a request above {self.rules.hold_bytes} bytes is "
                "not read for its model",
            )
        if content_length is None:
            return Refused(
                Refusal.LENGTH_REQUIRED,
                "a budget applies to this key, and the cost of a large chunked request cannot be bounded; "
                "send it with Content-Length",
            )
        return self._admit(key, route, provider, facts_of_large(content_length))

    def _admit(
        self,
        key: VirtualKey,
        route: Route,
        provider: str,
        facts: Facts,
        document: Mapping[str, Any] | None = None,
    ) -> Admitted | Refused:
        model = facts.model or ""
        if facts.model is not None and not key.may_use(facts.model):
            return Refused(
                Refusal.MODEL_NOT_ALLOWED,
                f"this key may not use the model '{model}'; ask your platform team",
                "",
                model,
            )
        who, now = key.who, self._clock_ns()
        covering = self.ledger.covering(who)
        if not any(a.budget.covers_model(facts.model) for a in covering):
            return Admitted(None, model, document)
        if self.prices is None:
            # No rate card was ever seen, so there is no bound: the state of the budgets alone decides.
            bound: int | None = 0
        else:
            bound, why = self.prices.bound(provider, facts, route.output, now)
            if bound is None and self.rules.unpriced is Unpriced.REFUSE:
                return Refused(
                    Refusal.UNPRICED_MODEL,
                    f"no price is known for the model '{model}' of {provider} ({why}), and a budget with a "
                    "hard limit applies to this key; add a rate card or use a model that has one",
                    covering[0].budget.id,
                    model,
                )
        verdict = self.ledger.reserve(who, facts.model, bound or 0, now)
        if isinstance(verdict, Breach):
            return self._refused(verdict, model)
        return Admitted(verdict, model, document)

    # -- after a call

    def settle(self, admitted: Admitted, call: Call) -> None:
        """Count what the call cost. What nobody could measure is held at the bound it was admitted with.

        A call whose answer never began may have been worked on all the same: it is held, not released.
        """
        reservation = admitted.reservation
        if reservation is None:
            return
        if not call.billable and call.HasField("http_status"):
            self.ledger.release(reservation)
            return
        cost = None if self.prices is None else self.prices.cost(call)
        held = 0
        if cost is None or call.usage.quality != Quality.QUALITY_EXACT:
            held = max(0, reservation.amount - (cost or 0))
            self.unmeasured_calls += 1
        self.ledger.settle(reservation, cost or 0, held, call.id, call.started_at_unix_ns)

    def add(self, admitted: Admitted, call: Call) -> None:
        """Count a further call that one request brought about, e.g. a pass of another model."""
        reservation = admitted.reservation
        if reservation is None or not call.billable:
            return
        cost = None if self.prices is None else self.prices.cost(call)
        if cost is None:
            self.unmeasured_calls += 1
        elif cost:
            entry = Entry(call.id, call.started_at_unix_ns, cost, reservation.who, call.response_model)
            self.ledger.add_pending(entry)

    def hold(self, admitted: Admitted, call_id: str) -> None:
        """The call may have cost its whole bound, and nothing says whether it did."""
        if admitted.reservation is not None:
            self.unmeasured_calls += 1
            self.ledger.settle(
                admitted.reservation, 0, admitted.reservation.amount, call_id, self._clock_ns()
            )

    def release(self, admitted: Admitted) -> None:
        """The call cost nothing."""
        if admitted.reservation is not None:
            self.ledger.release(admitted.reservation)

    def _refused(self, breach: Breach, model: str) -> Refused:
        account, budget = breach.account, breach.account.budget
        share = (
            "" if budget.ceiling == budget.limit else f" (calls are blocked from {_dollars(budget.ceiling)})"
        )
        held = (
            f", {_dollars(account.held)} of it held for calls that reported no usage" if account.held else ""
        )
        text = (
            f"budget '{budget.name}'{_scope(budget)}: {_dollars(account.used)} spent of "
            f"{_dollars(budget.limit)} this {budget.period}{share}{held}"
        )
        resets = f"resets at {format_time(budget.resets_at_ns)}"
        if breach.why is Why.SPENT:
            wait = max(1, -(-(budget.resets_at_ns - self._clock_ns()) // 1_000_000_000))
            message = f"ModelMeter blocked this call: {text}; {resets}"
            return Refused(Refusal.BUDGET_EXCEEDED, message, budget.id, model, wait, should_retry=False)
        if breach.why is Why.DOES_NOT_FIT:
            message = (
                f"ModelMeter blocked this call: {text}; this call may cost up to {_dollars(breach.wanted)}, "
                f"more than is left: lower its token limit; {resets}"
            )
            return Refused(Refusal.BUDGET_EXCEEDED, message, budget.id, model, None, should_retry=False)
        message = (
            f"ModelMeter postponed this call: {text}, and calls in flight may use the rest (up to "
            f"{_dollars(account.reserved)}); try again when they are done; {resets}"
        )
        return Refused(
            Refusal.BUDGET_RESERVED, message, budget.id, model, _RESERVED_RETRY_S, should_retry=True
        )


def _dollars(nano_usd: int) -> str:
    """Dollars as people write them: cents always, and as much more as there is."""
    whole, _, cents = usd(nano_usd).partition(".")
    return f"${whole}.{cents:0<2}"


def _scope(budget: Budget) -> str:
    if not budget.scope:
        return f" of tenant {budget.tenant}"
    return " of " + ", ".join(f"{name} {value}" for name, value in sorted(budget.scope.items()))
