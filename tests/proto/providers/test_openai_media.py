"""OpenAI's images, sound, videos and moderations, and those of its copies."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto import wire

from mmproto.exchange import Dropped, Recognised
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import Quality

U, E, P = Quality.QUALITY_UNKNOWN, Quality.QUALITY_EXACT, Quality.QUALITY_PARTIAL


def call(
    path: str,
    asked: Any,
    body: bytes,
    *,
    host: str = "api.openai.com",
    headers: dict[str, str] | None = None,
) -> Call:
    outcomes = wire.read(wire.request(host, path, asked, headers=headers), body, close=True)
    [outcome] = outcomes
    assert isinstance(outcome, Recognised), outcome
    assert outcome.anomalies == ()
    return outcome.call


def seen(found: Call) -> tuple[dict[str, int], dict[str, float], int]:
    return dict(found.usage.tokens), dict(found.usage.units), found.usage.quality


# Images


def images(count: int = 1, usage: Any = None) -> dict[str, Any]:
    found: dict[str, Any] = {"created": 1, "data": [{"b64_json": "QUJD" * 40_000}] * count}
    return {**found, "usage": usage} if usage is not None else found


TOKENS = {
    "input_tokens": 60,
    "input_tokens_details": {"text_tokens": 20, "image_tokens": 40},
    "output_tokens": 1000,
    "total_tokens": 1060,
}
IMAGES: list[tuple[str, str, Any, dict[str, int], dict[str, float], int]] = [
    ("by tokens", "gpt-image-test", TOKENS, {"input": 20, "input_image": 40, "output_image": 1000}, {}, E),
    (
        "with text beside the image",
        "gpt-image-test",
        {**TOKENS, "output_tokens_details": {"text_tokens": 100, "image_tokens": 900}},
        {"input": 20, "input_image": 40, "output": 100, "output_image": 900},
        {},
        E,
    ),
    ("by tokens that nobody told", "gpt-image-test", None, {}, {}, U),
    ("by the image", "dall-e-test", None, {}, {"images": 2.0}, E),
    ("no model named", "", None, {}, {"images": 2.0}, E),
]


@pytest.mark.parametrize(
    ("model", "usage", "expected"), [(*i[1:3], i[3:]) for i in IMAGES], ids=[i[0] for i in IMAGES]
)
@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/images/edits", "/v1/images/variations"])
def test_images(path: str, model: str, usage: Any, expected: tuple[Any, ...]) -> None:
    asked = {"prompt": "secret prompt", "n": 2} | ({"model": model} if model else {})
    found = call(path, asked, wire.response(images(2, usage)))
    assert seen(found) == expected
    assert (found.operation, found.request_model, found.billable) == ("image_generation", model, True)
    assert b"secret" not in found.SerializeToString()


@pytest.mark.parametrize("kind", ["image_generation", "image_edit"])
def test_a_stream_of_images(kind: str) -> None:
    preview = {"type": f"{kind}.partial_image", "b64_json": "QUJD" * 30_000, "partial_image_index": 0}
    last = {"type": f"{kind}.completed", "b64_json": "QUJD" * 30_000, "usage": TOKENS}
    body = wire.response(
        wire.sse([preview, preview, last], names=True), content_type="text/event-stream", framing="chunked"
    )
    found = call("/v1/images/generations", {"model": "gpt-image-test", "prompt": "p", "stream": True}, body)
    assert seen(found) == ({"input": 20, "input_image": 40, "output_image": 1000}, {}, E)
    assert (found.streaming, found.error_type) == (True, "")


def test_images_of_xai_say_what_they_cost() -> None:
    body = images() | {"usage": {"cost_in_usd_ticks": 700_000_000}}
    found = call(
        "/v1/images/edits", {"model": "grok-test", "prompt": "p"}, wire.response(body), host="api.x.ai"
    )
    assert (seen(found), found.reported_cost_nano_usd) == (({}, {"images": 1.0}, E), 70_000_000)


def test_images_that_were_refused() -> None:
    error = wire.response({"error": {"code": "moderation_blocked", "message": "m"}}, status=400)
    found = call("/v1/images/generations", {"model": "dall-e-test", "prompt": "p"}, error)
    assert (found.error_type, found.billable, seen(found)) == ("moderation_blocked", False, ({}, {}, U))


# Speech to text

FORM = "multipart/form-data; boundary=xyzzy"


def form(model: str = "whisper-test", **fields: str) -> bytes:
    lines = b""
    for name, value in {"model": model, **fields}.items():
        lines += f'--xyzzy\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    sound = b'--xyzzy\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return lines + sound + b"RIFF\x00\xff--xyzz" * 9000 + b"\r\n--xyzzy--\r\n"


def hear(body: bytes, *, model: str = "whisper-test", host: str = "api.openai.com", **fields: str) -> Call:
    sent = wire.request(host, "/v1/audio/transcriptions", form(model, **fields))
    sent = sent.replace(b"application/json", FORM.encode(), 1)
    [outcome] = wire.read(sent, body, close=True)
    assert isinstance(outcome, Recognised), outcome
    assert outcome.anomalies == ()
    return outcome.call


BY_TOKENS = {
    "type": "tokens",
    "total_tokens": 49,
    "input_tokens": 37,
    "input_token_details": {"text_tokens": 7, "audio_tokens": 30},
    "output_tokens": 12,
}
HEARD: list[tuple[str, str, Any, dict[str, int], dict[str, float], int]] = [
    ("tokens", "gpt-4o-test", BY_TOKENS, {"input": 7, "input_audio": 30, "output": 12}, {}, E),
    ("seconds", "whisper-test", {"type": "duration", "seconds": 4}, {}, {"audio_seconds": 4.0}, E),
    ("seconds that are none", "whisper-test", {"type": "duration"}, {}, {}, U),
    ("nothing told", "whisper-test", None, {}, {}, U),
]


@pytest.mark.parametrize(
    ("model", "usage", "tokens", "units", "quality"), [h[1:] for h in HEARD], ids=[h[0] for h in HEARD]
)
def test_transcriptions(
    model: str, usage: Any, tokens: dict[str, int], units: dict[str, float], quality: int
) -> None:
    body = {"text": "secret words"} | ({"usage": usage} if usage else {})
    found = hear(wire.response(body), model=model)
    assert seen(found) == (tokens, units, quality)
    assert (found.operation, found.request_model, found.billable) == ("transcription", model, True)
    assert b"secret" not in found.SerializeToString()


@pytest.mark.parametrize(("model", "quality"), [("whisper-test", E), ("gpt-4o-test", P)])
def test_the_length_of_the_recording_counts_where_no_more_is_told(model: str, quality: int) -> None:
    found = hear(wire.response({"text": "w", "duration": 8.47, "segments": [{}]}), model=model)
    assert seen(found) == ({}, {"audio_seconds": 8.47}, quality)


def test_a_stream_of_words() -> None:
    delta = {"type": "transcript.text.delta", "delta": "secret"}
    last = {"type": "transcript.text.done", "text": "secret words", "usage": BY_TOKENS}
    body = wire.response(wire.sse([delta, delta, last], end=b"\r\n"), content_type="text/event-stream")
    found = hear(body, model="gpt-4o-test", stream="true")
    assert seen(found) == ({"input": 7, "input_audio": 30, "output": 12}, {}, E)
    assert (found.streaming, found.error_type) == (True, "")


@pytest.mark.parametrize(
    "text",
    [b"secret words\n", b"1\n00:00:00,000 --> 00:00:04,000\nsecret\n", b"WEBVTT\n\n1\n", b"data: x\n"],
)
def test_answers_in_plain_text_tell_nothing(text: bytes) -> None:
    found = hear(wire.response(text, content_type="text/plain"), response_format="srt")
    assert (seen(found), found.billable, found.streaming, found.error_type) == (({}, {}, U), True, False, "")


def test_groq_tells_the_length() -> None:
    body = {"text": "w", "duration": 12.5, "x_groq": {"id": "req_01jx2y3z4a5b6c7d8e9f0g1h2j"}}
    found = hear(wire.response(body), host="api.groq.com")
    assert (found.provider, found.response_id) == ("groq", "req_01jx2y3z4a5b6c7d8e9f0g1h2j")
    assert seen(found)[1] == {"audio_seconds": 12.5}


# Text to speech

SOUND = b"\xff\xf3\xc4\xc4" + bytes(range(256)) * 300


@pytest.mark.parametrize("first", [b"ID3\x04", b"\xff\xf3", b"data", b":\x00", b"{\x01", b"["])
@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_speech_is_paid_for_by_the_character(first: bytes, framing: str) -> None:
    body = wire.response(first + SOUND, content_type="audio/mpeg", framing=framing)
    asked = {"model": "tts-test", "input": "Grüße, secret 世界", "voice": "v"}
    found = call("/v1/audio/speech", asked, body)
    assert seen(found) == ({}, {"characters": 16.0}, E)
    assert (found.operation, found.streaming, found.error_type) == ("speech", False, "")


def test_speech_by_tokens_says_so_only_in_a_stream() -> None:
    asked = {"model": "gpt-4o-mini-tts", "input": "secret", "voice": "v", "stream_format": "sse"}
    found = call("/v1/audio/speech", asked, wire.response(SOUND, content_type="audio/mpeg"))
    assert seen(found) == ({}, {}, U)
    delta = {"type": "speech.audio.delta", "audio": "QUJD" * 3000}
    usage = {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}
    events = wire.sse([delta, delta, {"type": "speech.audio.done", "usage": usage}])
    found = call("/v1/audio/speech", asked, wire.response(events, content_type="text/event-stream"))
    assert seen(found) == ({"input": 14, "output_audio": 101}, {}, E)
    assert found.streaming


def test_speech_that_was_refused() -> None:
    error = wire.response({"error": {"code": "bad_voice", "message": "m"}}, status=400)
    found = call("/v1/audio/speech", {"model": "tts-test", "input": "x"}, error)
    assert (found.error_type, found.billable) == ("bad_voice", False)


def test_voice_of_xai() -> None:
    spoken = wire.response(SOUND, content_type="audio/mpeg")
    found = call("/v1/tts", {"text": "twelve chars"}, spoken, host="api.x.ai")
    assert (found.operation, seen(found)) == ("speech", ({}, {"characters": 12.0}, E))
    sent = wire.request("api.x.ai", "/v1/stt", form()).replace(b"application/json", FORM.encode(), 1)
    heard = wire.the_call(wire.read(sent, wire.response({"text": "w", "duration": 3.7, "words": []})))
    assert (heard.operation, seen(heard)) == ("transcription", ({}, {"audio_seconds": 3.7}, E))


# Videos, moderations, and what costs nothing


def test_videos_are_calls_without_a_unit() -> None:
    accepted = {
        "id": "video_68d7a6b5c4e3f2019a8b7c6d",
        "object": "video",
        "model": "sora-test",
        "status": "queued",
    }
    found = call("/v1/videos", {"model": "sora-test", "prompt": "p"}, wire.response(accepted))
    assert (found.operation, found.billable, seen(found)) == ("video_generation", True, ({}, {}, U))
    fetched = wire.read(
        wire.request("api.openai.com", f"/v1/videos/{accepted['id']}/content", method="GET"),
        wire.response(SOUND, content_type="video/mp4"),
    )
    assert fetched == [Dropped("retrieval")]


def test_moderation_costs_nothing_and_is_a_call() -> None:
    verdict = {"id": "modr-AbCdEfGhIjKlMnOpQrStUv", "model": "m-007", "results": [{"flagged": False}]}
    found = call("/v1/moderations", {"model": "m-latest", "input": "secret"}, wire.response(verdict))
    assert (found.operation, found.billable, found.request_model) == ("moderation", False, "m-latest")
    assert (found.response_model, seen(found)) == ("", ({}, {}, U))


@pytest.mark.parametrize(
    ("path", "asked", "answer", "reason"),
    [
        ("/v1/responses/input_tokens", {"model": "m", "input": "x"}, {"input_tokens": 47}, "token_counting"),
        ("/v1/realtime/client_secrets", {"session": {"model": "m"}}, {"value": "ek_x"}, "preparation"),
        (
            "/v1/realtime/sessions",
            {"model": "m"},
            {"model": "m", "object": "realtime.session"},
            "preparation",
        ),
        ("/v1/realtime/calls", b"v=0\r\no=- 1 1", b"v=0\r\no=- 2 2", "preparation"),
    ],
)
def test_what_costs_nothing_is_no_call(path: str, asked: Any, answer: Any, reason: str) -> None:
    sent = wire.request("api.openai.com", path, asked)
    [outcome] = wire.read(sent, wire.response(answer))
    assert isinstance(outcome, Dropped)
    assert outcome.reason == reason
    assert outcome.call is not None
    assert (outcome.call.billable, dict(outcome.call.usage.tokens), outcome.call.response_model) == (
        False,
        {},
        "",
    )
