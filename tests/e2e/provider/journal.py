"""The truth: one line for every request this provider has served, in the order it answered them.

A line is written and flushed BEFORE the last bytes of its answer leave, so that a client that has read its
answer finds the line on disk. It holds no prompt, no generated text and no credential.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from tests.e2e.provider.answer import Answer, Request


@dataclass(frozen=True, slots=True)
class Served:
    """One request. The operation's fields are empty where it was none.

    `complete` is false where the answer was cut off, by order or because the client went away.
    `buckets` are the disjoint token counts that the answer reported, None where it reported none.
    """

    number: int
    method: str
    path: str
    host: str
    user_agent: str
    status: int
    complete: bool
    request_id: str = ""
    streaming: bool = False
    provider: str = ""
    operation: str = ""
    model: str = ""
    response_model: str = ""
    response_id: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    buckets: dict[str, int] | None = None

    @classmethod
    def of(cls, number: int, request: Request, answer: Answer, *, complete: bool) -> Self:
        plain = cls(
            number=number,
            method=request.method,
            path=request.path,
            host=request.headers.get("host", ""),
            user_agent=request.headers.get("user-agent", ""),
            status=answer.status,
            complete=complete,
            request_id=answer.headers.get("x-request-id") or answer.headers.get("request-id", ""),
        )
        operation = answer.operation
        if operation is None:
            return plain
        usage = operation.usage
        return cls(
            **{
                **asdict(plain),
                "streaming": operation.streaming,
                "provider": operation.provider,
                "operation": operation.name,
                "model": operation.model,
                "response_model": operation.response_model,
                "response_id": operation.response_id,
                "input_tokens": usage.input_total if usage else None,
                "output_tokens": usage.output_total if usage else None,
                "buckets": usage.buckets() if usage else None,
            }
        )


class Journal:
    """Appends to a JSONL file and keeps the same lines in memory."""

    def __init__(self, path: Path) -> None:
        self.entries: list[Served] = []
        self._file = path.open("a", encoding="utf-8")

    def record(self, request: Request, answer: Answer, *, complete: bool) -> None:
        entry = Served.of(len(self.entries) + 1, request, answer, complete=complete)
        self.entries.append(entry)
        self._file.write(json.dumps(asdict(entry)) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> list[Served]:
    """What is on disk so far; a line still being written is left for the next reading."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [Served(**json.loads(line)) for line in lines]
