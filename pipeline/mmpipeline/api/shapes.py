"""What the API answers, for its OpenAPI document. Money is a decimal string in USD, null where unpriced."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Usd = Annotated[str, Field(pattern=r"^-?\d+(\.\d{1,9})?$", examples=["0.0015"])]


class Shape(BaseModel):
    """Base of all: nothing that is not declared."""

    model_config = ConfigDict(extra="forbid")


class UsageTotals(Shape):
    """Tokens of a group; the cache and reasoning counts are parts of the input and output above them."""

    input_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    output_tokens: int
    reasoning_output_tokens: int


class SpendGroup(Shape):
    """What one group of calls used and cost."""

    group: dict[str, str] = Field(description="Value of each dimension; empty text is unallocated.")
    cost_usd: Usd | None = Field(description="Of the calls with a price; null where no call has one.")
    calls: int
    unpriced_calls: int
    errors: int
    mean_duration_s: float | None
    usage: UsageTotals


class SpendReport(Shape):
    """Spend by group, in the order of the groups."""

    from_: str = Field(alias="from")
    to: str
    currency: Literal["USD"]
    group_by: list[str]
    rows: list[SpendGroup]
    total: SpendGroup
    next_cursor: str | None


class CallList(Shape):
    """Calls, latest first: the JSON form of the contract with the charge."""

    calls: list[dict[str, Any]]
    next_cursor: str | None


class ThresholdForm(Shape):
    """What happens at a share of the limit."""

    percent: int = Field(ge=1, le=1000)
    action: Literal["alert", "block"]


class BudgetRequest(Shape):
    """A budget as it is set."""

    limit_usd: Annotated[str, Field(pattern=r"^[0-9]{1,10}(\.[0-9]{1,9})?$", examples=["250.00"])] | None = (
        Field(default=None, description="A new budget needs one; null leaves the amounts as they are.")
    )
    from_: str | None = Field(
        default=None,
        alias="from",
        max_length=40,
        description="From when on this amount holds, which may be in the future: a time, or a date that "
        "begins in the budget's time zone. Default: now, and that of a new budget for its whole period.",
        examples=["2026-12-01"],
    )
    period: Literal["day", "week", "month", "quarter", "year"] = "month"
    time_zone: str = Field(
        default="UTC",
        max_length=60,
        description="IANA name: where the period's days begin and end.",
        examples=["Europe/Berlin"],
    )
    scope: dict[Literal["team", "application", "user", "model", "key"], str] = Field(default_factory=dict)
    thresholds: list[ThresholdForm] | None = Field(
        default=None, description="Default: alerts at 50, 80 and 100 %."
    )


class CrossingForm(Shape):
    """A threshold that was reached in this period."""

    percent: int
    action: str
    spent_usd: Usd
    at: str


class AmountForm(Shape):
    """What a budget is worth in each period from a moment on."""

    from_: str = Field(alias="from")
    limit_usd: Usd


class BudgetForm(Shape):
    """A budget with what was spent of it in its current period."""

    name: str
    tenant: str
    scope: dict[str, str]
    period: str
    time_zone: str
    period_start: str
    resets_at: str
    limit_usd: Usd | None = Field(description="The amount in force; null before the first one.")
    spent_usd: Usd
    percent: float | None
    calls: int
    unpriced_calls: int
    state: Literal["open", "blocked", "pending"] = Field(
        description="blocked: the router refuses calls; pending: no amount is in force yet."
    )
    amounts: list[AmountForm]
    thresholds: list[ThresholdForm]
    crossed: list[CrossingForm]


class BudgetList(Shape):
    """The budgets of a tenant."""

    budgets: list[BudgetForm]


class DifferenceForm(Shape):
    """A number that is not what the charges give."""

    what: Literal["budget", "crossing", "totals", "charge", "warehouse"]
    tenant: str
    subject: str
    field: str
    kept: str | int = Field(description="What is kept; amounts in USD.")
    charged: str | int = Field(description="What the charges give.")


class Verification(Shape):
    """What was held against the charges, and what differs."""

    as_of: str
    tenants: list[str]
    agrees: bool
    differences: list[DifferenceForm]
    not_compared: list[str] = Field(description="What could not be compared, and why.")
    compared: dict[str, int] = Field(description="How much of what was.")
