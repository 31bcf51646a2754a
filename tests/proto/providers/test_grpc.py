"""gRPC calls to xAI and Google: messages written by the numbers of the published protos, on HTTP/2."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from tests.proto import wire
from tests.proto.http2_pair import Pair
from tests.proto.providers.reported import E, P, U, reported

from mmproto.exchange import Dropped, Recognised
from mmproto.outcome import Outcome
from mmproto.reader import ConnectionReader

OK = {"grpc-status": "0"}
XAI, STUDIO, VERTEX = "api.x.ai", "generativelanguage.googleapis.com", "us-central1-aiplatform.googleapis.com"
ID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def proto(fields: dict[int, Any]) -> bytes:
    """A message: numbers, texts, messages, and lists of these."""
    encoded = b""
    for number, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, float):
                encoded += varint(number << 3 | 1) + struct.pack("<d", one)
            elif isinstance(one, int):
                encoded += varint(number << 3) + varint(one)
            else:
                data = one.encode() if isinstance(one, str) else proto(one) if isinstance(one, dict) else one
                encoded += varint(number << 3 | 2) + varint(len(data)) + data
    return encoded


def prefixed(*messages: dict[int, Any]) -> bytes:
    return b"".join(b"\0" + len(data).to_bytes(4) + data for data in map(proto, messages))


def call(
    host: str,
    path: str,
    request: dict[int, Any],
    *messages: dict[int, Any],
    trailers: dict[str, str] | None = None,
    abort: bool = False,
) -> list[Outcome]:
    pair = Pair()
    grpc = {"content-type": "application/grpc", "te": "trailers"}
    stream = pair.ask(prefixed(request), path=path, host=host, headers=grpc)
    body = prefixed(*messages)
    pieces = [body[at : at + 50] for at in range(0, len(body), 50)]
    pair.answer(
        stream,
        pieces=pieces,
        content_type="application/grpc",
        trailers=None if abort else trailers or OK,
        end=not abort,
    )
    reader = ConnectionReader(wire.RULES, "connection-1")
    outcomes = [
        outcome for direction, data in pair.steps for outcome in reader.feed(direction, data, wire.START_NS)
    ]
    return outcomes + reader.close(wire.START_NS)


# -- xAI

ASKED = {1: [{1: [{1: "secret prompt"}], 2: 1}], 2: "grok-test", 16: "user-7"}


def usage(completion: int, **more: int) -> dict[int, Any]:
    return {
        1: completion,
        2: 30,
        6: 100,
        3: 130 + completion,
        7: 8,
        **{int(k[1:]): v for k, v in more.items()},
    }


def answered(**more: Any) -> dict[int, Any]:
    output = {1: 3, 3: {1: "secret answer"}}
    return {1: ID, 2: [output], 6: "grok-test-0709", 9: usage(12), **{int(k[1:]): v for k, v in more.items()}}


TOKENS = {"input": 22, "input_cache_read": 8, "output": 12, "output_reasoning": 100}


def nonzero(call_: Any) -> dict[str, int]:
    return {name: count for name, count in reported(call_)[0].items() if count}


def test_xai() -> None:
    message = answered(_9=usage(12, _11=25_000_000), _15=2)
    found = wire.the_call(call(XAI, "/xai_api.Chat/GetCompletion", ASKED, message))
    assert (found.provider, found.operation, found.request_model) == ("x_ai", "chat", "grok-test")
    assert (found.response_model, found.response_id) == ("grok-test-0709", ID)
    assert (nonzero(found), reported(found)[1], found.streaming) == (TOKENS, E, False)
    assert (found.reported_cost_nano_usd, found.service_tier) == (2_500_000, "priority")
    assert (list(found.finish_reasons), found.origin.end_user) == (["REASON_STOP"], "user-7")
    assert b"secret" not in found.SerializeToString()


def chunk(completion: int, finish: int | None = None) -> dict[int, Any]:
    output: dict[int, Any] = {1: {1: "secret"}} if finish is None else {3: finish}
    return {1: ID, 2: [output], 4: "grok-test-0709", 6: usage(completion)}


def test_the_last_chunk_of_an_xai_stream_counts() -> None:
    # Searches of the provider's own: two of the web, one of X, in a packed list.
    last = {**chunk(12, 3), 6: {**usage(12), 9: b"\x01\x02\x01"}}
    found = wire.the_call(call(XAI, "/xai_api.Chat/GetCompletionChunk", ASKED, chunk(1), chunk(5), last))
    assert (nonzero(found), reported(found)[1], found.streaming, found.error_type) == (TOKENS, E, True, "")
    assert dict(found.usage.units) == {"web_searches": 2.0}


@pytest.mark.parametrize("messages", [[chunk(1), chunk(5)], [chunk(1), {1: ID, 6: usage(5)}]])
def test_an_xai_stream_that_is_cut_off_has_what_it_told_of(messages: list[dict[int, Any]]) -> None:
    found = wire.the_call(call(XAI, "/xai_api.Chat/GetCompletionChunk", ASKED, *messages, abort=True))
    assert (nonzero(found), reported(found)[1]) == ({**TOKENS, "output": 5}, P)
    assert found.billable


def test_xai_sampling() -> None:
    found = wire.the_call(
        call(
            XAI, "/xai_api.Sample/SampleText", {1: ["secret"], 3: "grok-test"}, answered(_2=[{1: 1, 3: "s"}])
        )
    )
    assert (found.operation, nonzero(found)) == ("text_completion", TOKENS)
    assert list(found.finish_reasons) == ["REASON_MAX_LEN"]


def test_deferred_work_is_paid_for_where_it_is_found_done() -> None:
    path = "/xai_api.Chat/{}DeferredCompletion"
    [begun] = call(XAI, path.format("Start"), ASKED, {1: "request"})
    [pending] = call(XAI, path.format("Get"), {1: "request"}, {2: 3})
    assert [begun, pending] == [Dropped("response_pending")] * 2
    done = wire.the_call(call(XAI, path.format("Get"), {1: "request"}, {2: 1, 1: answered()}))
    assert (nonzero(done), reported(done)[1]) == (TOKENS, E)
    failed = wire.the_call(call(XAI, path.format("Get"), {1: "request"}, {2: 4}))
    assert (failed.error_type, failed.billable) == ("failed", False)


def test_xai_images_are_paid_for_by_the_piece() -> None:
    images = {1: [{1: "c2VjcmV0"}, {}], 2: "image-test", 3: {11: 700_000_000}}
    found = wire.the_call(call(XAI, "/xai_api.Image/GenerateImage", {1: "secret", 2: "image-test"}, images))
    assert (found.operation, dict(found.usage.units)) == ("image_generation", {"images": 2.0})
    assert found.reported_cost_nano_usd == 70_000_000


def test_xai_embeddings_count_no_tokens() -> None:
    answer = {1: ID, 2: [{2: [{1: b"\0\0\0\0"}]}], 3: {1: 1}, 4: "embed-test"}
    found = wire.the_call(call(XAI, "/xai_api.Embedder/Embed", {1: [{1: "s"}], 2: "embed"}, answer))
    assert (found.operation, found.response_model, reported(found)[1]) == ("embeddings", "embed-test", U)
    assert found.billable


@pytest.mark.parametrize(
    ("path", "reason"),
    [("Tokenize/TokenizeText", "token_counting"), ("Chat/GetStoredCompletion", "retrieval")],
)
def test_what_costs_nothing_at_xai(path: str, reason: str) -> None:
    [outcome] = call(XAI, f"/xai_api.{path}", {1: "secret", 2: "grok-test"}, answered())
    assert outcome == Dropped(reason)


@pytest.mark.parametrize("messages", [[], [chunk(1)]])
def test_an_error_is_in_the_trailers(messages: list[dict[int, Any]]) -> None:
    found = wire.the_call(
        call(XAI, "/xai_api.Chat/GetCompletionChunk", ASKED, *messages, trailers={"grpc-status": "8"})
    )
    assert (found.error_type, found.http_status) == ("RESOURCE_EXHAUSTED", 200)
    assert found.streaming


def test_json_in_place_of_messages_is_not_read() -> None:
    sent = wire.request(XAI, "/xai_api.Chat/GetCompletion", {"model": [], "service_tier": {}})
    for answer in ({"choices": [7], "usage": {"prompt_tokens": []}}, [{"usage": 7}]):
        found = wire.the_call(wire.read(sent, wire.response(answer), close=True))
        assert (reported(found)[1], found.request_model) == (U, "")


def test_a_damaged_message_is_told_and_not_read() -> None:
    damaged = {**answered(), 9: b"\x08\xff"}
    [outcome] = call(XAI, "/xai_api.Chat/GetCompletion", ASKED, damaged)
    assert isinstance(outcome, Recognised)
    assert (outcome.anomalies, reported(outcome.call)[1]) == (("malformed_protobuf",), U)


# -- Google

GEMINI = {1: "models/gemini-test", 2: [{1: [{2: "secret"}]}]}
GEMINI_TOKENS = {
    "input": 60,
    "input_cache_read": 40,
    "input_audio_cache_read": 60,
    "input_audio": 240,
    "output": 20,
    "output_reasoning": 30,
}


def audio(count: int) -> list[dict[int, int]]:
    return [{1: 4, 2: count}]


def studio(candidates: int, finish: int = 0) -> dict[int, Any]:
    told = {1: 390, 2: candidates, 3: 430 + candidates, 4: 100, 8: 10, 10: 30, 5: audio(300), 6: audio(60)}
    candidate = {1: {1: [{2: "secret"}]}, **({2: finish} if finish else {})}
    return {1: [candidate], 3: told, 4: "gemini-test-001", 5: "TeStOnLy_0123456789abc"}


def test_ai_studio() -> None:
    path = "/google.ai.generativelanguage.v1beta.GenerativeService/{}GenerateContent"
    for name, messages in (("", [studio(20, 1)]), ("Stream", [studio(1), studio(7), studio(20, 1)])):
        found = wire.the_call(call(STUDIO, path.format(name), GEMINI, *messages))
        assert (found.provider, found.operation) == ("gcp.gemini", "generate_content")
        assert (found.request_model, found.response_model) == ("gemini-test", "gemini-test-001")
        assert (nonzero(found), reported(found)[1]) == (GEMINI_TOKENS, E)
        assert (found.streaming, list(found.finish_reasons)) == (bool(name), ["STOP"])
        assert b"secret" not in found.SerializeToString()


def vertex(candidates: int, finish: int = 0) -> dict[int, Any]:
    told = {1: 390, 2: candidates, 3: 430 + candidates, 5: 100, 13: 10, 14: 30, 9: audio(300), 10: audio(60)}
    candidate = {2: {2: [{1: "secret"}]}, **({3: finish} if finish else {})}
    return {2: [candidate], 4: {**told, 8: 2} if finish else {8: 2}, 11: "gemini-test-001", 13: "abc"}


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_vertex_ai(version: str) -> None:
    asked = {5: "projects/p/locations/l/publishers/google/models/gemini-test", 2: [{}]}
    path = f"/google.cloud.aiplatform.{version}.PredictionService/StreamGenerateContent"
    found = wire.the_call(call(VERTEX, path, asked, vertex(1), vertex(20, 1)))
    assert (found.provider, found.request_model) == ("gcp.vertex_ai", "gemini-test")
    assert (nonzero(found), reported(found)[1]) == (GEMINI_TOKENS, E)
    assert (found.service_tier, found.streaming) == ("provisioned_throughput", True)


def test_a_stream_of_google_that_is_cut_off() -> None:
    path = "/google.ai.generativelanguage.v1beta.GenerativeService/StreamGenerateContent"
    found = wire.the_call(call(STUDIO, path, GEMINI, studio(1), studio(7), abort=True))
    assert (found.usage.tokens["output"], reported(found)[1], found.billable) == (7, P, True)


def test_embeddings_and_token_counts_of_google() -> None:
    studio_path = "/google.ai.generativelanguage.v1beta.GenerativeService/"
    embedded = wire.the_call(
        call(STUDIO, studio_path + "EmbedContent", {1: "models/embed", 2: {1: []}}, {1: {1: b"\0" * 8}})
    )
    assert (embedded.operation, embedded.request_model, reported(embedded)[1]) == ("embeddings", "embed", U)
    vertex_path = "/google.cloud.aiplatform.v1beta1.PredictionService/EmbedContent"
    told = wire.the_call(call(VERTEX, vertex_path, {1: "models/embed"}, {1: {}, 2: {1: 7, 3: 7}}))
    assert (nonzero(told), reported(told)[1]) == ({"input": 7}, E)
    [counted] = call(STUDIO, studio_path + "CountTokens", {1: "models/m"}, {1: 12})
    assert counted == Dropped("token_counting")


def value(given: Any) -> dict[int, Any]:
    """A `google.protobuf.Value`, as it is written."""
    if isinstance(given, dict):
        return {5: {1: [{1: name, 2: value(one)} for name, one in given.items()]}}
    if isinstance(given, list):
        return {6: {1: [value(one) for one in given]}}
    return {2: given}


def test_predictions_of_vertex_ai_count_their_inputs() -> None:
    path = "/google.cloud.aiplatform.v1.PredictionService/Predict"
    asked = {
        1: "projects/p/locations/l/publishers/google/models/text-embedding-9",
        2: [value({"content": 1.0})],
    }
    told = [
        {"embeddings": {"values": [0.5, -1.0], "statistics": {"truncated": 0.0, "token_count": n}}}
        for n in (7.0, 5.0)
    ]
    found = wire.the_call(call(VERTEX, path, asked, {1: [value(one) for one in told], 3: "m"}))
    assert (found.operation, found.request_model) == ("embeddings", "text-embedding-9")
    assert (nonzero(found), reported(found)[1]) == ({"input": 12}, E)
    other = wire.the_call(call(VERTEX, path, {1: "x/endpoints/7"}, {1: [value({"label": 1.0})]}))
    assert (other.operation, reported(other)[1]) == ("text_completion", U)
