"""Providers of sound, images and much else: Deepgram, DashScope, Replicate, MiniMax, ElevenLabs, others."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto import wire
from tests.proto.providers import asking

from mmproto.outcome import Recognised
from mmproto.v1.usage_pb2 import Quality

E, P, U = Quality.QUALITY_EXACT, Quality.QUALITY_PARTIAL, Quality.QUALITY_UNKNOWN
ID = "0190aabb-1111-4222-8333-0123456789ab"

# -- Deepgram

MODELS = {"2187e11a": {"name": "general-test", "version": "2026-01-01.0", "arch": "nova-test"}}
HEARD = {"metadata": {"request_id": ID, "duration": 12.5, "channels": 2, "model_info": MODELS}, "results": {}}


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("model=nova-test", 12.5),
        ("model=nova-test&multichannel=true", 25.0),
        ("model=nova-test&channels=2", 12.5),
    ],
)
@pytest.mark.parametrize("request_body", [b"RIFF\xff\xff\xff\xffWAVEfmt \x00", {"url": "https://secret"}])
def test_deepgram_listens(query: str, seconds: float, request_body: Any) -> None:
    [outcome] = asking.outcomes("api.deepgram.com", f"/v1/listen?{query}", request_body, HEARD)
    assert asking.plain(outcome)[1] == ()
    call = asking.call("api.deepgram.com", f"/v1/listen?{query}", request_body, HEARD)
    assert (call.provider, call.operation, call.response_id) == ("deepgram", "transcription", ID)
    assert (call.request_model, call.response_model) == ("nova-test", "nova-test")
    assert (*asking.counted(call), call.usage.quality) == ({}, {"audio_seconds": seconds}, E)


def test_deepgram_reads() -> None:
    info = {"input_tokens": 100, "output_tokens": 9}
    metadata = {
        "request_id": ID,
        "summary_info": info,
        "topics_info": {"input_tokens": 50, "output_tokens": 1},
    }
    call = asking.call("api.deepgram.com", "/v1/read?summarize=v2", {"text": "x"}, {"metadata": metadata})
    assert (call.operation, *asking.counted(call)) == ("text_analysis", {"input": 150, "output": 10}, {})


def test_deepgram_speaks() -> None:
    headers = {"dg-char-count": "64", "dg-model-name": "aura-test", "dg-request-id": ID}
    path = "/v1/speak?model=aura-test"
    sound = b"\xff\xf3\x44\xc4\x00"
    call = asking.call("api.deepgram.com", path, {"text": "x"}, sound, kind="audio/mpeg", headers=headers)
    assert (call.operation, call.response_model, call.response_id) == ("speech", "aura-test", ID)
    assert (*asking.counted(call), call.usage.quality) == ({}, {"characters": 64.0}, E)


def test_deepgram_refuses() -> None:
    error = {"err_code": "INVALID_AUTH", "err_msg": "m", "request_id": ID}
    call = asking.call("api.deepgram.com", "/v1/listen", {"url": "x"}, error, status=401)
    assert (call.error_type, call.billable) == ("INVALID_AUTH", False)


def test_deepgram_answers_later() -> None:
    call = asking.call("api.deepgram.com", "/v1/listen?callback=x", {"url": "x"}, {"request_id": ID})
    assert (call.usage.quality, call.billable) == (U, True)


@pytest.mark.parametrize("ended", [True, False])
def test_deepgram_counts_a_live_session_at_its_end(ended: bool) -> None:
    asked, answered = wire.upgrade("api.deepgram.com", "/v1/listen?model=nova-test")
    heard = {"type": "Results", "channel": {"alternatives": [{"transcript": "secret"}]}}
    end = {"type": "Metadata", "request_id": ID, "duration": 42.5, "channels": 1, "model_info": MODELS}
    sent = wire.websocket({"type": "CloseStream"}, masked=True)
    received = b"".join(wire.websocket(message) for message in ([heard, heard, end] if ended else [heard]))
    for step in (1 << 20, asking.STEP):
        outcomes = wire.read_turns([(asked, answered), (sent, received)], close=True, step=step)
        [told] = [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]
        call = asking.without_estimates(told)
        assert (call.operation, call.request_model, call.billable) == ("transcription", "nova-test", True)
        assert (*asking.counted(call), call.usage.quality) == (
            ({}, {"audio_seconds": 42.5}, E) if ended else ({}, {}, U)
        )
        assert (call.streaming, call.error_type) == (True, "")


def test_deepgram_refuses_a_live_session() -> None:
    error = {"err_code": "INVALID_AUTH", "err_msg": "m", "request_id": ID}
    call = asking.call("api.deepgram.com", "/v1/listen?model=m", None, error, method="GET", status=401)
    assert (call.error_type, call.billable) == ("INVALID_AUTH", False)


# -- DashScope

DASHSCOPE = "dashscope.aliyuncs.com"
AIGC = "/api/v1/services/aigc"


def qwen(reason: str, **usage: Any) -> dict[str, Any]:
    return {"request_id": ID, "output": {"finish_reason": reason, "text": "secret"}, "usage": usage}


QWEN: list[tuple[dict[str, Any], dict[str, int], dict[str, float]]] = [
    ({"input_tokens": 20, "output_tokens": 9, "total_tokens": 29}, {"input": 20, "output": 9}, {}),
    (
        {
            "input_tokens": 1277,
            "image_tokens": 1247,
            "output_tokens": 50,
            "output_tokens_details": {"reasoning_tokens": 30},
            "prompt_tokens_details": {"cached_tokens": 10},
        },
        {"input": 20, "input_image": 1247, "input_cache_read": 10, "output": 20, "output_reasoning": 30},
        {},
    ),
    ({"image_count": 2, "width": 1024}, {}, {"images": 2.0}),
    ({"characters": 31}, {}, {"characters": 31.0}),
]


@pytest.mark.parametrize(("usage", "tokens", "units"), QWEN)
def test_dashscope(usage: dict[str, Any], tokens: dict[str, int], units: dict[str, float]) -> None:
    request = {"model": "qwen-test", "input": {"messages": []}}
    call = asking.call(DASHSCOPE, f"{AIGC}/multimodal-generation/generation", request, qwen("stop", **usage))
    assert (call.provider, call.operation, call.request_model) == ("alibaba", "chat", "qwen-test")
    assert (*asking.counted(call), call.usage.quality) == (tokens, units, E)


@pytest.mark.parametrize("whole", [True, False])
def test_dashscope_streams_a_running_usage(whole: bool) -> None:
    events = [
        qwen("null", input_tokens=20, output_tokens=1),
        qwen("null", input_tokens=20, output_tokens=5),
        qwen("stop", input_tokens=20, output_tokens=9),
    ]
    body = wire.sse(events if whole else events[:2])
    path, request = f"{AIGC}/text-generation/generation", {"model": "qwen-test", "input": {"prompt": "x"}}
    call = asking.call(DASHSCOPE, path, request, body, kind=asking.SSE, cut=not whole)
    expected = ({"input": 20, "output": 9}, E) if whole else ({"input": 20}, P)
    assert (dict(call.usage.tokens), call.usage.quality) == expected
    assert call.error_type == ("" if whole else "stream_incomplete")


DASHSCOPE_OTHERS = [
    (
        "/api/v1/services/embeddings/text-embedding/text-embedding",
        {"total_tokens": 26},
        "embeddings",
        {"input": 26},
    ),
    ("/api/v1/services/rerank/text-rerank/text-rerank", {"total_tokens": 79}, "rerank", {"input": 79}),
    (f"{AIGC}/text2image/image-synthesis", None, "image_generation", {}),
    (f"{AIGC}/video-generation/video-synthesis", None, "video_generation", {}),
    ("/api/v1/services/audio/asr/transcription", None, "transcription", {}),
]


@pytest.mark.parametrize(("path", "usage", "operation", "tokens"), DASHSCOPE_OTHERS)
def test_dashscope_does_more(path: str, usage: Any, operation: str, tokens: dict[str, int]) -> None:
    answer = {"request_id": ID, "output": {"task_id": "t", "task_status": "PENDING"}}
    answer |= {"usage": usage} if usage else {}
    call = asking.call(DASHSCOPE, path, {"model": "m", "input": {}}, answer)
    assert (call.operation, dict(call.usage.tokens), call.billable) == (operation, tokens, True)
    assert call.usage.quality == (E if tokens else U)


def test_dashscope_tells_the_models_of_an_application_apart() -> None:
    used = [
        {"model_id": "qwen-a", "input_tokens": 10, "output_tokens": 2},
        {"model_id": "qwen-b", "input_tokens": 30, "output_tokens": 4},
    ]
    path = "/api/v1/apps/1234abcd/completion"
    first, second = asking.calls(DASHSCOPE, path, {"input": {"prompt": "x"}}, qwen("stop", models=used))
    assert [(c.response_model, dict(c.usage.tokens)) for c in (first, second)] == [
        ("qwen-a", {"input": 10, "output": 2}),
        ("qwen-b", {"input": 30, "output": 4}),
    ]
    assert first.id != second.id


def test_dashscope_fails_and_is_looked_at() -> None:
    error = {"code": "InvalidApiKey", "message": "m", "request_id": ID}
    path = f"{AIGC}/text-generation/generation"
    call = asking.call(DASHSCOPE, path, {"model": "m", "input": {}}, error, status=401)
    assert (call.error_type, call.billable) == ("InvalidApiKey", False)
    task = {"request_id": ID, "output": {"task_status": "SUCCEEDED"}, "usage": {"image_count": 1}}
    assert asking.reason(DASHSCOPE, "/api/v1/tasks/t", None, task, method="GET") == "retrieval"


# -- Replicate


def prediction(status: str, **fields: Any) -> dict[str, Any]:
    urls = {"get": "https://x", "cancel": "https://x"}
    return {"id": "vdcbnszbj37qhlzgoergjj5dsa", "model": "o/m", "status": status, "urls": urls, **fields}


COUNTED = {"metrics": {"input_token_count": 8, "output_token_count": 20, "predict_time": 1.5}}


@pytest.mark.parametrize(("path", "model"), [("/v1/predictions", ""), ("/v1/models/o/m/predictions", "o/m")])
@pytest.mark.parametrize(
    ("status", "fields", "tokens", "quality"),
    [
        ("starting", {}, {}, U),
        ("succeeded", COUNTED, {"input": 8, "output": 20}, E),
        ("succeeded", {"metrics": {"predict_time": 2}}, {}, U),
    ],
)
def test_replicate(path: str, model: str, status: str, fields: Any, tokens: Any, *, quality: int) -> None:
    call = asking.call(
        "api.replicate.com", path, {"version": "v", "input": {}}, prediction(status, **fields), status=201
    )
    assert (call.request_model, call.response_model, call.billable) == (model, "o/m", True)
    assert (dict(call.usage.tokens), call.usage.quality, call.error_type) == (tokens, quality, "")


def test_replicate_is_looked_at() -> None:
    answer = prediction("succeeded", **COUNTED)
    path = "/v1/predictions/vdcbnszbj37qhlzgoergjj5dsa"
    assert asking.reason("api.replicate.com", path, None, answer, method="GET") == "retrieval"
    assert asking.reason("api.replicate.com", f"{path}/cancel", {}, answer) == "retrieval"


def test_replicate_fails() -> None:
    call = asking.call(
        "api.replicate.com",
        "/v1/predictions",
        {"version": "v", "input": {}},
        prediction("failed", error="secret"),
    )
    assert call.error_type == "failed"


# -- the others


def test_minimax() -> None:
    done = wire.chat_completion(base_resp={"status_code": 0})
    call = asking.call("api.minimax.io", "/v1/text/chatcompletion_v2", wire.chat_request(), done)
    assert (call.operation, dict(call.usage.tokens), call.error_type) == (
        "chat",
        {"input": 30, "output": 12},
        "",
    )
    failed = {"base_resp": {"status_code": 1004, "status_msg": "m"}}
    call = asking.call("api.minimax.io", "/v1/text/chatcompletion_v2", wire.chat_request(), failed)
    assert (call.error_type, call.billable) == ("1004", False)


def test_minimax_speaks() -> None:
    answer = {
        "data": {"audio": "00"},
        "extra_info": {"usage_characters": 26},
        "base_resp": {"status_code": 0},
    }
    call = asking.call("api.minimax.io", "/v1/t2a_v2", {"model": "speech-test", "text": "x"}, answer)
    assert (call.operation, *asking.counted(call)) == ("speech", {}, {"characters": 26.0})


ELEVEN = "api.elevenlabs.io"


@pytest.mark.parametrize(
    "path",
    ["/v1/text-to-speech/v1", "/v1/text-to-speech/v1/stream?output_format=mp3", "/v1/text-to-dialogue"],
)
def test_elevenlabs_speaks(path: str) -> None:
    request = {"text": "secret", "model_id": "eleven_test"}
    headers = {"character-cost": "19"}
    call = asking.call(ELEVEN, path, request, b"ID3\x04\x00", kind="audio/mpeg", headers=headers)
    assert (call.provider, call.operation, call.request_model) == ("elevenlabs", "speech", "eleven_test")
    assert (*asking.counted(call), call.usage.quality) == ({}, {"characters": 19.0}, E)


def test_elevenlabs_listens() -> None:
    answer = {"text": "secret", "words": [], "transcription_id": ID, "audio_duration_secs": 4.2}
    call = asking.call(ELEVEN, "/v1/speech-to-text", {"model_id": "scribe_test"}, answer)
    assert (call.request_model, *asking.counted(call)) == ("scribe_test", {}, {"audio_seconds": 4.2})
    error = {"detail": {"status": "invalid_api_key", "message": "m"}}
    call = asking.call(ELEVEN, "/v1/speech-to-text", {"model_id": "s"}, error, status=401)
    assert (call.error_type, call.billable) == ("invalid_api_key", False)


def test_assemblyai() -> None:
    host = "api.assemblyai.com"
    begun = {"id": ID, "status": "queued", "audio_duration": None}
    call = asking.call(host, "/v2/transcript", {"audio_url": "x", "speech_model": "best"}, begun)
    assert (call.request_model, call.usage.quality, call.billable) == ("best", U, True)
    done = {"id": ID, "status": "completed", "audio_duration": 281}
    assert asking.reason(host, f"/v2/transcript/{ID}", None, done, method="GET") == "retrieval"
    said = {"request_id": ID, "response": "secret", "usage": {"input_tokens": 27, "output_tokens": 3}}
    call = asking.call(host, "/lemur/v3/generate/task", {"final_model": "m", "prompt": "x"}, said)
    assert (call.request_model, dict(call.usage.tokens)) == ("m", {"input": 27, "output": 3})


STABLE = [
    (b"\x89PNG\r\n\x1a\n", "image/png", 1.0),
    (wire.dump({"image": "AAAA", "finish_reason": "SUCCESS", "seed": 1}), "application/json", 1.0),
    (wire.dump({"artifacts": [{"base64": "AAAA"}, {"base64": "AAAA"}]}), "application/json", 2.0),
]


@pytest.mark.parametrize(("body", "kind", "images"), STABLE)
def test_stability(body: bytes, kind: str, images: float) -> None:
    call = asking.call(
        "api.stability.ai", "/v2beta/stable-image/generate/core", {"prompt": "x"}, body, kind=kind
    )
    assert (call.operation, call.request_model) == ("image_generation", "core")
    assert (*asking.counted(call), call.usage.quality) == ({}, {"images": images}, E)


@pytest.mark.parametrize(
    ("request_body", "answer", "operation", "tokens"),
    [
        (wire.chat_request(), wire.chat_completion(), "chat", {"input": 30, "output": 12}),
        (
            {"input": "x"},
            {"data": [], "usage": {"prompt_tokens": 5, "total_tokens": 5}},
            "embeddings",
            {"input": 5},
        ),
    ],
)
def test_databricks(request_body: Any, answer: Any, operation: str, tokens: dict[str, int]) -> None:
    host, path = "adb-1.2.azuredatabricks.net", "/serving-endpoints/my-model/invocations"
    call = asking.call(host, path, request_body, answer)
    assert (call.provider, call.operation, call.request_model) == (
        "databricks",
        operation,
        request_body.get("model", "my-model"),
    )
    assert (dict(call.usage.tokens), call.usage.quality) == (tokens, E)
    frames = {"dataframe_split": {"columns": ["a"], "data": [[1]]}}
    assert asking.reason(host, path, frames, {"predictions": [1]}) == "not_llm"


def test_snowflake() -> None:
    host = "org-account.snowflakecomputing.com"
    body = wire.sse(wire.chat_chunks(usage=wire.chat_usage()))
    call = asking.call(host, "/api/v2/cortex/inference:complete", wire.chat_request(), body, kind=asking.SSE)
    assert (call.provider, dict(call.usage.tokens), call.streaming) == (
        "snowflake",
        {"input": 30, "output": 12},
        True,
    )


def test_writer() -> None:
    call = asking.call("api.writer.com", "/v1/applications/a1b2", {"inputs": []}, {"suggestion": "secret"})
    assert (call.operation, call.usage.quality, call.billable) == ("chat", U, True)
