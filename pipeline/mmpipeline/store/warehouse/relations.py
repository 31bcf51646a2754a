"""The product's data model: relations that people and their tools read, with columns that stay.

Three are views of the calls that stand: what was taken back is not shown, and what is not known is NULL.
Three are tables of their own for what applications report about their calls; nothing fills them yet. Each
begins with the columns that the data model names, in its order; what follows besides may grow.

`docs/reference/warehouse.md` says of each column what it means and how it is derived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmpipeline.store.warehouse.layouts import Layout
from mmpipeline.store.warehouse.schema import (
    INPUT_REPORTED,
    OUTPUT_REPORTED,
    TEXT,
    TOKEN_TOTALS,
    Columns,
    Table,
    summed,
)

_AT: Final = ("timestamp", "DateTime64(9, 'UTC')")


@dataclass(frozen=True, slots=True)
class View:
    """A relation that is read from the calls. Both rows of a pair that has not been merged yet are hidden by
    FINAL; one of sign -1 whose fellow was deleted for its age, by the condition."""

    name: str
    columns: Columns

    def statements(self, layout: Layout) -> tuple[str, ...]:
        columns = ",\n    ".join(
            name if name == expression else f"{expression} AS {name}" for name, expression in self.columns
        )
        head = f"CREATE VIEW IF NOT EXISTS {self.name}{layout.everywhere} AS"
        return (f"{head}\nSELECT {columns}\nFROM calls FINAL WHERE sign > 0",)


# A nano-dollar is the last digit; the product of cost and 10**9 fits 38 digits for every Int64.
_USD: Final = "toDecimal128(cost_nano_usd, 9) / toDecimal128(1000000000, 0)"
_TOKENS: Final = summed((*TOKEN_TOTALS["input_tokens"], *TOKEN_TOTALS["output_tokens"]))


def _known(bit: int, total: str) -> str:
    return f"if(bitAnd(reported, {bit}) = 0, NULL, {summed(TOKEN_TOTALS[total])})"


VIEWS: Final = (
    View(
        "ai_requests",
        (
            ("id", "id"),
            ("tenant_id", "tenant_id"),
            ("application_id", "application"),
            ("session_id", "nullIf(session, '')"),
            ("model_id", "nullIf(model, '')"),
            ("timestamp", "started_at"),
            ("latency_ms", "duration_s * 1000"),
            ("first_token_ms", "first_token_s * 1000"),
            *((name, name) for name in ("provider", "operation", "team", "user", "error_type")),
        ),
    ),
    View(
        "cost_metrics",
        (
            ("cost_id", "concat(id, '/', if(rate_card = '', 'unpriced', rate_card))"),
            ("request_id", "id"),
            ("calculated_cost", _USD),
            ("currency", "'USD'"),
            (
                "provider_rate",
                f"toDecimal128(cost_nano_usd, 9) / nullIf(({_TOKENS}) * 1000, 0)",
            ),
            ("rate_card", "nullIf(rate_card, '')"),
            ("unpriced_reason", "nullIf(unpriced_reason, '')"),
            ("tenant_id", "tenant_id"),
            ("timestamp", "started_at"),
        ),
    ),
    View(
        "token_usage",
        (
            ("request_id", "id"),
            ("prompt_tokens", _known(INPUT_REPORTED, "input_tokens")),
            ("completion_tokens", _known(OUTPUT_REPORTED, "output_tokens")),
            ("stream_bool", "streaming"),
            ("quality", "quality"),
            ("tenant_id", "tenant_id"),
            ("timestamp", "started_at"),
        ),
    ),
)


def _reported(name: str, key: str, columns: Columns) -> Table:
    """A table that applications will fill; the same row again replaces itself."""
    return Table(
        name,
        (*columns, ("tenant_id", TEXT), _AT),
        "replacing",
        ("tenant_id", "timestamp", key),
        partition="toYYYYMM(timestamp)",
        codecs=(("timestamp", "Delta(8), ZSTD(1)"),),
        sharded_by=f"cityHash64({key})",
    )


REPORTED: Final = (
    _reported(
        "user_activity",
        "activity_id",
        (
            ("user_id", "String"),
            ("session_id", "Nullable(String)"),
            ("conversion_value", "Nullable(Decimal(38, 9))"),
            ("feature_used", "LowCardinality(Nullable(String))"),
            ("event_type", TEXT),
            ("activity_id", "String"),
            ("team", TEXT),
            ("application_id", TEXT),
        ),
    ),
    _reported(
        "quality_metrics",
        "score_id",
        (
            ("score_id", "String"),
            ("request_id", "String"),
            ("hallucination_rate", "Nullable(Float64)"),
            ("toxicity_score", "Nullable(Float64)"),
            ("scorer", TEXT),
        ),
    ),
    _reported(
        "feedback_scores",
        "feedback_id",
        (
            ("feedback_id", "String"),
            ("request_id", "String"),
            ("user_satisfaction_rating", "Nullable(Float64)"),
            ("user_id", "String"),
        ),
    ),
)

# The column that tells two rows of a relation apart.
KEYS: Final = {
    "ai_requests": "id",
    "cost_metrics": "request_id",
    "token_usage": "request_id",
    **{table.name: table.order[-1] for table in REPORTED},
}

# The columns of each relation, in order.
RELATIONS: Final = {
    **{view.name: tuple(name for name, _ in view.columns) for view in VIEWS},
    **{table.name: tuple(name for name, _ in table.columns) for table in REPORTED},
}
