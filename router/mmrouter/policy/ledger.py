"""What is left of each budget: pure integer arithmetic, no clock, no store, no await.

A budget's spending is four numbers that never overlap:

    spent      what the pipeline had counted when it last said so
    pending    calls settled here that are not in `spent` yet
    held       what calls without a known usage may have cost; kept until the period ends
    reserved   upper bounds of the calls now in flight

Between check and reserve nothing else runs, so concurrent calls cannot spend the same dollar twice. A call
moves from `pending` to `spent` when a state says that it has the call (`Reflected`), and not before: so for
a moment it may be counted twice but never not at all.

Over HTTP a state has the calls whose records the pipeline had accepted before it was asked. Over Kafka it
has the calls below its positions in the topic of calls; where a call stands there, its delivery report says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

_SCOPE = ("team", "application", "user", "key")


@dataclass(frozen=True, slots=True)
class Who:
    """Whose call it is, in the words that budgets are scoped by."""

    tenant: str
    team: str
    application: str
    user: str
    key: str


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget that blocks, as the pipeline last described it. Money in nano-dollars, times in unix ns.

    `scope` maps attributes of `Who`, or `model`, to the value they must have; empty: the whole tenant.
    """

    id: str
    name: str
    tenant: str
    scope: Mapping[str, str]
    period: str
    period_start_ns: int
    resets_at_ns: int
    limit: int
    spent: int
    ceiling: int

    def covers(self, who: Who) -> bool:
        """Whether calls of `who` count against this budget, whatever their model."""
        if self.tenant != who.tenant:
            return False
        return all(
            name == "model" or (name in _SCOPE and getattr(who, name) == value)
            for name, value in self.scope.items()
        )

    def covers_model(self, model: str | None) -> bool:
        """Whether calls of `model` count; a model that is not known counts everywhere."""
        return model is None or self.scope.get("model", model) == model


@dataclass(slots=True)
class Account:
    """A budget and what this router knows beyond it."""

    budget: Budget
    pending: int = 0
    held: int = 0
    reserved: int = 0

    @property
    def used(self) -> int:
        """Spent for certain or perhaps, without the calls in flight."""
        return self.budget.spent + self.pending + self.held


class Why(Enum):
    """Why a budget refuses a call."""

    SPENT = "spent"
    RESERVED = "reserved"
    DOES_NOT_FIT = "does_not_fit"


@dataclass(frozen=True, slots=True)
class Breach:
    """The budget that refuses, with its numbers at that moment."""

    why: Why
    account: Account
    wanted: int


@dataclass(slots=True)
class Reservation:
    """An amount set aside in some accounts for one call. Ends by `settle` or `release`, once."""

    who: Who
    model: str | None
    amount: int
    accounts: tuple[Account, ...]
    open: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """Money of one finished call, known by the id that the pipeline knows it by."""

    call_id: str
    at_ns: int
    amount: int
    who: Who
    model: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call stands in the topic of calls."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Reflected:
    """Which finished calls a state has in its numbers: by id, or all below `positions`.

    `positions`: tenant, then partition, then the next offset.
    """

    ids: Collection[str] = ()
    positions: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def has(self, entry: Entry, place: Place | None) -> bool:
        """Whether the call is counted, as far as that is certain."""
        if entry.call_id in self.ids:
            return True
        if place is None:
            return False
        return place.offset < self.positions.get(entry.who.tenant, {}).get(place.partition, 0)


NOTHING = Reflected()


