"""What a route hands to the server: one HTTP answer, and what the journal shall say about it."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.provider.usage import Usage

ALPHANUMERIC = string.ascii_letters + string.digits


def random_text(length: int) -> str:
    """Letters and digits, as the providers' ids are made of."""
    return "".join(secrets.choice(ALPHANUMERIC) for _ in range(length))


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, its body complete and no longer chunked. Header names are lower-case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Operation:
    """The LLM operation of an answer, in the contract's words; what a meter has to find out by itself."""

    provider: str
    name: str
    model: str
    response_model: str
    response_id: str
    streaming: bool
    usage: Usage | None  # None: the answer carries no usage


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. `pieces` are written one by one; a `stream` is chunked, anything else has a length."""

    status: int
    pieces: Iterable[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None  # None: a stream, or one piece to be measured
    stream: bool = False
    compress: bool = False
    delay_s: float = 0.0
    gap_s: float = 0.0
    cut: int | None = None
    operation: Operation | None = None


def json_bytes(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def json_answer(status: int, value: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, [json_bytes(value)], {"content-type": "application/json", **(headers or {})})


def event(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + json_bytes(data) + b"\n\n"


def text_parts(size: int, parts: int) -> list[str]:
    """Generated text of `size` characters cut into `parts` pieces (fewer where there is less text)."""
    words = "The meter reads what passes and keeps none of it. "
    text = (words * (size // len(words) + 1))[:size]
    step = max(1, -(-size // max(1, parts)))
    return [text[start : start + step] for start in range(0, size, step)]
