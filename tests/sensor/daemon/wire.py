"""What a client and an LLM API say to each other, as bytes, and a source that plays it to the loop."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from mmproto.reader import Direction
from mmsensor.capture.options import CaptureStatistics, TargetStatus
from mmsensor.streams.events import (
    Bytes,
    Closed,
    ConnectionKey,
    Opened,
    StreamEvent,
)

NOW = 1_800_000_000_000_000_000


def key(number: int = 1) -> ConnectionKey:
    # A process that is not there: what its facts are is the attribution's own test.
    return ConnectionKey(4_000_000 + number, 10**9, 0xABC0, number)


def request(path: str = "/v1/chat/completions", headers: str = "", **body: Any) -> bytes:
    content = json.dumps({"model": "gpt-4o-mini", "messages": [], **body}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: api.openai.com\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
    return head.encode() + content


def response(identifier: str, tokens: tuple[int, int] = (9, 21), status: int = 200) -> bytes:
    content = json.dumps(
        {
            "id": f"chatcmpl-{identifier}",
            "object": "chat.completion",
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
            ],
            "usage": {
                "prompt_tokens": tokens[0],
                "completion_tokens": tokens[1],
                "total_tokens": sum(tokens),
            },
        }
    ).encode()
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


class Stream:
    """The events of one connection, with their offsets."""

    def __init__(self, number: int = 1, late: bool = False) -> None:
        self.key = key(number)
        self._offsets = {Direction.WRITE: 0, Direction.READ: 0}
        self.events: list[StreamEvent] = [Opened(self.key, NOW, late)]

    def write(self, data: bytes) -> Stream:
        return self._move(Direction.WRITE, data)

    def read(self, data: bytes) -> Stream:
        return self._move(Direction.READ, data)

    def close(self) -> Stream:
        self.events.append(Closed(self.key, NOW, "ssl_free"))
        return self

    def _move(self, direction: Direction, data: bytes) -> Stream:
        self.events.append(Bytes(self.key, direction, self._offsets[direction], data, NOW))
        self._offsets[direction] += len(data)
        return self


class Recording:
    """An event source that plays recorded rounds and remembers the verdicts."""

    def __init__(self, rounds: Sequence[Sequence[StreamEvent]] = ()) -> None:
        self.rounds = [list(each) for each in rounds]
        self.verdicts: dict[ConnectionKey, bool] = {}
        self.status: list[TargetStatus] = []
        self.numbers = CaptureStatistics(0, 0, 0, 0, 0)

    def poll(self, timeout_s: float) -> Iterator[StreamEvent]:
        for event in self.rounds.pop(0) if self.rounds else []:
            # As the capture does: a connection that was given up is not heard of again.
            if self.verdicts.get(event.key, True):
                yield event

    def set_verdict(self, key: ConnectionKey, interesting: bool) -> None:
        self.verdicts[key] = interesting

    def targets(self) -> list[TargetStatus]:
        return self.status

    def statistics(self) -> CaptureStatistics:
        return self.numbers