@dataclass(slots=True)
class Ledger:
    """All blocking budgets of this router. `must_fit`: a call's own bound must fit as well."""

    must_fit: bool
    accounts: dict[str, Account] = field(default_factory=dict)
    _pending: dict[str, Entry] = field(default_factory=dict)
    _places: dict[str, Place] = field(default_factory=dict)
    _held: list[Entry] = field(default_factory=list)
    _covering: dict[Who, tuple[Account, ...]] = field(default_factory=dict)
    _next_reset_ns: int = 0

    def covering(self, who: Who) -> tuple[Account, ...]:
        """The accounts that calls of `who` may count against."""
        found = self._covering.get(who)
        if found is None:
            found = tuple(a for a in self.accounts.values() if a.budget.covers(who))
            self._covering[who] = found
        return found

    def exhausted(self, who: Who, now_ns: int) -> Breach | None:
        """A budget that refuses every call of `who` whatever it costs, before its body is even read."""
        self._roll(now_ns)
        for account in self.covering(who):
            if "model" not in account.budget.scope and account.used >= account.budget.ceiling:
                return Breach(Why.SPENT, account, 0)
        return None

    def reserve(self, who: Who, model: str | None, amount: int, now_ns: int) -> Reservation | Breach:
        """Set `amount` aside in every account the call counts against, or say which one refuses."""
        self._roll(now_ns)
        accounts = tuple(a for a in self.covering(who) if a.budget.covers_model(model))
        for account in accounts:
            ceiling = account.budget.ceiling
            used = account.used
            if used >= ceiling:
                return Breach(Why.SPENT, account, amount)
            if used + account.reserved >= ceiling:
                return Breach(Why.RESERVED, account, amount)
            if self.must_fit and used + account.reserved + amount > ceiling:
                return Breach(Why.RESERVED if used + amount <= ceiling else Why.DOES_NOT_FIT, account, amount)
        for account in accounts:
            account.reserved += amount
        return Reservation(who, model, amount, accounts)

    def release(self, reservation: Reservation) -> None:
        """The call cost nothing."""
        if reservation.open:
            reservation.open = False
            for account in reservation.accounts:
                account.reserved -= reservation.amount

    def settle(self, reservation: Reservation, cost: int, held: int, call_id: str, at_ns: int) -> None:
        """The call cost `cost`, and perhaps `held` more that nobody could measure."""
        self.release(reservation)
        if not reservation.accounts:
            return
        if cost:
            self.add_pending(Entry(call_id, at_ns, cost, reservation.who, reservation.model))
        if held:
            self.add_held(Entry(call_id, at_ns, held, reservation.who, reservation.model))

    def add_pending(self, entry: Entry) -> None:
        """Count a settled call, once, until a state that has it arrives."""
        if entry.call_id in self._pending:
            return
        self._pending[entry.call_id] = entry
        for account in self._counting(entry):
            account.pending += entry.amount

    def add_held(self, entry: Entry) -> None:
        """Count what an unmeasured call may have cost until its period ends."""
        self._held.append(entry)
        for account in self._counting(entry):
            account.held += entry.amount

    @property
    def held(self) -> tuple[Entry, ...]:
        """What must survive a restart, because the pipeline will never count it."""
        return tuple(self._held)

    @property
    def pending_calls(self) -> int:
        return len(self._pending)

    def place(self, call_id: str, place: Place) -> None:
        """A finished call stands in the topic. A call that stands there twice is counted from the first."""
        if call_id in self._pending:
            self._places.setdefault(call_id, place)

    def apply(self, budgets: Iterable[Budget], reflected: Reflected = NOTHING) -> None:
        """The pipeline's newest state, and which calls it has."""
        for entry in list(self._pending.values()):
            if reflected.has(entry, self._places.get(entry.call_id)):
                del self._pending[entry.call_id]
        fresh: dict[str, Account] = {}
        for budget in budgets:
            account = self.accounts.get(budget.id) or Account(budget)
            account.budget = budget
            fresh[budget.id] = account
        self.accounts = fresh
        self._covering.clear()
        self._recount()

    def _roll(self, now_ns: int) -> None:
        """Begin the next period of budgets whose reset has come before the pipeline said so."""
        if now_ns < self._next_reset_ns:
            return
        due = [a for a in self.accounts.values() if now_ns >= a.budget.resets_at_ns]
        for account in due:
            old = account.budget
            length = max(old.resets_at_ns - old.period_start_ns, 1)
            start = old.resets_at_ns + (now_ns - old.resets_at_ns) // length * length
            account.budget = replace(old, period_start_ns=start, resets_at_ns=start + length, spent=0)
        self._recount()

    def _recount(self) -> None:
        self._next_reset_ns = min((a.budget.resets_at_ns for a in self.accounts.values()), default=1 << 63)
        for account in self.accounts.values():
            account.pending = account.held = 0
        oldest = min((a.budget.period_start_ns for a in self.accounts.values()), default=0)
        self._held = [e for e in self._held if e.at_ns >= oldest]
        self._pending = {e.call_id: e for e in self._pending.values() if e.at_ns >= oldest}
        self._places = {call_id: place for call_id, place in self._places.items() if call_id in self._pending}
        for entry in self._pending.values():
            for account in self._counting(entry):
                account.pending += entry.amount
        for entry in self._held:
            for account in self._counting(entry):
                account.held += entry.amount

    def _counting(self, entry: Entry) -> list[Account]:
        return [
            a
            for a in self.covering(entry.who)
            if a.budget.covers_model(entry.model) and entry.at_ns >= a.budget.period_start_ns
        ]
