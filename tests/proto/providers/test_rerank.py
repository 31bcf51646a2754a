"""Reranking: each provider's unit, wherever it stands."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto.providers import asking

from mmproto.v1.usage_pb2 import Quality

REQUEST = {"model": "vendor/rerank-test", "query": "secret", "documents": ["secret", "secret"]}
E, P, U = Quality.QUALITY_EXACT, Quality.QUALITY_PARTIAL, Quality.QUALITY_UNKNOWN

ANSWERS: list[tuple[str, str, dict[str, Any], dict[str, int], dict[str, float], int]] = [
    (
        "api.cohere.com",
        "/v2/rerank",
        {"meta": {"billed_units": {"search_units": 2}}},
        {},
        {"rerank_units": 2.0},
        E,
    ),
    ("api.voyageai.com", "/v1/rerank", {"usage": {"total_tokens": 43}}, {"input": 43}, {}, E),
    ("api.jina.ai", "/v1/rerank", {"usage": {"total_tokens": 43, "prompt_tokens": 41}}, {"input": 41}, {}, E),
    (
        "api.siliconflow.cn",
        "/v1/rerank",
        {"meta": {"billed_units": {"input_tokens": 19, "search_units": 0}}},
        {"input": 19},
        {},
        E,
    ),
    ("api.siliconflow.cn", "/v1/rerank", {"meta": {"tokens": {"input_tokens": 19}}}, {"input": 19}, {}, E),
    (
        "api.together.xyz",
        "/v1/rerank",
        {"usage": {"prompt_tokens": 12, "completion_tokens": 0, "total_tokens": 12}},
        {"input": 12},
        {},
        E,
    ),
    ("localhost:8080", "/reranking", {"usage": {"prompt_tokens": 7, "total_tokens": 7}}, {"input": 7}, {}, E),
    ("api.voyageai.com", "/v1/rerank", {"usage": {"total_tokens": -1}}, {}, {}, U),
    ("api.voyageai.com", "/v1/rerank", {}, {}, {}, U),
]


@pytest.mark.parametrize(("host", "path", "answer", "expected"), [(*a[:3], a[3:]) for a in ANSWERS])
def test_units(host: str, path: str, answer: Any, expected: Any) -> None:
    call = asking.call(host, path, REQUEST, {"results": [], **answer})
    assert (call.operation, *asking.counted(call), call.usage.quality) == ("rerank", *expected)


def test_cost_and_model() -> None:
    answer = {"model": "rerank-test", "results": [], "usage": {"total_tokens": 17, "cost": 3.4e-07}}
    call = asking.call("openrouter.ai", "/api/v1/rerank", REQUEST, answer)
    # The model without its vendor says less than what was asked for.
    assert (call.request_model, call.response_model) == ("vendor/rerank-test", "")
    assert call.reported_cost_nano_usd == 340
    answer["model"] = "rerank-test-2026"
    assert (
        asking.call("openrouter.ai", "/api/v1/rerank", REQUEST, answer).response_model == "rerank-test-2026"
    )


def test_other_rankings_are_none_of_ours() -> None:
    assert asking.reason("shop.example", "/api/rerank", {"items": [1]}, {"results": []}) == "not_llm"
