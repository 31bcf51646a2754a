"""Work that is fetched later than it is asked for: assistants' runs, batches, stored answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.proto import wire
from tests.proto.providers.reported import reported

from mmproto.exchange import Dropped, Outcome, Recognised
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import Quality

U, E = Quality.QUALITY_UNKNOWN, Quality.QUALITY_EXACT
RUN_ID = "run_Q1w2E3r4T5z6U7i8O9p0AsDf"
RUN_PATH = f"/v1/threads/thread_abc/runs/{RUN_ID}"


def get(path: str, body: bytes, host: str = "api.openai.com") -> list[Outcome]:
    return wire.read(wire.request(host, path, method="GET"), body, close=True)


def reason(outcomes: list[Outcome]) -> str:
    [outcome] = outcomes
    assert isinstance(outcome, Dropped), outcome
    return outcome.reason


def calls(outcomes: list[Outcome]) -> list[Call]:
    assert Dropped("counted_in_portions") in outcomes
    return [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]


# Assistants


def run(status: str, **fields: Any) -> dict[str, Any]:
    used = wire.chat_usage(prompt_token_details={"cached_tokens": 10})
    return {
        "id": RUN_ID,
        "object": "thread.run",
        "status": status,
        "model": "gpt-test",
        "instructions": "secret",
        "usage": used if status in ("completed", "incomplete") else None,
        **fields,
    }


def step() -> dict[str, Any]:
    return {
        "id": "step_1",
        "object": "thread.run.step",
        "status": "completed",
        "usage": wire.chat_usage(9, 9),
    }


def run_stream(*events: tuple[str, Any]) -> bytes:
    blocks = [f"event: {name}\ndata: {json.dumps(document)}\n\n" for name, document in events]
    return "".join(blocks).encode() + b"event: done\ndata: [DONE]\n\n"


@pytest.mark.parametrize(
    "path", ["/v1/threads/runs", "/v1/threads/thread_abc/runs", f"{RUN_PATH}/submit_tool_outputs"]
)
def test_a_run_that_streams(path: str) -> None:
    body = run_stream(
        ("thread.run.created", run("queued")),
        ("thread.message.delta", {"id": "msg_1", "delta": {"content": "secret"}}),
        ("thread.run.step.completed", step()),
        ("thread.run.completed", run("completed")),
    )
    sent = wire.request("api.openai.com", path, {"assistant_id": "asst_1", "stream": True})
    call = wire.the_call(wire.read(sent, wire.response(body, content_type="text/event-stream")))
    assert dict(call.usage.tokens) == {"input": 20, "input_cache_read": 10, "output": 12}
    assert (call.usage.quality, call.response_id, call.response_model) == (E, RUN_ID, "gpt-test")
    assert (call.streaming, call.error_type, list(call.finish_reasons)) == (True, "", ["completed"])
    fetched = wire.the_call(get(RUN_PATH, wire.response(run("completed"))))
    assert (fetched.id, fetched.usage) == (call.id, call.usage)


def test_a_run_is_counted_where_it_is_found_ended() -> None:
    sent = wire.request("api.openai.com", "/v1/threads/thread_abc/runs", {"assistant_id": "asst_1"})
    assert reason(wire.read(sent, wire.response(run("queued")))) == "response_pending"
    assert reason(get(RUN_PATH, wire.response(run("in_progress")))) == "response_pending"
    assert reason(get(RUN_PATH, wire.response(run("requires_action")))) == "response_pending"
    listed = {"object": "list", "data": [run("completed")]}
    assert reason(get("/v1/threads/thread_abc/runs", wire.response(listed))) == "retrieval"
    limit = {"incomplete_details": {"reason": "max_prompt_tokens"}}
    call = wire.the_call(get(RUN_PATH, wire.response(run("incomplete", **limit))))
    assert (list(call.finish_reasons), call.billable) == (["max_prompt_tokens"], True)


def test_a_run_that_failed() -> None:
    failed = run("failed", last_error={"code": "rate_limit_exceeded", "message": "m"})
    call = wire.the_call(get(RUN_PATH, wire.response(failed)))
    assert (call.error_type, call.billable, call.usage.quality) == ("rate_limit_exceeded", False, U)


def test_a_run_whose_stream_was_cut_off_has_an_unknown_price() -> None:
    body = b"event: thread.run.created\ndata: " + wire.dump(run("queued")) + b"\n\n"
    sent = wire.request("api.openai.com", "/v1/threads/runs", {"assistant_id": "a", "stream": True})
    head = wire.response(body, content_type="text/event-stream", framing="chunked")[: -len(b"0\r\n\r\n")]
    call = wire.the_call(wire.read(sent, head, close=True))
    assert (call.billable, reported(call), call.response_id) == (True, ({}, U), RUN_ID)


# Batches


def batch(status: str = "completed") -> dict[str, Any]:
    return {
        "id": "batch_1",
        "object": "batch",
        "model": "gpt-test",
        "status": status,
        "usage": {"input_tokens": 99, "output_tokens": 99, "total_tokens": 198},
    }


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/batches", "preparation"),
        ("GET", "/v1/batches", "retrieval"),
        ("GET", "/v1/batches/batch_1", "retrieval"),
        ("POST", "/v1/batches/batch_1/cancel", "retrieval"),
    ],
)
def test_the_batch_itself_costs_nothing(method: str, path: str, expected: str) -> None:
    outcomes = wire.read(wire.request("api.openai.com", path, method=method), wire.response(batch()))
    assert reason(outcomes) == expected


def line(number: int, body: Any, *, status: int = 200) -> bytes:
    return wire.dump(
        {
            "id": f"batch_req_{number}a8b7c6d5e4f3g2h1",
            "custom_id": str(number),
            "response": {"status_code": status, "request_id": "r", "body": body},
            "error": None,
        }
    )


EMBEDDINGS = {
    "object": "list",
    "model": "embed-test",
    "data": [{"object": "embedding", "embedding": [0.5] * 20_000}],
    "usage": {"prompt_tokens": 7, "total_tokens": 7},
}
FILE = "/v1/files/file-Ab12Cd34/content"


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_every_line_of_the_results_is_a_call(end: bytes) -> None:
    failed = line(3, {"error": {"code": "bad", "message": "m"}}, status=400)
    lines = [
        line(0, wire.chat_completion()),
        line(1, wire.response_object()),
        failed,
        line(2, EMBEDDINGS),
    ]
    body = wire.response(b"\n".join(lines) + end, content_type="application/octet-stream")
    chat, response, embeddings = calls(get(FILE, body))
    assert (chat.operation, dict(chat.usage.tokens)) == ("chat", {"input": 30, "output": 12})
    assert (response.response_id, response.response_model) == (wire.RESPONSE_ID, "gpt-test-2026")
    assert dict(response.usage.tokens) == {
        "input": 32,
        "input_cache_read": 8,
        "output": 20,
        "output_reasoning": 5,
    }
    assert (embeddings.operation, dict(embeddings.usage.tokens)) == ("embeddings", {"input": 7})
    for call in (chat, response, embeddings):
        assert (call.service_tier, call.billable, call.usage.quality, call.streaming) == (
            "batch",
            True,
            E,
            False,
        )
        assert b"secret" not in call.SerializeToString()
    again = calls(get(FILE, body))
    assert [call.id for call in again] == [chat.id, response.id, embeddings.id]
    assert len({chat.id, response.id, embeddings.id}) == 3


def test_results_of_one_line_look_like_a_document() -> None:
    body = wire.response(line(0, wire.chat_completion()))
    for path in (FILE, "/openai/v1/files/file-1/content?api-version=1"):
        [call] = calls(get(path, body))
        assert (dict(call.usage.tokens), call.service_tier) == ({"input": 30, "output": 12}, "batch")


@pytest.mark.parametrize(
    "body",
    [
        b"%PDF-1.7\n" + bytes(range(256)),
        b'{"messages": [{"role": "user", "content": "for fine-tuning"}]}\n' * 3,
        line(0, {"error": {"code": "x"}}, status=500),
        b"",
    ],
)
def test_other_files_are_just_files(body: bytes) -> None:
    assert reason(get(FILE, wire.response(body))) == "retrieval"


def test_results_of_xai_come_in_pages() -> None:
    completion = wire.chat_completion(
        usage={
            **wire.chat_usage(30, 12),
            "total_tokens": 50,
            "completion_tokens_details": {"reasoning_tokens": 8},
            "cost_in_usd_ticks": 1_234_500,
        }
    )
    page = {
        "results": [
            {"batch_request_id": "0", "batch_result": {"response": {"chat_get_completion": completion}}},
            {"batch_request_id": "1", "batch_result": {"error": {"code": 3, "message": "m"}}},
        ],
        "pagination_token": None,
    }
    [call] = calls(get("/v1/batches/batch_1/results", wire.response(page), "api.x.ai"))
    assert dict(call.usage.tokens) == {"input": 30, "output": 12, "output_reasoning": 8}
    assert (call.service_tier, call.reported_cost_nano_usd) == ("batch", 123_450)


# What was answered before


@pytest.mark.parametrize(
    "path", [f"/v1/chat/completions/{wire.CHAT_ID}", f"/v1/responses/{wire.RESPONSE_ID}"]
)
def test_a_stored_answer_costs_nothing(path: str) -> None:
    body = wire.chat_completion() if "chat" in path else wire.response_object()
    assert reason(get(path, wire.response(body))) == "retrieval"


def test_jobs_of_perplexity_are_counted_where_they_are_fetched() -> None:
    path = "/async/chat/completions"
    wrapped = {"request": wire.chat_request(model="sonar-test")}
    job = {"id": "job-1", "model": "sonar-test", "status": "CREATED", "response": None}
    assert reason(wire.read(wire.request("api.perplexity.ai", path, wrapped), wire.response(job))) == (
        "response_pending"
    )
    finished = {**job, "status": "COMPLETED", "response": wire.chat_completion()}
    call = wire.the_call(get(f"{path}/job-1", wire.response(finished), "api.perplexity.ai"))
    assert (dict(call.usage.tokens), call.response_id) == ({"input": 30, "output": 12}, wire.CHAT_ID)


def test_deferred_completions_of_xai_are_counted_where_they_are_fetched() -> None:
    asked = wire.request("api.x.ai", "/v1/chat/completions", wire.chat_request(deferred=True))
    assert reason(wire.read(asked, wire.response({"request_id": "aaaa-bbbb"}))) == "response_pending"
    path = "/v1/chat/deferred-completion/aaaa-bbbb"
    assert reason(get(path, wire.response(b"", status=202), "api.x.ai")) == "response_pending"
    call = wire.the_call(get(path, wire.response(wire.chat_completion()), "api.x.ai"))
    assert (dict(call.usage.tokens), call.billable) == ({"input": 30, "output": 12}, True)


def test_answers_are_fetched_by_ids_of_any_shape() -> None:
    body = wire.response(wire.response_object(id="3f1c0c52-9a55-4d6f-8465-4d657465726c"))
    path = "/v1/responses/3f1c0c52-9a55-4d6f-8465-4d657465726c"
    [outcome] = get(path, body, "api.x.ai")
    assert isinstance(outcome, Dropped)
    assert outcome.reason == "retrieval"
    assert outcome.call is not None
    assert outcome.call.response_model == "gpt-test-2026"
