"""SageMaker endpoints: OpenAI's dialect and TGI's, streams within frames, and models that are not ours."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto import wire
from tests.proto.framing.test_eventstream import event
from tests.proto.providers.reported import E, P, U, reported

from mmproto.exchange import Dropped
from mmproto.outcome import Outcome

HOST = "runtime.sagemaker.us-east-1.amazonaws.com"
PATH = "/endpoints/my-endpoint/invocations"


def exchange(answer: Any, document: Any, path: str = PATH) -> list[Outcome]:
    body = answer if isinstance(answer, bytes) else wire.response(answer)
    return wire.read(wire.request(HOST, path, document), body, close=True)


DETAILS = {"finish_reason": "length", "generated_tokens": 9, "prefill": []}


@pytest.mark.parametrize(
    ("answer", "tokens", "quality"),
    [
        (wire.chat_completion(), {"input": 30, "output": 12}, E),
        ([{"generated_text": "secret"}], {}, U),
        ([{"generated_text": "secret", "details": DETAILS}], {"output": 9}, P),
        ({"generated_text": "secret", "details": DETAILS}, {"output": 9}, P),
    ],
)
def test_answers(answer: Any, tokens: dict[str, int], quality: int) -> None:
    call = wire.the_call(exchange(answer, {"inputs": "secret"}))
    assert (call.provider, call.billable, call.request_model) == ("aws.sagemaker", True, "")
    assert reported(call) == (tokens, quality)
    assert b"secret" not in call.SerializeToString()


TGI = [{"token": {"id": 1, "text": "s"}}] * 3 + [
    {"token": {"id": 2, "text": "s"}, "generated_text": "secret", "details": DETAILS}
]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("stream", "tokens", "quality"),
    [
        (wire.sse(wire.chat_chunks(usage=wire.chat_usage()), done=True), {"input": 30, "output": 12}, E),
        (wire.sse(TGI), {"output": 9}, P),
        (b"\n".join(wire.dump(one) for one in TGI), {"output": 9}, P),
    ],
)
def test_streams_are_cut_anywhere_into_frames(
    stream: bytes, tokens: dict[str, int], quality: int, size: int
) -> None:
    parts = [event("PayloadPart", stream[at : at + size]) for at in range(0, len(stream), size)]
    body = wire.response(
        b"".join(parts), content_type="application/vnd.amazon.eventstream", framing="chunked", chunk=501
    )
    call = wire.the_call(exchange(body, wire.chat_request(), f"{PATH}-response-stream"))
    assert reported(call) == (tokens, quality)
    assert (call.streaming, call.error_type, call.billable) == (True, "", True)


@pytest.mark.parametrize("answer", [[{"label": "POSITIVE", "score": 0.9}], {"predictions": [0.5]}])
def test_other_models_are_not_ours(answer: Any) -> None:
    assert exchange(answer, {"inputs": "secret"}) == [Dropped("not_llm")]


def test_an_error() -> None:
    body = wire.response(
        {"Message": "m"}, status=424, headers={"x-amzn-errortype": "ModelError:http://internal"}
    )
    call = wire.the_call(exchange(body, {"inputs": "secret"}))
    assert (call.error_type, call.billable, call.http_status) == ("ModelError", False, 424)
