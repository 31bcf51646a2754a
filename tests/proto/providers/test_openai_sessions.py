"""OpenAI over WebSocket: the responses and transcriptions of realtime sessions, and responses by socket."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto import wire

from mmproto.exchange import Dropped, Outcome, Recognised
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import Quality

U, E = Quality.QUALITY_UNKNOWN, Quality.QUALITY_EXACT
RESPONSES = ("resp_D1a2b3c4d5e6f7g8h9i0k", "resp_D9z8y7x6w5v4u3t2s1r0q")
ITEM = "item_D1q2w3e4r5t6z7u8i9o0p"


def usage(cached_audio: int | None = 64, cached_image: int | None = 0) -> dict[str, Any]:
    """500 in: 300 of sound and 20 of an image, 128 of all cached; 200 out: 150 of sound."""
    split = {"text_tokens": 64, "audio_tokens": cached_audio, "image_tokens": cached_image}
    return {
        "total_tokens": 700,
        "input_tokens": 500,
        "output_tokens": 200,
        "input_token_details": {
            "text_tokens": 180,
            "audio_tokens": 300,
            "image_tokens": 20,
            "cached_tokens": 128,
            "cached_tokens_details": split,
        },
        "output_token_details": {"text_tokens": 50, "audio_tokens": 150},
    }


def done(number: int = 0, **fields: Any) -> dict[str, Any]:
    response = {
        "id": RESPONSES[number],
        "object": "realtime.response",
        "status": "completed",
        "usage": usage(),
    }
    return {"type": "response.done", "event_id": "event_1", "response": {**response, **fields}}


def created(number: int = 0) -> dict[str, Any]:
    response = {"id": RESPONSES[number], "status": "in_progress", "usage": None}
    return {"type": "response.created", "response": response}


def session(model: str = "gpt-realtime-test-2026", heard: str | None = "whisper-test") -> dict[str, Any]:
    sound = {"input": {"transcription": {"model": heard} if heard else None}}
    return {
        "type": "session.updated",
        "session": {"type": "realtime", "model": model, "audio": sound, "instructions": "secret " * 20_000},
    }


def transcript(reported: Any) -> dict[str, Any]:
    return {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": ITEM,
        "transcript": "secret",
        "usage": reported,
    }


SOUND = {"type": "response.output_audio.delta", "delta": "QUJD" * 3000}


def talk(
    server: list[Any],
    client: list[Any] | None = None,
    *,
    host: str = "api.openai.com",
    path: str = "/v1/realtime?model=gpt-realtime-test",
    step: int = 1 << 30,
    end: bool = True,
) -> list[Outcome]:
    sent = b"".join(wire.websocket(message, masked=True) for message in client or [])
    received = b"".join(wire.websocket(message) for message in server)
    if end:
        sent, received = sent + wire.websocket_close(masked=True), received + wire.websocket_close()
    return wire.read_turns([wire.upgrade(host, path), (sent, received)], close=True, step=step)


def calls(outcomes: list[Outcome]) -> list[Call]:
    assert Dropped("counted_in_portions") in outcomes
    return [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]


BUCKETS = {
    "input": 180 - 64,
    "input_audio": 300 - 64,
    "input_image": 20,
    "input_cache_read": 64,
    "input_audio_cache_read": 64,
    "output": 50,
    "output_audio": 150,
}


@pytest.mark.parametrize("step", [1 << 30, 977])
def test_every_response_is_a_call(step: int) -> None:
    server = [session(), created(), SOUND, done(), created(1), SOUND, done(1, status="cancelled"), SOUND]
    first, second = calls(talk(server, step=step))
    for call, number, reason in ((first, 0, "completed"), (second, 1, "cancelled")):
        assert (dict(call.usage.tokens), call.usage.quality) == (BUCKETS, E)
        assert (call.provider, call.operation, call.streaming, call.billable) == (
            "openai",
            "chat",
            True,
            True,
        )
        assert (call.request_model, call.response_model) == ("gpt-realtime-test", "gpt-realtime-test-2026")
        assert (call.response_id, list(call.finish_reasons)) == (RESPONSES[number], [reason])
        assert b"secret" not in call.SerializeToString()
    assert first.id != second.id
    again = calls(talk([session(), created(), done()]))
    assert [call.id for call in again] == [first.id]


def test_cached_images_leave_their_bucket() -> None:
    [call] = calls(talk([session(), done(usage=usage(cached_audio=0, cached_image=20))]))
    expected = {**BUCKETS, "input_image": 0, "input_audio": 300, "input_audio_cache_read": 0}
    expected |= {"input_cache_read": 128, "input": 72}
    assert dict(call.usage.tokens) == expected


@pytest.mark.parametrize(
    ("reported", "tokens", "units", "quality"),
    [
        ({"type": "duration", "seconds": 3.5}, {}, {"audio_seconds": 3.5}, E),
        (
            {
                "type": "tokens",
                "total_tokens": 22,
                "input_tokens": 13,
                "input_token_details": {"text_tokens": 0, "audio_tokens": 13},
                "output_tokens": 9,
            },
            {"input": 0, "input_audio": 13, "output": 9},
            {},
            E,
        ),
        (None, {}, {}, U),
    ],
)
def test_transcriptions_are_calls_of_their_own_model(
    reported: Any, tokens: dict[str, int], units: dict[str, float], quality: int
) -> None:
    heard, answered = calls(talk([session(), transcript(reported), done()]))
    assert (heard.operation, heard.request_model, heard.response_id) == (
        "transcription",
        "whisper-test",
        ITEM,
    )
    assert (dict(heard.usage.tokens), dict(heard.usage.units)) == (tokens, units)
    assert (heard.usage.quality, heard.billable) == (quality, True)
    assert answered.request_model == "gpt-realtime-test"


def test_the_client_may_name_the_models() -> None:
    update = {"type": "session.update", **{k: v for k, v in session().items() if k != "type"}}
    server = [transcript({"type": "duration", "seconds": 1}), done()]
    outcomes = talk(server, [SOUND, update], path="/openai/realtime?deployment=my-dep&api-version=1")
    heard, answered = calls(outcomes)
    assert (heard.request_model, answered.request_model) == ("whisper-test", "my-dep")
    beta = {"type": "session.update", "session": {"input_audio_transcription": {"model": "other-test"}}}
    heard, _ = calls(talk(server, [beta]))
    assert heard.request_model == "other-test"


@pytest.mark.parametrize(
    ("host", "path", "provider"),
    [
        ("r.openai.azure.com", "/openai/v1/realtime?model=dep", "azure.ai.openai"),
        ("api.x.ai", "/v1/realtime?model=grok-voice", "x_ai"),
        ("gateway.internal", "/openai/v1/realtime?model=m", "openai"),
    ],
)
def test_others_speak_the_same(host: str, path: str, provider: str) -> None:
    [call] = calls(talk([session(), done()], host=host, path=path))
    assert (call.provider, dict(call.usage.tokens)) == (provider, BUCKETS)


def test_a_response_that_never_ended_has_an_unknown_price() -> None:
    server = [session(), created(), done(), created(1), SOUND]
    first, second = calls(talk(server, end=False))
    assert (first.usage.quality, second.usage.quality) == (E, U)
    assert (second.response_id, second.billable, dict(second.usage.tokens)) == (RESPONSES[1], True, {})


def test_a_failed_response_costs_nothing() -> None:
    details = {"type": "failed", "error": {"type": "server_error", "code": "rate_limit_exceeded"}}
    [call] = calls(talk([session(), done(status="failed", status_details=details, usage=None)]))
    assert (call.error_type, call.billable, call.usage.quality) == ("rate_limit_exceeded", False, U)


def test_a_session_that_was_refused() -> None:
    asked, _ = wire.upgrade("api.openai.com", "/v1/realtime?model=m")
    refused = wire.response({"error": {"code": "invalid_api_key", "message": "m"}}, status=401)
    call = wire.the_call(wire.read(asked, refused, close=True))
    assert (call.error_type, call.billable, call.request_model) == ("invalid_api_key", False, "m")


# Responses by socket


def ask(model: str | None, **fields: Any) -> dict[str, Any]:
    named = {"model": model} if model else {}
    return {"type": "response.create", **named, "input": "secret " * 30_000, **fields}


@pytest.mark.parametrize("path", ["/v1/responses", "/openai/v1/responses"])
def test_every_response_of_a_socket_is_a_call(path: str) -> None:
    asked, answered = wire.upgrade("api.openai.com", path)
    first = wire.response_events(id=RESPONSES[0])
    second = wire.response_events("response.incomplete", id=RESPONSES[1], status="incomplete")
    turns = [
        (asked, answered),
        (wire.websocket(ask("gpt-test"), masked=True), b"".join(map(wire.websocket, first))),
        (wire.websocket(ask(None), masked=True), b"".join(map(wire.websocket, second))),
    ]
    found = calls(wire.read_turns(turns, close=True))
    assert [call.response_id for call in found] == list(RESPONSES)
    for call in found:
        assert dict(call.usage.tokens) == {
            "input": 32,
            "input_cache_read": 8,
            "output": 20,
            "output_reasoning": 5,
        }
        assert (call.request_model, call.response_model) == ("gpt-test", "gpt-test-2026")
        assert (call.streaming, call.billable, call.usage.quality) == (True, True, E)


def test_an_error_on_a_socket_and_a_response_that_never_ended() -> None:
    error = {"type": "error", "status": 400, "error": {"type": "invalid_request_error", "code": "bad_thing"}}
    server = [error, *wire.response_events()[:3]]
    refused, cut = calls(talk(server, [ask("gpt-test")], path="/v1/responses", end=False))
    assert (refused.error_type, refused.billable) == ("bad_thing", False)
    assert (cut.response_id, cut.billable, cut.usage.quality) == (wire.RESPONSE_ID, True, U)
