"""The arithmetic of budgets: money is in one place, and never in none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mmrouter.policy.ledger import Breach, Budget, Entry, Ledger, Reflected, Reservation, Who, Why

WHO = Who("default", "red", "app", "ada", "k1")
DAY = 86_400_000_000_000


def budget(limit: int = 100, spent: int = 0, **scope: str) -> Budget:
    return Budget("b", "b", "default", scope, "day", DAY, 2 * DAY, limit, spent, limit)


def ledger(*budgets: Budget, must_fit: bool = False) -> Ledger:
    made = Ledger(must_fit)
    made.apply(budgets)
    return made


def reserved(made: Ledger, amount: int, model: str | None = "m") -> Reservation:
    verdict = made.reserve(WHO, model, amount, DAY + 1)
    assert isinstance(verdict, Reservation)
    return verdict


def refused(made: Ledger, amount: int, model: str | None = "m") -> Why:
    verdict = made.reserve(WHO, model, amount, DAY + 1)
    assert isinstance(verdict, Breach)
    return verdict.why


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 100), st.booleans()), max_size=60), st.booleans()
)
def test_spending_stays_within_the_limit_but_for_the_last_call(
    calls: list[tuple[int, int, bool]], must_fit: bool
) -> None:
    made = ledger(budget(100), must_fit=must_fit)
    open_calls: list[tuple[Reservation, int]] = []
    spent = 0
    largest = 0
    for index, (bound, share, finish) in enumerate(calls):
        verdict = made.reserve(WHO, "m", bound, DAY + 1)
        if isinstance(verdict, Reservation):
            open_calls.append((verdict, bound * share // 100))
            largest = max(largest, bound)
        if finish and open_calls:
            reservation, cost = open_calls.pop(0)
            made.settle(reservation, cost, 0, f"call-{index}", DAY + 1)
            spent += cost
    for index, (reservation, cost) in enumerate(open_calls):
        made.settle(reservation, cost, 0, f"last-{index}", DAY + 1)
        spent += cost
    assert spent <= 100 + (0 if must_fit else largest)
    account = made.accounts["b"]
    assert (account.reserved, account.used) == (0, spent)


@given(st.permutations(range(6)), st.integers(0, 6))
def test_a_call_is_dropped_here_only_when_the_pipeline_has_it(order: list[int], known: int) -> None:
    made = ledger(budget(10**6))
    for index in range(6):
        made.settle(reserved(made, 10), 7, 0, f"call-{index}", DAY + 1)
    assert made.accounts["b"].used == 42
    reflected = Reflected(ids={f"call-{index}" for index in order[:known]})
    made.apply([budget(10**6, spent=7 * known)], reflected)
    assert made.accounts["b"].used == 42
    made.apply([budget(10**6, spent=7 * known)], reflected)
    assert made.accounts["b"].used == 42


def test_a_call_in_flight_over_a_new_state_is_still_reserved() -> None:
    made = ledger(budget())
    call = reserved(made, 30)
    made.apply([budget(spent=5)])
    assert made.accounts["b"].reserved == 30
    made.settle(call, 20, 0, "c", DAY + 1)
    assert (made.accounts["b"].reserved, made.accounts["b"].used) == (0, 25)
    made.release(call)
    assert made.accounts["b"].reserved == 0


def test_the_reason_tells_waiting_from_spent() -> None:
    made = ledger(budget(100), must_fit=True)
    assert refused(made, 101) is Why.DOES_NOT_FIT
    call = reserved(made, 60)
    assert refused(made, 60) is Why.RESERVED
    made.settle(call, 100, 0, "c", DAY + 1)
    assert refused(made, 1) is Why.SPENT


def test_scopes() -> None:
    cases: list[tuple[dict[str, str], bool]] = [
        ({}, True),
        ({"team": "red"}, True),
        ({"team": "blue"}, False),
        ({"team": "red", "application": "app", "user": "ada", "key": "k1"}, True),
        ({"key": "k2"}, False),
        ({"phase_of_the_moon": "full"}, False),
    ]
    for scope, covered in cases:
        assert bool(ledger(budget(0, 0, **scope)).covering(WHO)) is covered
    assert not ledger(Budget("b", "b", "other", {}, "day", DAY, 2 * DAY, 0, 0, 0)).covering(WHO)


def test_a_budget_of_one_model_leaves_the_others_alone() -> None:
    made = ledger(budget(0, model="dear"))
    assert made.exhausted(WHO, DAY + 1) is None
    assert refused(made, 1, "dear") is Why.SPENT
    assert refused(made, 1, None) is Why.SPENT
    reserved(made, 1, "cheap")


def test_a_reset_that_the_pipeline_has_not_announced() -> None:
    made = ledger(budget(100, spent=100))
    made.add_held(Entry("h", DAY + 1, 50, WHO, "m"))
    assert refused(made, 1) is Why.SPENT
    verdict = made.reserve(WHO, "m", 1, 4 * DAY + 5)
    assert isinstance(verdict, Reservation)
    account = made.accounts["b"]
    assert (account.used, account.budget.period_start_ns, account.budget.resets_at_ns) == (
        0,
        4 * DAY,
        5 * DAY,
    )
    assert made.held == ()


def test_money_held_for_unmeasured_calls_outlives_a_new_state() -> None:
    made = ledger(budget(100))
    made.settle(reserved(made, 40), 10, 30, "c", DAY + 1)
    made.apply([budget(100, spent=10)], Reflected(ids={"c"}))
    assert made.accounts["b"].used == 40
    assert [entry.amount for entry in made.held] == [30]
