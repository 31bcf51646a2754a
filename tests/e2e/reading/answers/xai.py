"""xAI over gRPC: the fields' numbers are those of xai.api.v1."""

from __future__ import annotations

from tests.e2e.reading.answers.answer import SENTENCE, Answer, Read
from tests.e2e.reading.framings import cut, grpc, protobuf

_GROK = "grok-4-fast-reasoning"


def _grok_usage(prompt: int, cached: int, completion: int, thoughts: int, ticks: int) -> bytes:
    total = prompt + completion + thoughts
    return protobuf((1, completion), (2, prompt), (3, total), (6, thoughts), (7, cached), (11, ticks))


XAI = Answer(
    "/xai_api.Chat/GetCompletion",
    "application/grpc",
    cut(
        grpc(
            protobuf(
                (1, "5f1d0c9e-0d42-4f4c-9a7d-1d2c3b4a5968"),
                (2, protobuf((1, 3), (3, protobuf((1, SENTENCE), (3, 2))))),
                (6, _GROK),
                (9, _grok_usage(211, 47, 223, 227, 1_234_567_890)),
            )
        )
    ),
    Read(
        "x_ai", "chat", _GROK, _GROK, False,
        {"input": 211 - 47, "input_cache_read": 47, "output": 223, "output_reasoning": 227},
        reported_cost_usd="0.123456789",
    ),
    trailers={"grpc-status": "0"},
)  # fmt: skip
XAI_STREAM = Answer(
    "/xai_api.Chat/GetCompletionChunk",
    "application/grpc",
    cut(
        grpc(
            *(
                protobuf(
                    (1, "7c2e1d0f-1e53-4a5d-8b8e-2e3d4c5b6a79"),
                    (2, protobuf((1, protobuf((1, word))), *(((3, 3),) if last else ()))),
                    (4, _GROK),
                    (6, _grok_usage(229, 0, output, 233, ticks)),
                )
                for word, last, output, ticks in (
                    ("Eleven", False, 1, 1000),
                    (" is a prime.", True, 239, 987_654_320),
                )
            ),
            packed=True,
        )
    ),
    Read(
        "x_ai", "chat", _GROK, _GROK, True,
        {"input": 229, "output": 239, "output_reasoning": 233},
        reported_cost_usd="0.098765432",
    ),
    headers={"grpc-encoding": "gzip"},
    trailers={"grpc-status": "0"},
)  # fmt: skip
