"""Text generation under paths of its own: llama.cpp, TGI, SGLang, Triton, watsonx, Aleph Alpha, Reka."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto import wire
from tests.proto.providers import asking

from mmproto.v1.usage_pb2 import Quality

E, P, U = Quality.QUALITY_EXACT, Quality.QUALITY_PARTIAL, Quality.QUALITY_UNKNOWN
PROMPT = {"prompt": "secret", "inputs": "secret"}


def llama(**fields: Any) -> dict[str, Any]:
    counts = {"tokens_evaluated": 20, "tokens_predicted": 7, "timings": {"cache_n": 15, "prompt_n": 5}}
    return {"content": "secret", "stop": True, "stop_type": "eos", "model": "q.gguf", **counts, **fields}


LLAMA = {"input": 5, "input_cache_read": 15, "output": 7}


@pytest.mark.parametrize("path", ["/completion", "/infill"])
def test_llama_cpp(path: str) -> None:
    call = asking.call("127.0.0.1:8080", path, PROMPT, llama())
    assert (call.provider, call.operation, call.response_model) == ("llama_cpp", "text_completion", "q.gguf")
    assert (dict(call.usage.tokens), call.usage.quality, list(call.finish_reasons)) == (LLAMA, E, ["eos"])


@pytest.mark.parametrize("whole", [True, False])
def test_llama_cpp_streams(whole: bool) -> None:
    events = [llama(stop=False, tokens_predicted=number, timings=None) for number in (1, 2, 3)]
    body = wire.sse([*events, llama()] if whole else events)
    request = {"prompt": "x", "stream": True}
    call = asking.call("127.0.0.1:8080", "/completion", request, body, kind=asking.SSE, cut=not whole)
    assert (dict(call.usage.tokens), call.usage.quality) == ((LLAMA, E) if whole else ({}, U))
    assert (call.streaming, call.error_type) == (True, "" if whole else "stream_incomplete")


@pytest.mark.parametrize("path", ["/completion", "/generate", "/infill"])
def test_a_path_like_that_proves_nothing(path: str) -> None:
    assert asking.reason("app.example", path, PROMPT, {"url": "https://x", "ok": True}) == "not_llm"


DETAILS = {"finish_reason": "length", "generated_tokens": 20, "seed": 1}
TGI_HEADERS = {"x-prompt-tokens": "9", "x-generated-tokens": "20"}
TGI: list[tuple[str, Any, dict[str, str], dict[str, int], int]] = [
    ("headers", {"generated_text": "secret"}, TGI_HEADERS, {"input": 9, "output": 20}, E),
    ("details", {"generated_text": "s", "details": DETAILS}, {}, {"output": 20}, P),
    (
        "details of the prompt",
        {"generated_text": "s", "details": {**DETAILS, "prefill": [{"id": 1}, {"id": 2}]}},
        {},
        {"input": 2, "output": 20},
        E,
    ),
    ("a list", [{"generated_text": "s", "details": DETAILS}], {}, {"output": 20}, P),
    ("text alone", [{"generated_text": "secret"}], {}, {}, U),
    (
        "sglang",
        {"text": "s", "meta_info": {"prompt_tokens": 8, "cached_tokens": 6, "completion_tokens": 3}},
        {},
        {"input": 2, "input_cache_read": 6, "output": 3},
        E,
    ),
    ("headers of nonsense", {"generated_text": "s"}, {"x-prompt-tokens": "x"}, {}, U),
]


@pytest.mark.parametrize(
    ("answer", "headers", "tokens", "quality"), [t[1:] for t in TGI], ids=[t[0] for t in TGI]
)
def test_generate(answer: Any, headers: dict[str, str], tokens: dict[str, int], quality: int) -> None:
    call = asking.call("x.endpoints.huggingface.cloud", "/generate", PROMPT, answer, headers=headers)
    assert (call.provider, call.operation) == ("huggingface", "text_completion")
    assert (dict(call.usage.tokens), call.usage.quality) == (tokens, quality)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/models/org/m", "org/m"),
        ("/hf-inference/models/org/m", "org/m"),
        ("/hf-inference/models/org/m/pipeline/feature-extraction", "org/m"),
        ("/", ""),
    ],
)
def test_models_of_hugging_face(path: str, model: str) -> None:
    call = asking.call("router.huggingface.co", path, PROMPT, [{"generated_text": "secret"}])
    assert (call.request_model, call.usage.quality, call.billable) == (model, U, True)


def test_a_picture_is_an_answer_too() -> None:
    path = "/hf-inference/models/org/draws"
    call = asking.call("router.huggingface.co", path, PROMPT, b"\x89PNG\r\n\x1a\n\x00", kind="image/png")
    assert (call.error_type, call.http_status) == ("", 200)


@pytest.mark.parametrize("whole", [True, False])
def test_generate_stream(whole: bool) -> None:
    token = {"index": 1, "token": {"id": 1, "text": "secret"}, "generated_text": None, "details": None}
    end = {**token, "generated_text": "secret", "details": {**DETAILS, "input_length": 9}}
    body = wire.sse([token, token, end] if whole else [token, token])
    host, path = "x.endpoints.huggingface.cloud", "/generate_stream"
    call = asking.call(host, path, PROMPT, body, kind=asking.SSE, cut=not whole)
    tokens = dict(call.usage.tokens)
    assert (tokens, call.usage.quality) == (({"input": 9, "output": 20}, E) if whole else ({}, U))
    assert (call.streaming, call.error_type) == (True, "" if whole else "stream_incomplete")


def test_triton_names_the_model() -> None:
    answer = {"model_name": "ensemble", "model_version": "1", "text_output": "secret"}
    call = asking.call("triton.internal:8000", "/v2/models/ensemble/generate", {"text_input": "x"}, answer)
    assert (call.request_model, call.response_model, call.usage.quality) == ("ensemble", "ensemble", U)


WATSONX = "us-south.ml.cloud.ibm.com"


def result(**fields: Any) -> dict[str, Any]:
    return {"model_id": "ibm/granite-test", "results": [{"generated_text": "secret", **fields}]}


@pytest.mark.parametrize(
    "path",
    [
        "/ml/v1/text/generation?version=2024-01-01",
        "/ml/v1-beta/generation/text?version=2024-01-01",
        "/ml/v1/deployments/mine/text/generation?version=2024-01-01",
    ],
)
def test_watsonx(path: str) -> None:
    answer = result(generated_token_count=4, input_token_count=7, stop_reason="eos_token")
    call = asking.call(WATSONX, path, {"model_id": "ibm/granite-test", "input": "secret"}, answer)
    assert (call.provider, call.operation) == ("ibm.watsonx.ai", "text_completion")
    assert (call.request_model, call.response_model) == ("ibm/granite-test", "ibm/granite-test")
    assert (dict(call.usage.tokens), call.usage.quality) == ({"input": 7, "output": 4}, E)
    assert list(call.finish_reasons) == ["eos_token"]


@pytest.mark.parametrize("whole", [True, False])
def test_watsonx_streams(whole: bool) -> None:
    events = [
        result(generated_token_count=0, input_token_count=7, stop_reason="not_finished"),
        result(generated_token_count=2, input_token_count=0, stop_reason="not_finished"),
        result(generated_token_count=4, input_token_count=0, stop_reason="max_tokens"),
    ]
    body = wire.sse(events if whole else events[:2])
    path, request = "/ml/v1/text/generation_stream", {"model_id": "m", "input": "x"}
    call = asking.call(WATSONX, path, request, body, kind=asking.SSE, cut=not whole)
    assert (dict(call.usage.tokens), call.usage.quality) == (
        ({"input": 7, "output": 4}, E) if whole else ({"input": 7}, P)
    )
    assert call.error_type == ("" if whole else "stream_incomplete")


def test_watsonx_chat_is_a_completion_with_another_name_for_the_model() -> None:
    answer = wire.chat_completion(model_id="ibm/granite-test")
    del answer["model"]
    call = asking.call(WATSONX, "/ml/v1/text/chat", {"model_id": "asked", "messages": []}, answer)
    assert (call.operation, call.request_model, call.response_model) == ("chat", "asked", "ibm/granite-test")
    assert dict(call.usage.tokens) == {"input": 30, "output": 12}


WATSONX_OTHERS = [
    ("/ml/v1/text/embeddings", {"results": [{"embedding": [0.1]}], "input_token_count": 10}, "embeddings"),
    ("/ml/v1/text/rerank", {"results": [{"index": 0, "score": 1}], "input_token_count": 10}, "rerank"),
]


@pytest.mark.parametrize(("path", "answer", "operation"), WATSONX_OTHERS)
def test_watsonx_without_output(path: str, answer: Any, operation: str) -> None:
    call = asking.call(WATSONX, path, {"model_id": "m", "inputs": ["x"]}, {"model_id": "m", **answer})
    assert (call.operation, dict(call.usage.tokens), call.usage.quality) == (operation, {"input": 10}, E)


def test_watsonx_errors_and_tokens() -> None:
    errors = {"errors": [{"code": "model_not_supported", "message": "m"}], "trace": "t"}
    call = asking.call(WATSONX, "/ml/v1/text/generation", {"model_id": "m", "input": "x"}, errors, status=404)
    assert (call.error_type, call.billable) == ("model_not_supported", False)
    answer = {"model_id": "m", "result": {"token_count": 11}}
    assert asking.reason(WATSONX, "/ml/v1/text/tokenization", {"model_id": "m"}, answer) == "token_counting"


ALEPH = "api.aleph-alpha.com"


def test_aleph_alpha() -> None:
    answer = {
        "completions": [{"completion": "secret", "finish_reason": "maximum_tokens"}],
        "model_version": "2022-04",
        "num_tokens_prompt_total": 9,
        "num_tokens_generated": 64,
    }
    call = asking.call(ALEPH, "/complete", {"model": "luminous-test", "prompt": []}, answer)
    assert (call.request_model, call.response_model) == ("luminous-test", "2022-04")
    assert (dict(call.usage.tokens), call.usage.quality) == ({"input": 9, "output": 64}, E)
    assert list(call.finish_reasons) == ["maximum_tokens"]


@pytest.mark.parametrize("whole", [True, False])
def test_aleph_alpha_streams(whole: bool) -> None:
    events = [
        {"type": "stream_chunk", "index": 0, "completion": "secret"},
        {"type": "stream_summary", "index": 0, "model_version": "2022-04", "finish_reason": "end_of_text"},
        {"type": "completion_summary", "num_tokens_prompt_total": 9, "num_tokens_generated": 64},
    ]
    body = wire.sse(events if whole else events[:1])
    request = {"model": "luminous-test", "prompt": [], "stream": True}
    call = asking.call(ALEPH, "/complete", request, body, kind=asking.SSE, cut=not whole)
    assert (dict(call.usage.tokens), call.usage.quality) == (
        ({"input": 9, "output": 64}, E) if whole else ({}, U)
    )


def test_aleph_alpha_embeds_and_counts() -> None:
    answer = {"model_version": "2022-04", "embedding": [0.1], "num_tokens_prompt_total": 5}
    call = asking.call(ALEPH, "/semantic_embed", {"model": "l", "prompt": []}, answer)
    assert (call.operation, dict(call.usage.tokens), call.usage.quality) == ("embeddings", {"input": 5}, E)
    assert (
        asking.reason(ALEPH, "/tokenize", {"model": "l", "prompt": "x"}, {"tokens": []}) == "token_counting"
    )


@pytest.mark.parametrize("whole", [True, False])
def test_reka(whole: bool) -> None:
    base = {"id": "d4e5f6a7-0000-4444-8888-0123456789ab", "model": "reka-test"}
    events = [
        {**base, "responses": [{"finish_reason": None}], "usage": {"input_tokens": 6, "output_tokens": 2}},
        {**base, "responses": [{"finish_reason": "stop"}], "usage": {"input_tokens": 6, "output_tokens": 9}},
    ]
    body = wire.sse(events if whole else events[:1], names=False)
    request = wire.chat_request(stream=True)
    call = asking.call("api.reka.ai", "/v1/chat", request, body, kind=asking.SSE, cut=not whole)
    assert (dict(call.usage.tokens), call.usage.quality) == (
        ({"input": 6, "output": 9}, E) if whole else ({"input": 6}, P)
    )
    plain = asking.call("api.reka.ai", "/v1/chat", wire.chat_request(), events[1])
    assert (dict(plain.usage.tokens), plain.streaming) == ({"input": 6, "output": 9}, False)


NAMESAKES: list[tuple[str, Any, Any]] = [
    ("/v1/complete", {"prompt": "x"}, {"suggestions": ["x"]}),
    ("/v2/chat", {"messages": [{"role": "user", "content": "x"}]}, {"reply": "x"}),
    ("/v1/ocr", {"document": "x"}, {"text": "x"}),
    ("/generate", {"prompt": "x"}, {"details": {"id": 1}}),
    ("/v1/listen", {"url": "x"}, {"metadata": {"channel": "x"}}),
    ("/v1/speak", {"text": "x"}, {"url": "x"}),
    ("/v1/predictions", {"input": "x"}, {"predictions": [1]}),
    ("/v2/embed", {"texts": ["x"]}, {"embeddings": []}),
    ("/search/rerank", {"query": "x"}, {"results": []}),
]


@pytest.mark.parametrize(("path", "request_body", "answer"), NAMESAKES)
def test_namesakes_at_hosts_that_nobody_knows_are_no_calls(path: str, request_body: Any, answer: Any) -> None:
    assert asking.reason("app.example", path, request_body, answer) == "not_llm"
