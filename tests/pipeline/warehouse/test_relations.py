"""The relations of the product's data model: their columns, what stands in them, and what is not known."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from mmpipeline.rating.rated import RatedCall
from mmpipeline.store.warehouse.layouts import quoted
from mmpipeline.store.warehouse.relations import RELATIONS
from mmpipeline.store.warehouse.warehouse import Warehouse
from tests.pipeline.warehouse.ledger import MONDAY_NS, rated

ALWAYS = (0, 2**62)

# As the product documents them; others may follow.
MODEL = {
    "ai_requests": "id tenant_id application_id session_id model_id timestamp latency_ms",
    "user_activity": "user_id session_id conversion_value feature_used event_type",
    "cost_metrics": "cost_id request_id calculated_cost currency provider_rate",
    "token_usage": "request_id prompt_tokens completion_tokens stream_bool",
    "quality_metrics": "score_id request_id hallucination_rate toxicity_score",
    "feedback_scores": "feedback_id request_id user_satisfaction_rating",
}


def rows(warehouse: Warehouse, name: str, tenant: str = "default") -> list[dict[str, object]]:
    relation = warehouse.relation(tenant, name, *ALWAYS)
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.rows]


def call(name: str, **fields: object) -> RatedCall:
    return rated(name, **fields)  # type: ignore[arg-type]


@pytest.fixture
def filled(warehouse: Warehouse) -> Warehouse:
    """Three calls that stand: one whole, one of which little is known, one that was corrected."""
    whole = call(
        "whole", tokens={"input": 900, "input_cache_read": 100, "output": 50, "output_reasoning": 450}
    )
    whole.call.origin.session = "session-1"
    whole.call.streaming = True
    whole.call.time_to_first_token_s = 0.25
    bare = call(
        "bare", at_ns=MONDAY_NS + 1, model="", tokens={"input": 7}, duration_s=None, cost_nano_usd=None
    )
    before = call("corrected", at_ns=MONDAY_NS + 2, cost_nano_usd=None, tokens={})
    after = call("corrected", at_ns=MONDAY_NS + 2, cost_nano_usd=2**63 - 1, tokens={"web_searches": 3})
    warehouse.insert([whole, bare, before], "1")
    warehouse.insert([before.reversed(), after], "2")
    return warehouse


def test_the_columns_are_those_of_the_data_model(warehouse: Warehouse) -> None:
    for name, columns in MODEL.items():
        expected = tuple(columns.split())
        assert warehouse.relation("default", name, *ALWAYS).columns[: len(expected)] == expected
    with pytest.raises(ValueError, match="ai_requests"):
        warehouse.relation("default", "calls; DROP TABLE calls", *ALWAYS)


def test_ai_requests(filled: Warehouse) -> None:
    whole, bare, corrected = rows(filled, "ai_requests")
    assert whole["id"] == rated("whole").call.id
    assert (whole["tenant_id"], whole["application_id"]) == ("default", "ranker")
    assert (whole["session_id"], whole["model_id"]) == ("session-1", "gpt-4o")
    assert (whole["latency_ms"], whole["first_token_ms"]) == (1500.0, 250.0)
    assert str(whole["timestamp"]).startswith("2026-11-02 00:00:00")
    assert [bare[name] for name in ("session_id", "model_id", "latency_ms", "first_token_ms")] == [None] * 4
    assert corrected["id"] == rated("corrected").call.id


@pytest.mark.every_layout
def test_cost_metrics_is_exact_and_null_where_no_price_is_known(filled: Warehouse) -> None:
    whole, bare, corrected = rows(filled, "cost_metrics")
    assert whole["request_id"] == rated("whole").call.id
    assert whole["cost_id"] == f"{whole['request_id']}/test@1"
    assert (whole["calculated_cost"], whole["currency"]) == (Decimal("0.001250000"), "USD")
    # 1,500 tokens for 0.00125 USD.
    assert whole["provider_rate"] == Decimal("0.833333333")
    assert (bare["calculated_cost"], bare["provider_rate"], bare["rate_card"]) == (None, None, None)
    assert bare["unpriced_reason"] == "unknown_model"
    assert corrected["calculated_cost"] == Decimal("9223372036.854775807")
    assert corrected["provider_rate"] is None


def test_token_usage_tells_zero_from_not_reported(filled: Warehouse) -> None:
    whole, bare, corrected = rows(filled, "token_usage")
    assert (whole["prompt_tokens"], whole["completion_tokens"], whole["stream_bool"]) == (1000, 500, True)
    assert (bare["prompt_tokens"], bare["completion_tokens"], bare["stream_bool"]) == (7, None, False)
    assert (corrected["prompt_tokens"], corrected["completion_tokens"]) == (None, None)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        (
            "user_activity",
            {
                "user_id": "ada",
                "session_id": "s",
                "conversion_value": "12.5",
                "feature_used": None,
                "event_type": "purchase",
            },
        ),
        (
            "quality_metrics",
            {"score_id": "1", "request_id": "r", "hallucination_rate": "0.25", "toxicity_score": None},
        ),
        ("feedback_scores", {"feedback_id": "1", "request_id": "r", "user_satisfaction_rating": "-1"}),
    ],
)
def test_what_applications_report_can_be_kept(
    warehouse: Warehouse, name: str, given: dict[str, str | None]
) -> None:
    """Twice the same row is one row, and another tenant does not see it."""
    values = ", ".join("NULL" if value is None else f"'{value}'" for value in given.values())
    for _ in range(2):
        warehouse._engine.command(
            f"INSERT INTO {name} (tenant_id, timestamp, {', '.join(given)}) "  # noqa: S608
            f"VALUES ('default', '2026-11-02 00:00:00', {values})"
        )
    (row,) = rows(warehouse, name)
    shown = {column: row[column] for column in given}
    assert {column: None if value is None else str(value) for column, value in shown.items()} == {
        column: value if value != "12.5" else "12.500000000" for column, value in given.items()
    } | ({"user_satisfaction_rating": "-1.0"} if name == "feedback_scores" else {})
    assert rows(warehouse, name, "somebody else") == []


def test_the_reference_describes_every_column_and_the_engine_reads_its_statements(
    warehouse: Warehouse,
) -> None:
    text = (Path(__file__).parents[3] / "docs/reference/warehouse.md").read_text(encoding="utf-8")
    for name, columns in RELATIONS.items():
        section = text.partition(f"\n### {name}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
        described = [
            column for row in re.findall(r"^\| (`.*?) \|", section, re.M) for column in row.split(", ")
        ]
        assert {column.strip("`") for column in described} == set(columns), name
    statements = [
        statement
        for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
        for statement in block.strip().split(";\n")
    ]
    assert len(statements) > 4
    for statement in statements:
        warehouse._engine.read_meta(f"SELECT formatQuery({quoted(statement.rstrip(';'))})")
